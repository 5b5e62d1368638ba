"""A stand-in for an HCMIModel whose embeddings are given, and evaluations of it."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from hcmi.modeling_hcmi import LEVELS, HCMITextFeatures, HCMIVideoFeatures
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.train.data.frame_sources import VideoFrames
from hcmi.train.data.tokenizer import train_tokenizer
from hcmi.train.evaluation import evaluate
from hcmi.train.metrics import DIRECTIONS

WIDTH = 16
WORDS = [a + b + c for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]


def word_processor():
    """A processor whose tokenizer knows `WORDS`."""
    return SimpleNamespace(tokenizer=train_tokenizer(WORDS, vocab_size=512, max_length=12), frames_per_video=4)


class GivenFeatures:
    """Stands for an HCMIModel whose embeddings are given: one vector per text, one per video for all three levels.

    A video's frames carry its number. `clips`: its clip vectors, which are also those of its frames; default: a single
    clip, and frames like the video.
    """

    device = torch.device("cpu")

    def __init__(self, tokenizer, vector_of_text, video_vectors, clips=None):
        self.config = SimpleNamespace(
            text_config=SimpleNamespace(max_position_embeddings=12), inference_weights=dict.fromkeys(LEVELS, 1.0)
        )
        self.training = True
        self.vector_of_tokens = {tuple(tokenizer(text)["input_ids"]): v for text, v in vector_of_text.items()}
        self.video_vectors, self.clips = video_vectors, clips
        self.videos_encoded, self.texts_encoded = [], []

    def train(self, mode=True):
        self.training = mode

    def eval(self):
        self.train(False)

    def get_video_features(self, pixel_values_videos, video_mask):
        assert not self.training and torch.is_inference_mode_enabled()
        assert pixel_values_videos.dtype == torch.uint8
        rows = pixel_values_videos[:, 0, 0, 0, 0].long()
        self.videos_encoded += rows.tolist()
        vectors = self.video_vectors[rows]
        clips = vectors[:, None] if self.clips is None else self.clips[rows]
        (count, frames), groups = video_mask.shape, clips.shape[1]
        # Clip c is made of frame c alone.
        clip_frames = torch.eye(max(groups, frames))[None, :groups, :frames].expand(count, -1, -1)
        return HCMIVideoFeatures(
            pooler_output=vectors,
            frames=clips if groups == frames else vectors[:, None].expand(-1, frames, -1),
            clips=clips,
            frame_mask=video_mask,
            clip_mask=torch.ones(count, groups, dtype=torch.bool),
            frame_weights=video_mask / video_mask.sum(1, keepdim=True),
            clip_weights=torch.full((count, groups), 1 / groups),
            clip_frame_weights=clip_frames,
        )

    def get_text_features(self, input_ids, attention_mask):
        assert not self.training and torch.is_inference_mode_enabled()
        tokens = [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(input_ids, attention_mask, strict=True)]
        self.texts_encoded += tokens
        vectors = torch.stack([self.vector_of_tokens[ids] for ids in tokens])
        one = torch.ones(len(vectors), 1)
        return HCMITextFeatures(
            pooler_output=vectors,
            words=vectors[:, None],
            phrases=vectors[:, None],
            word_mask=one.bool(),
            phrase_mask=one.bool(),
            word_weights=one,
            phrase_weights=one,
            phrase_word_weights=one[:, None],
        )

    def score(self, text_features, video_features):
        return blockwise_similarity(text_features, video_features, self.config.inference_weights)


def numbered_frames(row, count=4):
    frames = torch.full((count, 3, 2, 2), row, dtype=torch.uint8)
    return VideoFrames(frames, torch.arange(count, dtype=torch.float64) + 0.5, (0.0, float(count)))


def dataset_of(captions):
    return Dataset.from_list([{"video_id": f"v{row}", "captions": own} for row, own in enumerate(captions)])


def random_problem(processor, captions_per_video, seed=0):
    """Random, unrelated vectors for texts and videos."""
    generator = torch.Generator().manual_seed(seed)
    texts = [f"{WORDS[n % 100]} {WORDS[n // 100]}" for n in range(sum(captions_per_video))]
    text_vectors = torch.randn(len(texts), WIDTH, generator=generator)
    video_vectors = torch.randn(len(captions_per_video), WIDTH, generator=generator)
    model = GivenFeatures(processor.tokenizer, dict(zip(texts, text_vectors, strict=True)), video_vectors)
    left = iter(texts)
    captions = [[next(left) for _ in range(count)] for count in captions_per_video]
    cosines = torch.nn.functional.cosine_similarity(text_vectors[:, None], video_vectors[None], dim=-1)
    return model, captions, cosines


def assert_same_metrics(found, expected):
    """The numbers of every direction that is expected, up to rounding."""
    for direction in set(DIRECTIONS) & set(expected):
        for name, value in expected[direction].items():
            assert found[direction][name] == pytest.approx(value), (direction, name)


def run(model, processor, captions, **options):
    """`evaluate` on these captions, a list for each video."""
    return evaluate(
        model, processor, dataset_of(captions), **{"frames_for": numbered_frames, "show_progress": False} | options
    )
