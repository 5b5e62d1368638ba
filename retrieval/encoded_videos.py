"""Videos after encoding: searched any number of times, added to, and kept in a file."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn.functional import pad

from hcmi.modeling_hcmi import HCMIVideoFeatures, concatenate_features

_TIME_FIELDS = ("timestamps", "video_spans")
_FIELDS = {*HCMIVideoFeatures.retrieval_fields, *_TIME_FIELDS}


@dataclass(frozen=True, eq=False)
class EncodedVideos:
    """
    Videos that a model has encoded, on the CPU. Two of them add up to one.

    Args:
        names: what each of the `V` videos is called in results.
        features: their embeddings.
        timestamps (`(V, F)`): seconds of the frames, float64, NaN on padding.
        video_spans (`(V, 2)`): seconds between which the frames were sampled, float64.
    """

    names: list[str]
    features: HCMIVideoFeatures
    timestamps: torch.Tensor
    video_spans: torch.Tensor

    def __len__(self) -> int:
        return len(self.names)

    def __add__(self, other: "EncodedVideos") -> "EncodedVideos":
        return self.concatenate([self, other])

    @property
    def width(self) -> int:
        """Width `D` of the embeddings."""
        return self.features["pooler_output"].shape[-1]

    @classmethod
    def concatenate(cls, parts: Sequence["EncodedVideos"]) -> "EncodedVideos":
        """
        Joins any number of parts, in their order.

        Raises:
            ValueError: if there are none, or different models have made them.
        """
        if len({part.width for part in parts}) > 1:
            raise ValueError(f"Embeddings {[part.width for part in parts]} wide come from different models.")
        features = concatenate_features([part.features for part in parts])
        frames = features.frames.shape[1]
        return cls(
            names=[name for part in parts for name in part.names],
            features=features,
            timestamps=torch.cat(
                [pad(part.timestamps, (0, frames - part.timestamps.shape[1]), value=torch.nan) for part in parts]
            ),
            video_spans=torch.cat([part.video_spans for part in parts]),
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes a safetensors file."""
        tensors = {name: self.features[name] for name in HCMIVideoFeatures.retrieval_fields}
        tensors |= {name: getattr(self, name) for name in _TIME_FIELDS}
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(tensors, path, metadata={"names": json.dumps(self.names)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "EncodedVideos":
        """
        Reads what `save` has written.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds something else.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{os.fspath(path)} is not a safetensors file: {error}") from error
        if tensors.keys() != _FIELDS or "names" not in metadata:
            raise ValueError(f"{os.fspath(path)} does not hold encoded videos as EncodedVideos.save writes them.")
        times = {name: tensors.pop(name) for name in _TIME_FIELDS}
        return cls(names=json.loads(metadata["names"]), features=HCMIVideoFeatures(**tensors), **times)
