"""The objective against double loops over plain lists, written from its formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_features import random_text_features, random_video_features
from similarity_loops import cosine, token_wise_by_loops
from tiny_hcmi import tiny_config

from hcmi.modeling_hcmi import LEVELS, HCMITextFeatures, HCMIVideoFeatures, hcmi_objective, token_wise_hcmi
from hcmi.modeling_hcmi.interaction_hcmi import level_similarity
from hcmi.modeling_hcmi.objective_hcmi import (
    denoised_positives,
    marginal_sample_loss,
    multi_positive_contrast,
    same_video,
    symmetric_contrast,
)

Table = list[list[float]]
Mask = list[list[bool]]


def denoised_by_loops(first: Table, second: Table) -> Mask:
    """`(i, j)` is positive when `1/4 sum_{k,l} cos(v_i^k, v_j^l) >= cos(v_i^1, v_i^2)`, or `i = j`."""
    views = [first, second]
    mask = []
    for i in range(len(first)):
        threshold = cosine(first[i], second[i])
        row = []
        for j in range(len(first)):
            mean = sum(cosine(views[k][i], views[m][j]) for k in range(2) for m in range(2)) / 4
            row.append(mean >= threshold or i == j)
        mask.append(row)
    return mask


def contrast_by_loops(logits: Table, positives: Mask) -> float:
    """`-mean_i log sum_{k in P_i} softmax_i(k)`."""
    losses = []
    for row, positive in zip(logits, positives, strict=True):
        total = sum(math.exp(x) for x in row)
        losses.append(-math.log(sum(math.exp(x) / total for x, p in zip(row, positive, strict=True) if p)))
    return sum(losses) / len(losses)


def transposed(table: list) -> list:
    return [list(column) for column in zip(*table, strict=True)]


def symmetric_by_loops(similarity: Table, positives: Mask, scale: float) -> float:
    """Rows of `similarity` are texts, rows of `positives` videos."""
    logits = [[scale * s for s in row] for row in similarity]
    text_to_video = contrast_by_loops(logits, transposed(positives))
    video_to_text = contrast_by_loops(transposed(logits), positives)
    return (text_to_video + video_to_text) / 2


def marginal_by_loops(similarity: Table, positives: Mask, margin: float) -> float:
    """`mean_i 1/2 [ max(s(t_j, v_i) - s_ii + margin, 0) + max(s(t_i, v_k) - s_ii + margin, 0) ]`."""
    items = range(len(similarity))
    losses = []
    for i in items:
        # s[t][v]; positives[v][t]
        texts = [similarity[j][i] for j in items if not positives[i][j]]
        videos = [similarity[i][k] for k in items if not positives[k][i]]
        hinges = [max(max(side) - similarity[i][i] + margin, 0) for side in (texts, videos) if side]
        losses.append(sum(hinges) / 2)
    return sum(losses) / len(losses)


@st.composite
def batches(draw) -> tuple[Table, Mask]:
    """Cosines with ties, and a mask that is true on the diagonal and need not be symmetric."""
    size = draw(st.integers(1, 6))
    cosines = st.one_of(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.floats(-1, 1, width=32))
    similarity = draw(st.lists(st.lists(cosines, min_size=size, max_size=size), min_size=size, max_size=size))
    # Rows without a negative among them.
    rows = st.one_of(st.just([True] * size), st.lists(st.booleans(), min_size=size, max_size=size))
    mask = draw(st.lists(rows, min_size=size, max_size=size))
    return similarity, [[p or i == j for j, p in enumerate(row)] for i, row in enumerate(mask)]


@given(batches(), st.sampled_from([0.0, 1.0, 14.3, 100.0]))
def test_contrast_is_its_formula(batch, scale):
    similarity, positives = batch
    table, mask = torch.tensor(similarity, dtype=torch.float64), torch.tensor(positives)
    logits = [[scale * s for s in row] for row in similarity]
    assert multi_positive_contrast(table * scale, mask).item() == pytest.approx(contrast_by_loops(logits, positives))
    assert symmetric_contrast(table, mask, torch.tensor(scale, dtype=torch.float64)).item() == pytest.approx(
        symmetric_by_loops(similarity, positives, scale)
    )


@given(batches(), st.sampled_from([0.0, 0.2, 1.0]))
def test_marginal_sample_loss_is_its_formula(batch, margin):
    similarity, positives = batch
    got = marginal_sample_loss(torch.tensor(similarity, dtype=torch.float64), torch.tensor(positives), margin)
    assert got.item() == pytest.approx(marginal_by_loops(similarity, positives, margin))


@given(size=st.integers(1, 7), spread=st.sampled_from([0.05, 0.3, 1.0, 3.0]), seed=st.integers(0, 10**6))
def test_denoised_positives_are_their_formula(size, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    # Videos near each other, so that both answers occur.
    center = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    first, second = (center + spread * torch.randn(2, size, 3, generator=generator, dtype=torch.float64)).float()
    got = denoised_positives(first, second).tolist()
    assert got == denoised_by_loops(first.tolist(), second.tolist())


def test_denoising_compares_all_four_pairs_of_views_against_the_rows_own_threshold():
    # One row of degrees for each video's two views.
    degrees = torch.tensor([[0.0, 80.0], [40.0, 40.0], [0.0, 180.0], [170.0, 190.0]]).deg2rad()
    views = torch.stack([degrees.cos(), degrees.sin()], dim=-1)
    got = denoised_positives(views[:, 0], views[:, 1]).tolist()
    assert got == denoised_by_loops(views[:, 0].tolist(), views[:, 1].tolist())
    assert got[0][1] and not got[1][0]
    # The opposite views of video 2 have a cosine of -1: everything passes, in its row alone.
    assert got[2] == [True] * 4
    assert not got[3][0]


def test_lengths_of_vectors_do_not_matter_to_denoising():
    first, second = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(denoised_positives(first, second), denoised_positives(first * 9, second * 0.1))


def test_denoising_in_mixed_precision_decides_as_in_float32():
    generator = torch.Generator().manual_seed(0)
    first, second = 1 + 0.2 * torch.randn(2, 50, 8, generator=generator)
    wanted = denoised_positives(first, second)
    assert wanted.float().mean() > 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(denoised_positives(first, second), wanted)


def test_same_video():
    assert same_video(torch.tensor([7, 3, 7])).int().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_one_positive_a_row_is_cross_entropy():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)) * 10
    torch.testing.assert_close(
        multi_positive_contrast(logits, torch.eye(5).bool()),
        torch.nn.functional.cross_entropy(logits, torch.arange(5)),
    )


def test_contrast_of_extreme_logits_is_finite():
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]]).requires_grad_()
    loss = multi_positive_contrast(logits, torch.tensor([[False, True], [True, False]]))
    loss.backward()
    assert loss.item() == pytest.approx(200)
    assert logits.grad.isfinite().all()


def test_an_item_without_negatives_adds_nothing_and_breaks_no_gradient():
    similarity = torch.randn(3, 3, dtype=torch.float64).requires_grad_()
    loss = marginal_sample_loss(similarity, torch.ones(3, 3).bool(), 0.2)
    loss.backward()
    assert loss.item() == 0
    assert not similarity.grad.any()


def test_positives_are_no_negatives_however_hard():
    similarity = torch.tensor([[0.5, 0.9, 0.1], [0.2, 0.5, 0.1], [0.1, 0.1, 0.5]], dtype=torch.float64)
    positives = torch.eye(3).bool()
    # Video 1 counts text 0 as a positive: the pair is no negative of either.
    positives[1, 0] = True
    got = marginal_sample_loss(similarity, positives, 0.2)
    assert got.item() == pytest.approx(marginal_by_loops(similarity.tolist(), positives.tolist(), 0.2))
    assert got.item() == 0


def test_gradients_of_the_pure_functions():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    positives = torch.rand(4, 4, generator=generator) > 0.5
    positives |= torch.eye(4).bool()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: multi_positive_contrast(s, positives), similarity)
    assert torch.autograd.gradcheck(lambda s, x: symmetric_contrast(s, positives, x), (similarity, scale))
    assert torch.autograd.gradcheck(lambda s: marginal_sample_loss(s, positives, 0.2), similarity)


def objective_by_loops(text, video, scale, config, second_view=None, video_ids=None) -> dict[str, float]:
    size = len(text.pooler_output)
    ids = list(range(size)) if video_ids is None else video_ids.tolist()
    known = [[ids[i] == ids[j] for j in range(size)] for i in range(size)]
    positives = known
    if config.label_denoising and second_view is not None:
        mined = denoised_by_loops(video.pooler_output.tolist(), second_view.tolist())
        positives = [[a or b for a, b in zip(*rows, strict=True)] for rows in zip(known, mined, strict=True)]
    tables = {
        "frame_word": token_wise_by_loops(
            *(t.tolist() for t in (text.words, video.frames, text.word_mask, video.frame_mask)),
            *(t.tolist() for t in (text.word_weights, video.frame_weights)),
        ),
        "clip_phrase": token_wise_by_loops(
            *(t.tolist() for t in (text.phrases, video.clips, text.phrase_mask, video.clip_mask)),
            *(t.tolist() for t in (text.phrase_weights, video.clip_weights)),
        ),
        "video_sentence": [[cosine(t, v) for v in video.pooler_output.tolist()] for t in text.pooler_output.tolist()],
    }
    parts = {level: symmetric_by_loops(tables[level], positives, scale) for level in LEVELS}
    parts["marginal"] = marginal_by_loops(tables["video_sentence"], positives, config.marginal_margin)
    parts["loss"] = sum(config.loss_weights[level] * parts[level] for level in LEVELS)
    parts["loss"] += config.marginal_weight * parts["marginal"]
    parts["mined_pairs"] = sum(map(sum, positives)) - sum(map(sum, known))
    return parts


def batch() -> tuple[HCMITextFeatures, HCMIVideoFeatures, torch.Tensor]:
    """Five pairs, and second views that make label denoising find some pairs and not others."""
    text, video = random_text_features([3, 1, 4, 2, 3]), random_video_features([4, 2, 6, 1, 3])
    offset, center = video.pooler_output * 0.4, torch.tensor([1.0, -1.0, 0.5, 0.0])
    # The two views of videos 0 and 2 lie on opposite sides of the middle, so that others are nearer than they are.
    sides = torch.tensor([-1.0, 0.9, -1.0, 0.9, 0.9])[:, None]
    video.pooler_output = center + offset
    return text, video, center + sides * offset


@pytest.mark.parametrize("fields", [
    {},
    {"label_denoising": False},
    {"marginal_weight": 0.0},
    {"marginal_margin": 0.5, "marginal_weight": 3.0},
    {"loss_weights": {"frame_word": 0.5, "clip_phrase": 2.0, "video_sentence": 0.0}},
    {"loss_weights": {"frame_word": 0.0, "clip_phrase": 0.0, "video_sentence": 1.5}, "marginal_weight": 0.0},
])  # fmt: skip
@pytest.mark.parametrize("same_videos", [False, True])
@pytest.mark.parametrize("two_views", [False, True])
def test_the_objective_is_the_weighted_sum_of_its_parts(fields, same_videos, two_views):
    text, video, second_view = batch()
    config = tiny_config(**fields)
    second_view = second_view if two_views else None
    video_ids = torch.tensor([4, 9, 4, 2, 9]) if same_videos else None
    got = hcmi_objective(text, video, torch.tensor(7.5), config, second_view, video_ids)
    wanted = objective_by_loops(text, video, 7.5, config, second_view, video_ids)
    assert got.loss.item() == pytest.approx(wanted["loss"], rel=1e-5)
    assert got.mined_pairs.item() == wanted["mined_pairs"]
    assert (0 < wanted["mined_pairs"] < 16) == (two_views and config.label_denoising)
    for level in LEVELS:
        if config.loss_weights[level] == 0:
            assert getattr(got, level) is None
        else:
            assert got[level].item() == pytest.approx(wanted[level], rel=1e-5)
    if config.marginal_weight == 0:
        assert got.marginal is None
    else:
        assert got.marginal.item() == pytest.approx(wanted["marginal"], rel=1e-5)


def objective_tensor_by_loops(text, video, scale, positives: Mask, config) -> torch.Tensor:
    """The objective in scalars, one pair of tokens after the other, so that autograd differentiates the formula."""
    items = range(len(positives))

    def token_wise(words, word_mask, a, frames, frame_mask, b):
        pairs = [[torch.cosine_similarity(word, frame, 0) for frame in frames[frame_mask]] for word in words[word_mask]]
        by_words = sum(weight * max(row) for weight, row in zip(a[word_mask], pairs, strict=True))
        return (
            by_words + sum(weight * max(row) for weight, row in zip(b[frame_mask], transposed(pairs), strict=True))
        ) / 2

    def table(one_pair):
        return [[one_pair(t, v) for v in items] for t in items]

    def contrast(logits, mask):
        rows = zip(logits, mask, strict=True)
        return -sum(
            (sum(x.exp() for x, p in zip(row, own, strict=True) if p) / sum(x.exp() for x in row)).log()
            for row, own in rows
        ) / len(mask)

    def side(words, word_mask, a, frames, frame_mask, b):
        return table(lambda t, v: token_wise(words[t], word_mask[t], a[t], frames[v], frame_mask[v], b[v]))

    t, v = text, video
    cosines = table(lambda i, j: torch.cosine_similarity(t.pooler_output[i], v.pooler_output[j], 0))
    tables = {
        "frame_word": side(t.words, t.word_mask, t.word_weights, v.frames, v.frame_mask, v.frame_weights),
        "clip_phrase": side(t.phrases, t.phrase_mask, t.phrase_weights, v.clips, v.clip_mask, v.clip_weights),
        "video_sentence": cosines,
    }
    loss = config.marginal_weight * marginal_by_loops(cosines, positives, config.marginal_margin)
    for level, similarity in tables.items():
        logits = [[scale * s for s in row] for row in similarity]
        both = contrast(transposed(logits), positives) + contrast(logits, transposed(positives))
        loss = loss + config.loss_weights[level] * both / 2
    return loss


@pytest.mark.parametrize("block", [40, 2**21])
def test_gradients_are_those_of_the_formula(monkeypatch, block):
    monkeypatch.setattr(token_wise_hcmi, "CPU_BLOCK_ELEMENTS", block)
    text, video, second_view = batch()
    config = tiny_config(loss_weights={"frame_word": 1.0, "clip_phrase": 0.5, "video_sentence": 2.0})
    positives = denoised_by_loops(video.pooler_output.tolist(), second_view.tolist())
    assert sum(map(sum, positives)) > len(positives)
    inputs, losses = [], []
    for dtype in (torch.float32, torch.float64):
        t, v, scale = text.to(dtype), video.to(dtype), torch.tensor(7.5, dtype=dtype)
        places = [
            *(t.pooler_output, t.words, t.phrases, t.word_weights, t.phrase_weights),
            *(v.pooler_output, v.frames, v.clips, v.frame_weights, v.clip_weights),
            scale,
        ]
        inputs.append([place.requires_grad_() for place in places])
        if dtype == torch.float32:
            losses.append(hcmi_objective(t, v, scale, config, second_view).loss)
        else:
            losses.append(objective_tensor_by_loops(t, v, scale, positives, config))
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    got, wanted = (torch.autograd.grad(loss, places) for loss, places in zip(losses, inputs, strict=True))
    masks = (None, text.word_mask, text.phrase_mask, text.word_mask, text.phrase_mask)
    masks += (None, video.frame_mask, video.clip_mask, video.frame_mask, video.clip_mask, None)
    for one, other, mask in zip(got, wanted, masks, strict=True):
        real = ... if mask is None else mask
        torch.testing.assert_close(one[real].double(), other[real], atol=1e-5, rtol=1e-5)
        assert other[real].any()


def test_no_gradient_passes_the_mask_or_the_second_view():
    text, video, second_view = batch()
    second_view.requires_grad_()
    video.pooler_output.requires_grad_()
    config = tiny_config()
    objective = hcmi_objective(text, video, torch.tensor(7.5), config, second_view)
    assert objective.mined_pairs > 0
    gradient, nothing = torch.autograd.grad(objective.loss, [video.pooler_output, second_view], allow_unused=True)
    assert nothing is None

    # The gradient is that of the same loss with the mask as a constant.
    positives = denoised_positives(video.pooler_output, second_view)
    assert not positives.requires_grad
    cosines = level_similarity("video_sentence", text, video)
    loss = symmetric_contrast(cosines, positives, torch.tensor(7.5)) + marginal_sample_loss(cosines, positives, 0.2)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss, video.pooler_output)[0])


def test_every_embedding_and_the_scale_learn():
    text, video, _ = batch()
    inputs = [text.pooler_output, text.words, text.phrases, text.word_weights, text.phrase_weights]
    inputs += [video.pooler_output, video.frames, video.clips, video.frame_weights, video.clip_weights]
    for tensor in inputs:
        tensor.requires_grad_()
    scale = torch.tensor(7.5, requires_grad=True)
    loss = hcmi_objective(text, video, scale, tiny_config()).loss
    for gradient in torch.autograd.grad(loss, [*inputs, scale]):
        assert gradient.isfinite().all()
        assert gradient.any()


def test_mixed_and_half_precision_are_computed_in_float32():
    text, video, second_view = batch()
    config, scale = tiny_config(), torch.tensor(7.5)
    wanted = hcmi_objective(text, video, scale, config, second_view)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = hcmi_objective(text, video, scale, config, second_view)
    assert mixed.loss.dtype == torch.float32
    assert torch.equal(mixed.loss, wanted.loss)

    rounded = text.to(torch.bfloat16), video.to(torch.bfloat16)
    half = hcmi_objective(*rounded, scale, config, second_view)
    full = hcmi_objective(*(features.to(torch.float32) for features in rounded), scale, config, second_view)
    assert torch.equal(half.loss, full.loss)


def test_the_order_of_the_batch_does_not_matter():
    text, video, second_view = batch()
    ids, order = torch.tensor([4, 9, 4, 2, 9]), torch.tensor([3, 0, 4, 2, 1])
    scale, config = torch.tensor(7.5), tiny_config()
    straight = hcmi_objective(text, video, scale, config, second_view, ids)
    shuffled = hcmi_objective(text.select(order), video.select(order), scale, config, second_view[order], ids[order])
    torch.testing.assert_close(straight.to_tuple(), shuffled.to_tuple())


def test_a_batch_of_one_has_no_loss():
    text, video, second_view = batch()
    one = slice(0, 1)
    objective = hcmi_objective(text.select(one), video.select(one), torch.tensor(7.5), tiny_config(), second_view[one])
    assert objective.loss.item() == 0
    assert objective.mined_pairs.item() == 0
