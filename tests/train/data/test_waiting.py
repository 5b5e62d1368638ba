import time

import pytest

from hcmi.train.data.waiting import WaitClock


@pytest.fixture
def passed(monkeypatch):
    """A list of one number: seconds on a clock that only the test moves."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def slow(passed, seconds):
    for wait in seconds:
        passed[0] += wait
        yield wait


def test_waiting_is_the_time_until_a_batch_comes(passed):
    clock = WaitClock()
    for _ in clock.over(slow(passed, [1.0, 2.0, 3.0])):
        passed[0] += 4.0
    assert clock.share("epoch") == pytest.approx(6 / 18)


def test_the_search_for_the_end_is_waiting_too(passed):
    def source():
        yield 1
        passed[0] += 5.0

    clock = WaitClock()
    assert list(clock.over(source())) == [1]
    assert clock.share("epoch") == pytest.approx(1.0)


def test_windows_have_beginnings_of_their_own(passed):
    clock = WaitClock()
    shares = []
    for wait in clock.over(slow(passed, [0.0, 6.0, 2.0])):
        passed[0] += 2.0
        shares.append(clock.share("record"))
        if wait == 6.0:
            assert clock.share("epoch") == pytest.approx(6 / 10)
    assert shares == pytest.approx([0.0, 6 / 8, 2 / 4])
    assert clock.share("epoch") == pytest.approx(2 / 4)
    assert clock.share("epoch") == 0.0


def test_an_error_passes_through():
    def source():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(WaitClock().over(source()))
