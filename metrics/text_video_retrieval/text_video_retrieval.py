"""Text-video retrieval metrics as a module of the library `evaluate`: a thin cover of `hcmi.train.metrics`."""

import datasets
import evaluate
import torch

from hcmi.train.metrics import RECALL_AT, retrieval_metrics
from hcmi.train.post_processing import post_processed_metrics

_DESCRIPTION = """\
Recall at K, median and mean rank of text-video retrieval in both directions, with ties counted by their average rank
and both protocols that the literature has for several captions a video.
"""

_INPUTS = """
Args:
    predictions: for each text its scores with all V videos of the gallery; higher is better. V is the same throughout.
    references: for each text the number (0 ... V - 1) of the video that it belongs to.
    recall_ks: the K of R@K. Default: 1, 5, 10, 50.
    post_processing: any of "dsl" and "qb_norm", measured beside the plain scores, which must be cosines for it.
    bank_scores: for "qb_norm": the scores of the texts of the querybank (captions of the training split) with the V
        videos, a matrix.

Returns:
    One flat dict of numbers. Each of `text_to_video_`, `video_to_text_group_` and `video_to_text_sentence_` is followed
    by `queries`, `gallery`, `R@K` in percent, `R@K_95_low` and `R@K_95_high` (its 95 % interval), `geometric_mean` (of
    R@1, R@5 and R@10), `MdR`, `MnR` and, only where ties make them differ, `R@1_optimistic` and `R@1_pessimistic`.
    Post-processed numbers are named in the same way after `dsl_` and `qb_norm_`, with `dsl_temperature` and
    `qb_norm_temperature`; "qb_norm" is of text to video alone.

Examples:
    >>> metric = evaluate.load("metrics/text_video_retrieval")
    >>> result = metric.compute(predictions=[[0.9, 0.1], [0.2, 0.8], [0.7, 0.6]], references=[0, 1, 1])
    >>> round(result["text_to_video_R@1"], 1), result["video_to_text_group_R@1"]
    (66.7, 100.0)
"""


class TextVideoRetrieval(evaluate.Metric):
    """R@K, MdR and MnR in both directions."""

    def _info(self):
        features = {"predictions": datasets.List(datasets.Value("float32")), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=datasets.Features(features)
        )

    def _compute(self, predictions, references, recall_ks=RECALL_AT, post_processing=(), bank_scores=None):
        widths = {len(row) for row in predictions}
        if len(widths) > 1:
            raise ValueError(f"every text needs a score for each video, but rows have {min(widths)} to {max(widths)}")
        scores, video_of_text = torch.tensor(predictions), torch.tensor(references)
        bank = () if bank_scores is None else (torch.as_tensor(bank_scores, dtype=torch.float32),)
        measured = retrieval_metrics(scores, video_of_text, recall_ks)
        processed = post_processed_metrics(scores, video_of_text, post_processing, bank, recall_ks=recall_ks)
        for name, own in processed.items():
            del own["note"]  # the only word among the numbers
            measured |= {f"{name}_{key}": value for key, value in own.items()}
        return _flat(measured)


def _flat(nested):
    flat = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{key}": number for key, number in _flat(value).items()}
        elif isinstance(value, list):
            flat |= {f"{name}_low": value[0], f"{name}_high": value[1]}
        else:
            flat[name] = value
    return flat
