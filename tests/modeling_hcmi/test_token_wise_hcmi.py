"""The interaction in blocks against double loops, and its gradients against the plain formula's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from new_tensors import NewTensors
from random_features import random_text_features, random_video_features
from similarity_loops import token_wise_by_loops
from tiny_hcmi import tiny_config
from torch.nn.functional import normalize

from hcmi.modeling_hcmi import hcmi_objective, token_wise_hcmi
from hcmi.modeling_hcmi.interaction_hcmi import level_similarity
from hcmi.modeling_hcmi.token_wise_hcmi import token_wise_scores, token_wise_similarity

Sides = tuple[torch.Tensor, ...]
LENGTHS = [3, 1, 4, 2, 3, 5, 1], [4, 2, 6, 1, 3]


@pytest.fixture(params=[1, 60, 200, 2**21])
def block(request, monkeypatch) -> int:
    """So many pairs of tokens in a block."""
    monkeypatch.setattr(token_wise_hcmi, "CPU_BLOCK_ELEMENTS", request.param)
    return request.param


def random_sides(
    words: list[int] = LENGTHS[0],
    frames: list[int] = LENGTHS[1],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    width: int = 4,
) -> Sides:
    """What `token_wise_similarity` takes; the tokens and weights want a gradient."""
    text = random_text_features(words, width, seed, dtype=dtype)
    video = random_video_features(frames, width, seed + 1, dtype=dtype)
    sides = (text.words, video.frames, text.word_mask, video.frame_mask, text.word_weights, video.frame_weights)
    return tuple(x.requires_grad_() if x.is_floating_point() else x for x in sides)


def learning(sides: Sides) -> list[torch.Tensor]:
    """Words, frames and both sides' weights."""
    return [tensor for tensor in sides if tensor.requires_grad]


def plain(words, frames, word_mask, frame_mask, word_weights, frame_weights) -> torch.Tensor:
    """The formula on the array of all pairs of tokens, where no padding wins."""
    pairs = torch.einsum("twd,vfd->tvwf", normalize(words, dim=-1), normalize(frames, dim=-1))
    real = word_mask[:, None, :, None] & frame_mask[None, :, None]
    pairs = pairs.masked_fill(~real, -2)
    by_words = (word_weights[:, None] * pairs.amax(3) * word_mask[:, None]).sum(2)
    return (by_words + (frame_weights * pairs.amax(2) * frame_mask).sum(2)) / 2


