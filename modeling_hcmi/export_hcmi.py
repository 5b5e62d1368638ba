"""Both encoders as graphs without Python: frames to features, and tokens to features, for `torch.export` and ONNX."""

import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .features_hcmi import HCMITextFeatures, HCMIVideoFeatures
from .modeling_hcmi import HCMIModel

_ONE_FILE_BYTES = 1_500_000_000
"""Larger weights go into a file of their own: an ONNX file cannot exceed 2 GB."""


class _Encoder(nn.Module, ABC):
    """One of the model's feature methods with tensors in and out."""

    inputs: dict[str, tuple[str, ...]] = {}
    """Name of each input -> names of its dynamic axes, from the first."""

    outputs: tuple[str, ...] = ()
    """Names of the outputs, in their order: the retrieval fields but for the mask that is an input."""

    def __init__(self, model: HCMIModel):
        super().__init__()
        self.model = model

    @abstractmethod
    def example(self) -> dict[str, torch.Tensor]:
        """Inputs to trace with: one row in full, one with padding."""


class HCMIVideoEncoder(_Encoder):
    """
    `get_video_features` with tensors in and out.

    Inputs: `pixel_values_videos` `(B, F, 3, H, W)` float, normalised; `video_mask` `(B, F)` bool. Outputs: `outputs`,
    shapes as in [`HCMIVideoFeatures`].
    """

    inputs = {"pixel_values_videos": ("batch", "frames"), "video_mask": ("batch", "frames")}
    outputs = tuple(name for name in HCMIVideoFeatures.retrieval_fields if name != "frame_mask")

    def forward(self, pixel_values_videos: torch.Tensor, video_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.model.get_video_features(pixel_values_videos, video_mask, return_dict=True)
        return tuple(features[name] for name in self.outputs)

    def example(self) -> dict[str, torch.Tensor]:
        vision, frames = self.model.config.vision_config, max(self.model.config.max_frames - 1, 1)
        mask = torch.ones(2, frames, dtype=torch.bool)
        mask[1, 1:] = False
        generator = torch.Generator().manual_seed(0)
        shape = (2, frames, vision.num_channels, vision.image_size, vision.image_size)
        return {"pixel_values_videos": torch.randn(shape, generator=generator), "video_mask": mask}


class HCMITextEncoder(_Encoder):
    """
    `get_text_features` with tensors in and out.

    Inputs: `input_ids` and `attention_mask` `(T, W)`, int64. Outputs: `outputs`, shapes as in [`HCMITextFeatures`].
    """

    inputs = {"input_ids": ("batch", "words"), "attention_mask": ("batch", "words")}
    outputs = tuple(name for name in HCMITextFeatures.retrieval_fields if name != "word_mask")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.model.get_text_features(input_ids, attention_mask, return_dict=True)
        return tuple(features[name] for name in self.outputs)

    def example(self) -> dict[str, torch.Tensor]:
        text = self.model.config.text_config
        words = max(text.max_position_embeddings - 1, 2)
        ids = torch.randint(0, text.vocab_size, (2, words), generator=torch.Generator().manual_seed(0))
        mask = torch.ones(2, words, dtype=torch.long)
        mask[1, 2:] = 0
        ids[0, -1] = ids[1, 1] = text.eos_token_id
        return {"input_ids": ids, "attention_mask": mask}


def encoders(model: HCMIModel) -> dict[str, _Encoder]:
    """Both encoders of a model, by the names of their files."""
    return {"video_encoder": HCMIVideoEncoder(model), "text_encoder": HCMITextEncoder(model)}


@torch.no_grad()
def export_encoder(encoder: _Encoder) -> torch.export.ExportedProgram:
    """
    The encoder as a program of `torch.export`, called with its inputs by name.

    It takes any batch, and any number of frames (words) that makes at least two clips (phrases), up to the model's
    most; what is shorter is padded, which changes nothing.
    """
    dynamic = {name: dict.fromkeys(range(len(axes)), torch.export.Dim.DYNAMIC) for name, axes in encoder.inputs.items()}
    return torch.export.export(encoder.eval(), (), encoder.example(), dynamic_shapes=dynamic)


@torch.no_grad()
def export_onnx(encoder: _Encoder, path: Path) -> None:
    """
    Writes the encoder as an ONNX file, with the dynamic axes of its inputs.

    Needs the packages onnx and onnxscript. Weights of more than 1.5 GB go into a second file, `path` + ".data".
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in encoder.state_dict().values())
    with warnings.catch_warnings():
        # Of the exporter's own parts, and of axes that share a name because they are of one length.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            encoder.eval(),
            kwargs=encoder.example(),
            f=str(path),
            input_names=list(encoder.inputs),
            output_names=list(encoder.outputs),
            dynamic_shapes={name: dict(enumerate(axes)) for name, axes in encoder.inputs.items()},
            external_data=size > _ONE_FILE_BYTES,
            dynamo=True,
            verbose=False,
        )


@torch.no_grad()
def onnx_difference(encoder: _Encoder, path: Path) -> float:
    """The largest difference between what onnxruntime makes of a file and what the encoder itself makes."""
    import onnxruntime

    inputs = encoder.example()
    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.run(list(encoder.outputs), {name: tensor.numpy() for name, tensor in inputs.items()})
    wanted = encoder.eval()(**inputs)
    pairs = zip(given, wanted, strict=True)
    return max((torch.from_numpy(a).double() - b.double()).abs().max().item() for a, b in pairs)
