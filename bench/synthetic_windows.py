"""Synthetic features of windows and of queries that belong to one each, spread as a trained model's are.

What is imitated was measured on the test split of the built-in benchmark (300 videos, 300 captions, the model of
`train/configs/shape_stories.yaml`, width 128), over all pairs of a caption and another video, and over the 300 pairs
that belong together:

    cosines of                    frame_word    clip_phrase   video_sentence
    unmatched pairs, mean ± std   0.27 ± 0.24   0.08 ± 0.28   0.00 ± 0.34
    matched pairs, mean           0.85          0.87          0.91

The levels' scores of the unmatched pairs correlate: frames with clips 0.90, frames with video 0.85, clips with video
0.94. The spectrum of the video vectors is flat over some eight directions and falls off steeply behind them.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import normalize

from hcmi.modeling_hcmi import HCMITextFeatures, HCMIVideoFeatures
from hcmi.retrieval import EncodedVideos

CHUNK = 5_000
"""Windows that are drawn together: 170 MB."""

WIDTH, FRAMES, CLIPS = 512, 12, 4
SHORTEST, LONGEST = 8, 32  # texts, in words
WORDS_PER_PHRASE = 4
WINDOWS_PER_TOPIC = 100

# Everything is drawn in so many directions, and put into the full width by a rotation at the end.
_DIRECTIONS = 64
_STRONG = 7
_IN_THE_REST = 0.15
"""Share of the variance in all directions behind the strong ones, falling as a power."""
_FALL = 1.5

_TOPIC = 0.4
"""Share of a window's variance that is its topic's."""
_SENTENCE_NOISE = 0.48
"""Of a sentence vector against the video vector it belongs to, in lengths of that."""
# Of the best and the worst token of a video or text; the worse, the lighter it weighs.
_FRAME_NOISE, _FRAME_WEIGHTS = (0.2, 1.3), 9.0
_WORD_NOISE, _WORD_WEIGHTS = (0.2, 0.9), 8.0
_GATHERED = 0.3
"""Share of a clip that is the whole video's content, and of a phrase that is the sentence's; the rest is of tokens."""
_COMMON = 1.8
"""What frames that say little have in common: there is always one that suits any word a little."""


class SyntheticWindows:
    """
    Windows of 12 frames, 4 clips and width 512, always the same for the same number and seed.

    Args:
        count: of windows.
        seed: of everything.
    """

    def __init__(self, count: int, seed: int = 0):
        self.count = count
        self.seed = seed
        generator = self._generator(0)
        rest = torch.arange(1, _DIRECTIONS - _STRONG + 1) ** -_FALL
        shares = [torch.full((_STRONG,), (1 - _IN_THE_REST) / _STRONG), _IN_THE_REST * rest / rest.sum()]
        self._spread = torch.cat(shares).sqrt()
        square = torch.randn(WIDTH, _DIRECTIONS, generator=generator)
        self._rotation = torch.linalg.qr(square).Q.T.contiguous()  # (directions, D)
        self._topics = self._draw(max(1, count // WINDOWS_PER_TOPIC), generator=generator)
        self._common = _COMMON * normalize(self._draw(generator=generator), dim=-1)

    def chunks(self) -> Iterator[EncodedVideos]:
        """All windows in their order, `CHUNK` at a time, each called by its number."""
        for number in range(math.ceil(self.count / CHUNK)):
            yield self._windows(number)

    def queries(self, windows: Sequence[int]) -> HCMITextFeatures:
        """A text of `SHORTEST` to `LONGEST` words for each of some windows, always the same for the same list."""
        latents = {chunk: self._latents(chunk) for chunk in {window // CHUNK for window in windows}}
        content = torch.stack([latents[window // CHUNK][window % CHUNK] for window in windows])
        generator = self._generator(1)
        lengths = torch.randint(SHORTEST, LONGEST + 1, (len(windows),), generator=generator)
        mask = torch.arange(LONGEST) < lengths[:, None]
        sentence = normalize(content + _SENTENCE_NOISE * self._draw(len(windows), generator=generator), dim=-1)
        words, weights = self._tokens(sentence, mask, _WORD_NOISE, _WORD_WEIGHTS, generator)
        phrases, phrase_weights, phrase_mask, made_of = _groups(
            words, weights, mask, sentence, LONGEST // WORDS_PER_PHRASE
        )
        return HCMITextFeatures(
            pooler_output=sentence @ self._rotation,
            words=words @ self._rotation,
            phrases=phrases @ self._rotation,
            word_mask=mask,
            phrase_mask=phrase_mask,
            word_weights=weights,
            phrase_weights=phrase_weights,
            phrase_word_weights=made_of,
        )

    def _windows(self, number: int) -> EncodedVideos:
        content = self._latents(number)
        generator = self._generator(3 + 2 * number)
        mask = torch.ones(len(content), FRAMES, dtype=torch.bool)
        frames, weights = self._tokens(content, mask, _FRAME_NOISE, _FRAME_WEIGHTS, generator, self._common)
        clips, clip_weights, clip_mask, made_of = _groups(frames, weights, mask, content, CLIPS)
        features = HCMIVideoFeatures(
            pooler_output=content @ self._rotation,
            frames=frames @ self._rotation,
            clips=clips @ self._rotation,
            frame_mask=mask,
            clip_mask=clip_mask,
            frame_weights=weights,
            clip_weights=clip_weights,
            clip_frame_weights=made_of,
        )
        names = [str(number * CHUNK + i) for i in range(len(content))]
        timestamps = (torch.arange(FRAMES, dtype=torch.float64) + 0.5).repeat(len(content), 1)
        spans = torch.tensor([[0.0, FRAMES]], dtype=torch.float64).repeat(len(content), 1)
        return EncodedVideos(names, features, timestamps, spans)

    def _latents(self, number: int) -> torch.Tensor:
        """What the windows of a chunk show: `(windows, directions)`, of length 1."""
        generator = self._generator(2 + 2 * number)
        size = min(CHUNK, self.count - number * CHUNK)
        topics = torch.randint(len(self._topics), (size,), generator=generator)
        own = self._draw(size, generator=generator)
        return normalize(math.sqrt(_TOPIC) * self._topics[topics] + math.sqrt(1 - _TOPIC) * own, dim=-1)

    def _tokens(
        self,
        content: torch.Tensor,
        mask: torch.Tensor,
        noise: tuple[float, float],
        sharpness: float,
        generator: torch.Generator,
        common: torch.Tensor | float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens `(B, N, directions)` that show the content more or less well, and their weights `(B, N)`."""
        badness = torch.rand(mask.shape, generator=generator)
        best, worst = noise
        tokens = self._draw(*mask.shape, generator=generator).mul_((best + (worst - best) * badness)[..., None])
        tokens += content[:, None] + badness[..., None] * common
        return tokens, (-sharpness * badness).masked_fill(~mask, -torch.inf).softmax(-1)

    def _draw(self, *shape: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(*shape, _DIRECTIONS, generator=generator) * self._spread

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + purpose)


def _groups(
    tokens: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor, content: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """`count` clips or phrases of equal runs of tokens; their weights, which are real, which tokens each is made of."""
    size = tokens.shape[1] // count
    runs = weights.unflatten(1, (count, size))
    total = runs.sum(-1)
    inside = runs / total.clamp(min=torch.finfo(total.dtype).tiny)[..., None]
    means = torch.einsum("bgs,bgsd->bgd", inside, tokens.unflatten(1, (count, size)))
    groups = means.lerp(content[:, None], _GATHERED)
    blocks = torch.eye(count).repeat_interleave(size, dim=1)  # (groups, tokens)
    made_of = blocks * inside.flatten(1)[:, None]
    return groups, total, mask.unflatten(1, (count, size)).any(-1), made_of