def gradients(function, sides: Sides) -> tuple[torch.Tensor, ...]:
    """Of the tokens and weights, for some gradient of the result; nothing where a weight's token is padding."""
    result = function(*sides)
    given = torch.randn(result.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    found = torch.autograd.grad(result, learning(sides), given.to(result))
    masks = [sides[2][..., None], sides[3][..., None], sides[2], sides[3]]
    return tuple(gradient * mask for gradient, mask in zip(found, masks, strict=True))


@given(
    words=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    frames=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
)
def test_the_similarity_is_its_formula(words, frames, seed):
    sides = random_sides(words, frames, seed=seed)
    got = token_wise_similarity(*sides)
    wanted = torch.tensor(token_wise_by_loops(*(side.tolist() for side in sides)))
    torch.testing.assert_close(got.detach(), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(token_wise_scores(sides[::2], sides[1::2], 40).detach(), wanted, atol=1e-6, rtol=0)


def test_blocks_change_no_similarity_and_no_gradient(block):
    sides = random_sides()
    torch.testing.assert_close(token_wise_similarity(*sides), plain(*sides), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradients(token_wise_similarity, sides), gradients(plain, sides), atol=1e-6, rtol=1e-5)


@given(
    words=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    frames=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
)
def test_gradients_are_the_plain_formulas(words, frames, seed):
    sides = random_sides(words, frames, torch.float64, seed)
    torch.testing.assert_close(gradients(token_wise_similarity, sides), gradients(plain, sides))


def test_gradients_pass_the_numerical_check(block):
    words, frames, word_mask, frame_mask, a, b = random_sides([2, 3, 1], [3, 1, 2], torch.float64)
    assert torch.autograd.gradcheck(
        lambda w, f, a, b: token_wise_similarity(w, f, word_mask, frame_mask, a, b), (words, frames, a, b)
    )


def test_tied_tokens_give_the_same_similarity_as_one_of_them():
    word, frame = [1.0, 2.0], [2.0, 1.0]
    sides = [[[word, word, word]], [[frame, frame]], [[True] * 3], [[True] * 2], [[0.2, 0.3, 0.5]], [[0.9, 0.1]]]
    assert token_wise_similarity(*map(torch.tensor, sides)).item() == pytest.approx(0.8)


def test_tied_tokens_share_the_gradient(block):
    # Unit vectors along the axes: their cosines are 0 and 1 exactly, so that nearly every maximum is a tie.
    words, frames, word_mask, frame_mask, a, b = random_sides([4] * 5, [3] * 6)
    generator = torch.Generator().manual_seed(0)
    axes = [torch.randint(0, 4, x.shape[:2], generator=generator) for x in (words, frames)]
    words, frames = (torch.nn.functional.one_hot(axis, 4).float().requires_grad_() for axis in axes)
    sides = (words, frames, word_mask, frame_mask, a, b)
    torch.testing.assert_close(gradients(token_wise_similarity, sides), gradients(plain, sides), atol=1e-6, rtol=1e-5)


def test_tied_tokens_have_one_tokens_gradient_together(block):
    words, frames, *others = random_sides()
    with torch.no_grad():
        # The first of them stands in the padding too, and may take the larger share.
        words[:, 1], frames[:, 1] = words[:, 0], frames[:, 0]
    sides = (words, frames, *others)
    got, wanted = gradients(token_wise_similarity, sides), gradients(plain, sides)
    for one, other in zip(got[:2], wanted[:2], strict=True):
        torch.testing.assert_close(one[:, 2:], other[:, 2:], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(one[:, :2].sum(1), other[:, :2].sum(1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(got[2:], wanted[2:], atol=1e-6, rtol=1e-5)


def test_a_padded_zero_never_beats_a_negative_cosine():
    # Public code masks by multiplying with zero, and then takes the maximum of -1 and 0.
    text_tokens, video_tokens = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]])
    mask, weights = torch.tensor([[True, False]]), torch.tensor([[1.0, 0.0]])
    assert token_wise_similarity(text_tokens, video_tokens, mask, mask, weights, weights).item() == -1.0


def test_padding_that_stands_first_or_between_does_not_count(block):
    words, frames, word_mask, frame_mask, a, b = random_sides()
    sides = (words.flip(1), frames.roll(1, 1), word_mask.flip(1), frame_mask.roll(1, 1), a.flip(1), b.roll(1, 1))
    inputs = (words, frames, a, b)
    wanted = plain(words, frames, word_mask, frame_mask, a, b)
    got = token_wise_similarity(*sides)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)
    scale = torch.arange(got.numel()).view_as(got) / got.numel()
    got, wanted = (torch.autograd.grad((x * scale).sum(), inputs[:2]) for x in (got, wanted))
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


def test_the_sides_can_be_exchanged_and_lengths_do_not_matter():
    words, frames, word_mask, frame_mask, a, b = sides = random_sides()
    similarity = token_wise_similarity(*sides)
    torch.testing.assert_close(similarity, token_wise_similarity(frames, words, frame_mask, word_mask, b, a).T)
    torch.testing.assert_close(similarity, token_wise_similarity(words * 7, frames * 0.1, word_mask, frame_mask, a, b))


@pytest.mark.parametrize("wanted", [(0,), (1,), (4,), (5,), (0, 4), (1, 5), (4, 5), (0, 1)])
def test_frozen_inputs_change_no_other_gradient(monkeypatch, wanted):
    monkeypatch.setattr(token_wise_hcmi, "CPU_BLOCK_ELEMENTS", 60)
    sides = random_sides()
    every = dict(
        zip((0, 1, 4, 5), torch.autograd.grad(token_wise_similarity(*sides).sum(), learning(sides)), strict=True)
    )
    sides = tuple(side.detach().requires_grad_(place in wanted) for place, side in enumerate(sides))
    token_wise_similarity(*sides).sum().backward()
    for place, side in enumerate(sides):
        assert (side.grad is not None) == (place in wanted)
        assert side.grad is None or torch.equal(side.grad, every[place])


def test_the_array_of_all_pairs_is_never_held(monkeypatch):
    sides = random_sides([8] * 12, [6] * 10, width=2)
    monkeypatch.setattr(token_wise_hcmi, "CPU_BLOCK_ELEMENTS", 500)
    with NewTensors() as made:
        gradients(token_wise_similarity, sides)
    # 3 texts of 8 words and 3 videos of 6 frames: the largest block that fits.
    assert max(made.sizes) == 3 * 8 * 3 * 6
    with NewTensors() as made:
        gradients(plain, sides)
    assert max(made.sizes) == 12 * 8 * 10 * 6


def test_the_objective_never_holds_all_pairs(monkeypatch):
    monkeypatch.setattr(token_wise_hcmi, "CPU_BLOCK_ELEMENTS", 500)
    text, video = random_text_features([8] * 12), random_video_features([6] * 12)
    inputs = [text.words, text.phrases, text.word_weights, video.frames, video.clips, video.frame_weights]
    for tensor in inputs:
        tensor.requires_grad_()
    with NewTensors() as made:
        loss = hcmi_objective(text, video, torch.tensor(7.5), tiny_config(), video.pooler_output.roll(1, 0)).loss
        torch.autograd.grad(loss, inputs)
    assert max(made.sizes) <= 500


@pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 0.05), (torch.float16, 0.01), (torch.float64, 1e-12)])
def test_types_are_kept(monkeypatch, dtype, atol):
    monkeypatch.setattr(token_wise_hcmi, "CPU_BLOCK_ELEMENTS", 60)
    # Tokens so far apart that rounding changes no maximum.
    sides = random_sides([2, 1, 2], [1, 2], dtype, seed=3)
    exact = tuple(x.detach().double().requires_grad_() if x.is_floating_point() else x for x in sides)
    similarity = token_wise_similarity(*sides)
    assert similarity.dtype == dtype
    torch.testing.assert_close(similarity.double(), plain(*exact), atol=atol, rtol=0)
    for got, wanted in zip(gradients(token_wise_similarity, sides), gradients(plain, exact), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), wanted, atol=atol, rtol=atol)


