"""Encoded windows as records of a fixed size, and back: what the index keeps of a window on disk."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from hcmi.modeling_hcmi import HCMIVideoFeatures
from hcmi.retrieval.encoded_videos import EncodedVideos

PRECISIONS = ("int8", "float16", "float32")
"""How an index keeps frames and clips: about 9, 18 or 36 KB a window of 12 frames and 512 dimensions."""

_TOKENS = {"int8": "i1", "float16": "<f2", "float32": "<f4"}
# Half a float's digits are lost on every token of an int8 index, and change next to nothing: on the video vector, by
# which windows are found first, and on the weights they are kept.
_VECTORS = {"int8": "<f2", "float16": "<f2", "float32": "<f4"}


@dataclass(frozen=True)
class RowShape:
    """
    What all windows of an index have in common.

    Args:
        width: `D` of the embeddings.
        frames, clips: how many a window has at most, `F` and `C`.
        precision: one of `PRECISIONS`.
    """

    width: int
    frames: int
    clips: int
    precision: str

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"`precision` has to be one of {', '.join(PRECISIONS)}, got {self.precision!r}.")

    @property
    def vectors(self) -> np.dtype:
        """Of the video vectors, `(D,)` of this type each."""
        return np.dtype(_VECTORS[self.precision])

    @property
    def records(self) -> np.dtype:
        """Of all else that is kept of a window. The clips come first: the search's second stage reads no further."""
        tokens, weights = _TOKENS[self.precision], _VECTORS[self.precision]
        return np.dtype(
            [
                ("clips", tokens, (self.clips, self.width)),
                ("frames", tokens, (self.frames, self.width)),
                ("clip_weights", weights, (self.clips,)),
                ("frame_weights", weights, (self.frames,)),
                ("clip_frame_weights", weights, (self.clips, self.frames)),
                ("timestamps", "<f8", (self.frames,)),
                ("video_span", "<f8", (2,)),
                ("num_clips", "<u2"),
                ("num_frames", "<u2"),
                ("checksum", "<u4"),
            ]
        )

    def encode(self, windows: EncodedVideos) -> tuple[np.ndarray, np.ndarray]:
        """
        Video vectors `(V, D)` and records `(V,)`. Embeddings lose their length, which no similarity looks at.

        Raises:
            ValueError: if the windows are of another width, or have more frames or clips than fit.
        """
        features = windows.features
        frames, clips = features.frame_mask.sum(-1), features.clip_mask.sum(-1)
        found = (windows.width, int(frames.max()), int(clips.max()))
        if found[0] != self.width or found[1] > self.frames or found[2] > self.clips:
            raise ValueError(
                f"The index keeps windows of {self.frames} frames and {self.clips} clips of width {self.width}; "
                f"these have {found[1]}, {found[2]} and {found[0]}."
            )
        records = np.zeros(len(windows), self.records)
        for name, tokens in (("clips", features.clips), ("frames", features.frames)):
            _fill(records[name], self._codes(tokens.float()))
        for name in ("clip_weights", "frame_weights", "clip_frame_weights"):
            _fill(records[name], features[name].float())
        _fill(records["timestamps"], windows.timestamps)
        records["video_span"] = windows.video_spans.numpy()
        records["num_frames"], records["num_clips"] = frames.numpy(), clips.numpy()
        vectors = normalize(features.pooler_output.float(), dim=-1).numpy().astype(self.vectors)
        records["checksum"] = checksums(vectors, records)
        return vectors, records

    def _codes(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.precision != "int8":
            return normalize(tokens, dim=-1)
        # Every vector fills the range of its own: cosines ask for no common scale, so none is kept.
        largest = tokens.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(tokens.dtype).tiny)
        return (tokens * (127 / largest)).round()

    def decode(self, vectors: np.ndarray, records: np.ndarray, names: list[str]) -> EncodedVideos:
        """The windows again, float32, embeddings of whatever length; the inverse of `encode` up to its precision."""
        frames, clips = (_mask(records[f"num_{name}"], getattr(self, name)) for name in ("frames", "clips"))
        timestamps = _tensor(records["timestamps"])
        kept = ("frames", "clips", "frame_weights", "clip_weights", "clip_frame_weights")
        embeddings: dict[str, Any] = {name: _tensor(records[name]).float() for name in kept}
        features = HCMIVideoFeatures(
            pooler_output=_tensor(vectors).float(), frame_mask=frames, clip_mask=clips, **embeddings
        )
        return EncodedVideos(names, features, timestamps.where(frames, torch.nan), _tensor(records["video_span"]))


def checksums(vectors: np.ndarray, records: np.ndarray) -> np.ndarray:
    """CRC-32 of each window: of its vector, and its record up to the checksum itself."""
    payload = records.dtype.fields["checksum"][1]
    bytes_of = (np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1) for rows in (vectors, records))
    pairs = zip(*bytes_of, strict=True)
    return np.array([zlib.crc32(record[:payload], zlib.crc32(vector)) for vector, record in pairs], dtype=np.uint32)


def _fill(field: np.ndarray, values: torch.Tensor) -> None:
    """Puts `(V, n, …)` into the beginning of `(V, N, …)`, as far as it fits; what is beyond is padding."""
    values = values[tuple(slice(size) for size in field.shape)]
    field[tuple(slice(size) for size in values.shape)] = values.numpy()


def _mask(counts: np.ndarray, size: int) -> torch.Tensor:
    return torch.arange(size) < _tensor(counts.astype(np.int64))[:, None]


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.copy())  # a field of packed records lies at no address that torch would take
