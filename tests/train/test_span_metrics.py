import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hcmi.train.span_metrics import random_spans, span_metrics, temporal_iou

spans = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted)


@given(spans, spans)
def test_iou_equals_the_share_of_common_seconds(first, second):
    a, b = set(range(*first)), set(range(*second))
    expected = len(a & b) / len(a | b) if a | b else 0
    assert temporal_iou(torch.tensor([first]), torch.tensor([second])).item() == pytest.approx(expected)


def test_metrics_by_hand():
    true = torch.tensor([[0.0, 10.0]]).repeat(4, 1)
    predicted = torch.tensor([[0.0, 10.0], [0.0, 5.0], [0.0, 3.0], [10.0, 20.0]])
    metrics = span_metrics(predicted, true)
    assert metrics == pytest.approx({"mIoU": 100 * (1 + 0.5 + 0.3 + 0) / 4, "R@1_IoU0.3": 75, "R@1_IoU0.5": 50})


def test_random_spans_lie_inside_and_are_as_stated():
    within = torch.tensor([[3.0, 9.0]]).repeat(20000, 1)
    drawn = random_spans(within, seed=1)
    assert (drawn >= 3).all() and (drawn <= 9).all() and (drawn[:, 0] <= drawn[:, 1]).all()
    # Two independent uniform ends: a third of the stretch long, centred in it.
    assert (drawn[:, 1] - drawn[:, 0]).mean().item() == pytest.approx(2, abs=0.05)
    assert drawn.mean().item() == pytest.approx(6, abs=0.05)
    assert torch.equal(drawn, random_spans(within, seed=1))
    assert not torch.equal(drawn, random_spans(within, seed=2))


@pytest.mark.parametrize(
    ("predicted", "message"),
    [([[0, 1, 2]], "shape"), ([[2, 1]], "ends before"), ([[0, math.nan]], "finite"), ([[0, 1], [0, 1]], "2 predicted")],
)
def test_impossible_spans_are_refused(predicted, message):
    with pytest.raises(ValueError, match=message):
        temporal_iou(torch.tensor(predicted), torch.tensor([[0.0, 1.0]]))


def test_no_spans_are_refused():
    with pytest.raises(ValueError, match="no spans"):
        span_metrics(torch.empty(0, 2), torch.empty(0, 2))
