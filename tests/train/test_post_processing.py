import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from new_tensors import NewTensors

from hcmi.train import metrics
from hcmi.train.metrics import summarize_ranks, text_to_video_ranks, video_to_text_ranks
from hcmi.train.post_processing import dual_softmax, post_processed_metrics, querybank_norm

DIRECTIONS = ("text_to_video", "video_to_text")
cosines = st.integers(-20, 20).map(lambda n: n / 20)


@st.composite
def matrices(draw, videos=None, max_texts=7):
    texts, videos = draw(st.integers(1, max_texts)), videos or draw(st.integers(1, 6))
    rows = st.lists(st.lists(cosines, min_size=videos, max_size=videos), min_size=texts, max_size=texts)
    return torch.tensor(draw(rows), dtype=torch.float64)


@st.composite
def scores_with_bank(draw):
    scores = draw(matrices())
    return scores, draw(matrices(videos=scores.shape[1]))


def brute_dsl(scores, temperature):
    """Rows are queries: each entry times its share among its column's."""
    sums = [sum(math.exp(temperature * s) for s in column) for column in zip(*scores, strict=True)]
    weights = [[math.exp(temperature * s) / sums[v] for v, s in enumerate(row)] for row in scores]
    return [[s * w / max(own) for s, w in zip(row, own, strict=True)] for row, own in zip(scores, weights, strict=True)]


def brute_qb_norm(scores, bank, temperature):
    """The normalised quotients, and the rows that are normalised."""
    hubs = {v for row in bank for v, s in enumerate(row) if s == max(row)}
    sums = [sum(math.exp(temperature * row[v]) for row in bank) for v in range(len(bank[0]))]
    quotients = [[math.exp(temperature * s) / sums[v] for v, s in enumerate(row)] for row in scores]
    return quotients, [any(s == max(row) and v in hubs for v, s in enumerate(row)) for row in scores]


@given(matrices(), st.sampled_from([1.0, 20.0, 100.0]), st.integers(1, 30))
def test_dsl_equals_the_brute_force_whatever_the_block(scores, temperature, block_elements):
    whole, metrics._BLOCK_ELEMENTS = metrics._BLOCK_ELEMENTS, block_elements
    try:
        texts, videos = (dual_softmax(scores, direction, temperature) for direction in DIRECTIONS)
    finally:
        metrics._BLOCK_ELEMENTS = whole
    assert texts.tolist() == [pytest.approx(row) for row in brute_dsl(scores.tolist(), temperature)]
    assert videos.T.tolist() == [pytest.approx(row) for row in brute_dsl(scores.T.tolist(), temperature)]


@given(scores_with_bank(), st.sampled_from([1.0, 20.0]), st.integers(1, 30), st.integers(1, 7))
def test_qb_norm_equals_the_brute_force_whatever_the_block(problem, temperature, block_elements, bank_block):
    scores, bank = problem
    whole, metrics._BLOCK_ELEMENTS = metrics._BLOCK_ELEMENTS, block_elements
    try:
        found = querybank_norm(scores, bank.split(bank_block), temperature)
    finally:
        metrics._BLOCK_ELEMENTS = whole
    quotients, normalised = brute_qb_norm(scores.tolist(), bank.tolist(), temperature)
    for row, plain, quotient, is_normalised in zip(found, scores, quotients, normalised, strict=True):
        if is_normalised:
            assert (temperature * row).exp().tolist() == pytest.approx(quotient)
        else:
            assert torch.equal(row, plain)


