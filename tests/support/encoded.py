"""Encoded videos with random embeddings, as an index takes them."""

from collections.abc import Sequence

import torch
from random_features import random_video_features

from hcmi.retrieval import EncodedVideos


def random_encoded(frames: Sequence[int], width: int = 8, seed: int = 0, name: str = "video") -> EncodedVideos:
    """Videos with so many frames each, one a second; a clip for every two frames."""
    features = random_video_features(list(frames), width, seed)
    times = torch.arange(max(frames), dtype=torch.float64) + 0.5
    timestamps = times.expand(len(frames), -1).where(features.frame_mask, torch.nan)
    spans = torch.tensor([[0.0, float(count)] for count in frames], dtype=torch.float64)
    return EncodedVideos([f"{name}{i}" for i in range(len(frames))], features, timestamps, spans)
