"""A batch of pairs that puts the whole objective to the test, and its shares for two processes."""

import torch
from tiny_hcmi import random_texts, random_videos, tiny_model

from hcmi.modeling_hcmi import HCMIModel

# The first half's texts are shorter than the second's, and so are its videos.
WORDS = (4, 6, 3, 9, 5, 11)
FRAMES = (3, 2, 3, 5, 1, 4)
VIDEO_IDS = (0, 1, 2, 0, 3, 2)


def pair_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """6 pairs in two views; videos 0 and 2 occur in both halves."""
    mask = torch.arange(max(FRAMES)) < torch.tensor(FRAMES)[:, None]
    batch = random_texts(WORDS, seed=10 * seed + 2) | {"video_ids": torch.tensor(VIDEO_IDS)}
    for view, prefix in ((1, ""), (2, "second_")):
        batch[f"{prefix}pixel_values_videos"] = random_videos(len(FRAMES), max(FRAMES), 10 * seed + view)
        batch[f"{prefix}video_mask"] = mask
    return batch


def half(batch: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    """The first or second three rows, without padding that none of them needs."""
    rows = slice(number * 3, number * 3 + 3)
    own = {name: tensor[rows] for name, tensor in batch.items()}
    for name in own:
        if name in ("input_ids", "attention_mask"):
            own[name] = own[name][:, : max(WORDS[rows])]
        elif name != "video_ids":
            own[name] = own[name][:, : max(FRAMES[rows])]
    return own


def training_model(seed: int = 0, **fields) -> HCMIModel:
    """A tiny model in training mode, with a margin that some negatives violate."""
    return tiny_model(seed, marginal_margin=1.0, **fields).train()
