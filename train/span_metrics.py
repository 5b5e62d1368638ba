"""How well a predicted stretch of time agrees with a true one, and two baselines that need no model.

Spans are float tensors (N, 2) of [start, end] in seconds, converted to float64; row n of the prediction answers row n
of the truth. Shares and the mean overlap are percentages, as the field prints them.
"""

import torch
from torch import Tensor

IOU_THRESHOLDS = (0.3, 0.5)


def temporal_iou(predicted: Tensor, true: Tensor) -> Tensor:
    """Intersection over union of two stretches of time, row by row.

    Args:
        predicted, true: (N, 2) seconds, start <= end.

    Returns:
        (N,) float64 in [0, 1]; 0 where both stretches are empty.

    Raises:
        ValueError: other shapes, a value that is not finite, or a span that ends before it starts.
    """
    predicted, true = _checked(predicted, "predicted"), _checked(true, "true")
    if predicted.shape != true.shape:
        raise ValueError(f"{len(predicted)} predicted spans for {len(true)} true ones")
    intersection = torch.minimum(predicted[:, 1], true[:, 1]) - torch.maximum(predicted[:, 0], true[:, 0])
    intersection = intersection.clamp(min=0)
    union = (predicted[:, 1] - predicted[:, 0]) + (true[:, 1] - true[:, 0]) - intersection
    return torch.where(union > 0, intersection / union.clamp(min=torch.finfo(torch.float64).tiny), 0.0)


def span_metrics(predicted: Tensor, true: Tensor) -> dict[str, float]:
    """Mean overlap (`mIoU`) and the share of spans that reach each threshold (`R@1_IoU0.3`, `R@1_IoU0.5`), in percent.

    A span counts when its IoU is at least the threshold.

    Raises:
        ValueError: as `temporal_iou`, or no spans at all.
    """
    iou = temporal_iou(predicted, true)
    if not len(iou):
        raise ValueError("no spans to measure")
    metrics = {"mIoU": 100 * iou.mean().item()}
    for threshold in IOU_THRESHOLDS:
        metrics[f"R@1_IoU{threshold}"] = 100 * (iou >= threshold).double().mean().item()
    return metrics


def random_spans(within: Tensor, seed: int) -> Tensor:
    """One random span inside each given stretch: its two ends are independent uniform draws, put in order.

    So the mean length is a third of the stretch, and every pair of ends is equally likely.

    Args:
        within: (N, 2) seconds, the stretch to draw from.
        seed: of the draw; the same seed gives the same spans.

    Returns:
        (N, 2) float64 seconds.
    """
    within = _checked(within, "within")
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(len(within), 2, generator=generator, dtype=torch.float64).sort(dim=1).values
    return within[:, :1] + ends * (within[:, 1:] - within[:, :1])


def _checked(spans: Tensor, name: str) -> Tensor:
    spans = torch.as_tensor(spans).double()
    if spans.ndim != 2 or spans.shape[1] != 2:
        raise ValueError(f"{name} spans must have the shape (N, 2), not {tuple(spans.shape)}")
    if not spans.isfinite().all():
        raise ValueError(f"{name} spans contain a value that is not finite")
    if (spans[:, 1] < spans[:, 0]).any():
        row = int((spans[:, 1] < spans[:, 0]).nonzero()[0])
        raise ValueError(f"{name} span {row} ends before it starts: {spans[row].tolist()}")
    return spans