def test_automatic_mixed_precision_rounds_no_gradient():
    text, video = random_text_features(LENGTHS[0]), random_video_features(LENGTHS[1])
    inputs = [text.words.requires_grad_(), video.frames.requires_grad_()]
    wanted = torch.autograd.grad(level_similarity("frame_word", text, video).sum(), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = torch.autograd.grad(level_similarity("frame_word", text, video).sum(), inputs)
    assert all(map(torch.equal, got, wanted))


def test_the_same_twice(monkeypatch):
    monkeypatch.setattr(token_wise_hcmi, "CPU_BLOCK_ELEMENTS", 60)
    sides = random_sides()
    assert all(map(torch.equal, gradients(token_wise_similarity, sides), gradients(token_wise_similarity, sides)))


def test_nothing_against_something_is_an_empty_table():
    words, frames, word_mask, frame_mask, a, b = random_sides()
    assert token_wise_similarity(words[:0], frames, word_mask[:0], frame_mask, a[:0], b).shape == (0, len(frames))
    nobody = token_wise_similarity(words, frames[:0], word_mask, frame_mask[:0], a, b[:0])
    assert nobody.shape == (len(words), 0)
    assert not torch.autograd.grad(nobody.sum(), words)[0].any()


def test_the_meta_device_gives_shapes():
    sides = tuple(side.detach().to("meta").requires_grad_(side.requires_grad) for side in random_sides())
    similarity = token_wise_similarity(*sides)
    assert similarity.is_meta and similarity.shape == (7, 5)
    for got, side in zip(torch.autograd.grad(similarity.sum(), learning(sides)), learning(sides), strict=True):
        assert got.shape == side.shape


def test_it_compiles_without_a_graph_break(monkeypatch):
    monkeypatch.setattr(token_wise_hcmi, "CPU_BLOCK_ELEMENTS", 4)
    sides = random_sides([2], [2, 1])
    # The compiler's front end, which decides about graph breaks; code generation would take a minute.
    compiled = torch.compile(token_wise_similarity, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*sides), token_wise_similarity(*sides))
    torch.testing.assert_close(gradients(compiled, sides), gradients(token_wise_similarity, sides))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_agrees_with_the_cpu_and_never_waits(monkeypatch):
    monkeypatch.setattr(token_wise_hcmi, "ACCELERATOR_BLOCK_ELEMENTS", 60)
    sides = random_sides()
    there = tuple(side.detach().cuda().requires_grad_(side.requires_grad) for side in sides)
    torch.cuda.set_sync_debug_mode("error")
    try:
        similarity = token_wise_similarity(*there)
        got = torch.autograd.grad(similarity.sum(), learning(there))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    wanted = torch.autograd.grad(token_wise_similarity(*sides).sum(), learning(sides))
    torch.testing.assert_close(tuple(x.cpu() for x in got), wanted, atol=1e-5, rtol=1e-5)