@given(scores_with_bank(), st.randoms(use_true_random=False))
def test_permuting_queries_and_videos_permutes_the_result(problem, random):
    scores, bank = problem
    rows, columns = list(range(len(scores))), list(range(scores.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    permuted = scores[rows][:, columns]
    for direction in DIRECTIONS:
        torch.testing.assert_close(dual_softmax(permuted, direction), dual_softmax(scores, direction)[rows][:, columns])
    expected = querybank_norm(scores, [bank])[rows][:, columns]
    torch.testing.assert_close(querybank_norm(permuted, [bank.flip(0)[:, columns]]), expected)


@given(matrices())
def test_equal_texts_and_equal_videos_stay_equal(scores):
    scores = torch.cat([scores, scores[:1]])
    scores = torch.cat([scores, scores[:, :1]], dim=1).float()
    for processed in (*(dual_softmax(scores, direction) for direction in DIRECTIONS), querybank_norm(scores, [scores])):
        assert processed.dtype == torch.float32
        assert torch.equal(processed[0], processed[-1])
        assert torch.equal(processed[:, 0], processed[:, -1])


@given(matrices())
def test_dsl_of_one_direction_is_that_of_the_other_for_the_transposed_scores(scores):
    torch.testing.assert_close(dual_softmax(scores, "video_to_text"), dual_softmax(scores.T, "text_to_video").T)


@given(matrices(max_texts=1))
def test_a_single_query_is_shared_out_to_nobody_else(scores):
    """Its softmax weights are all 1."""
    torch.testing.assert_close(dual_softmax(scores, "text_to_video"), scores)


@given(matrices())
def test_a_bank_to_which_all_videos_are_the_same_changes_no_rank(scores):
    mapping = torch.arange(len(scores)) % scores.shape[1]
    processed = querybank_norm(scores, [torch.full((3, scores.shape[1]), 0.25, dtype=torch.float64)])
    assume(all(len(set(row)) == len(row) for row in scores.tolist()))
    after, before = text_to_video_ranks(processed, mapping), text_to_video_ranks(scores, mapping)
    assert torch.equal(after.average, before.average)


def test_large_scores_and_temperatures_overflow_nothing():
    scores = torch.tensor([[300.0, 299.0], [-400.0, -300.0]])
    for direction in DIRECTIONS:
        processed = dual_softmax(scores, direction, 1e4)
        assert processed.isfinite().all()
        # The better one of each query, whichever its sign, keeps the weight 1.
        assert processed[0, 0] == 300
    assert querybank_norm(scores, [scores], 1e4).isfinite().all()


def test_a_query_that_is_far_from_everything_is_ranked_all_the_same():
    # Its shares of both videos, e^-160 and e^-170, are none that a float32 can hold.
    scores = torch.tensor([[0.9, 0.9], [-0.7, -0.8]])
    processed = dual_softmax(scores, "text_to_video")
    assert processed[1].tolist() == pytest.approx([-0.7, -0.8 * math.exp(-10)], rel=1e-5)


def test_qb_norm_takes_a_hub_away_and_leaves_other_queries_alone():
    # Video 0 is what the whole bank finds; query 1 finds video 2, which no text of the bank does.
    bank = torch.tensor([[0.5, 0.1, 0.1], [0.5, 0.2, 0.1], [0.5, 0.1, 0.2]])
    scores = torch.tensor([[0.42, 0.40, 0.1], [0.41, 0.1, 0.5]])
    processed = querybank_norm(scores, [bank])
    assert processed[0].argmax() == 1
    assert torch.equal(processed[1], scores[1])


def test_a_text_that_is_in_the_bank_twice_counts_twice():
    scores, bank = torch.tensor([[0.5, 0.4]]), torch.tensor([[0.3, 0.1], [0.1, 0.3]])
    once, twice = querybank_norm(scores, [bank]), querybank_norm(scores, [bank, bank])
    torch.testing.assert_close(once - twice, torch.full((1, 2), math.log(2) / 20))


def test_post_processed_metrics_are_those_of_the_processed_scores():
    generator = torch.Generator().manual_seed(0)
    scores, bank = torch.rand(300, 100, generator=generator), torch.rand(50, 100, generator=generator)
    mapping = torch.arange(300) % 100
    measured = post_processed_metrics(scores, mapping, ("dsl", "qb_norm"), [bank], recall_ks=(1, 2))
    videos_first = dual_softmax(scores, "video_to_text")
    ranks = {
        "text_to_video": text_to_video_ranks(dual_softmax(scores, "text_to_video"), mapping),
        "video_to_text_group": video_to_text_ranks(videos_first, mapping, "group"),
        "video_to_text_sentence": video_to_text_ranks(videos_first, mapping, "sentence"),
    }
    expected = {direction: summarize_ranks(own, (1, 2)) for direction, own in ranks.items()}
    assert measured["dsl"].pop("note") and measured["qb_norm"].pop("note")
    assert measured["dsl"] == {"temperature": 100, **expected}
    normalised = text_to_video_ranks(querybank_norm(scores, [bank]), mapping)
    assert measured["qb_norm"] == {"temperature": 20, "text_to_video": summarize_ranks(normalised, (1, 2))}
    assert post_processed_metrics(scores, mapping, ()) == {}


def test_beside_the_result_nothing_of_the_matrix_s_size_is_built(monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", 60)
    scores = torch.rand(300, 12)
    for process in (
        lambda: dual_softmax(scores, "text_to_video"),
        lambda: dual_softmax(scores, "video_to_text"),
        lambda: querybank_norm(scores, scores.split(7)),
    ):
        with NewTensors() as made:
            process()
        result, *others = sorted(made.sizes, reverse=True)
        assert (result, others[0] <= 300) == (scores.numel(), True)


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (torch.tensor([[0.0, math.nan]]), {}, "NaN"),
        (torch.tensor([[0.0, -math.inf]]), {}, "infinite"),
        (torch.zeros(2, 2, dtype=torch.bfloat16), {}, "float32"),
        (torch.zeros(2), {}, "matrix"),
        (torch.zeros(2, 2), {"temperature": 0.0}, "temperature"),
        (torch.zeros(2, 2), {"temperature": math.inf}, "temperature"),
    ],
)
def test_what_cannot_be_processed_is_refused(scores, options, message):
    for process in (
        lambda: dual_softmax(scores, "text_to_video", **options),
        lambda: querybank_norm(scores, [torch.zeros(1, 2)], **options),
    ):
        with pytest.raises(ValueError, match=message):
            process()


def test_unfit_banks_directions_and_names_are_refused():
    scores = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="holds no texts"):
        querybank_norm(scores, [])
    with pytest.raises(ValueError, match="with 3 videos"):
        querybank_norm(scores, [torch.zeros(1, 3)])
    with pytest.raises(ValueError, match="NaN"):
        querybank_norm(scores, [torch.full((1, 2), math.nan)])
    with pytest.raises(ValueError, match="direction"):
        dual_softmax(scores, "video_to_text_group")
    for names in ("dsl", ["softmax"]):
        with pytest.raises(ValueError, match="list of any of"):
            post_processed_metrics(scores, torch.tensor([0, 1]), names)
