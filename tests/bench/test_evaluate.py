import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("evaluate", Path(__file__).parents[2] / "bench" / "evaluate.py")
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)

OPTIONS = {"texts": 70, "videos": 65, "words": 9, "shortest": 2, "frames": 5, "width": 16, "device": "cpu"}


def test_the_plain_loop_and_ours_measure_the_same_thing():
    plain, ours = bench.plain(OPTIONS)(), bench.ours(OPTIONS)()
    assert ours > 0.05
    assert ours == pytest.approx(plain, abs=1e-6)


def test_time_and_memory_are_measured():
    measured = bench._measure(bench.ours, OPTIONS | {"threads": 1})
    assert measured["seconds"] > 0
    assert measured["gigabytes"] > 0.05


def test_the_limit_multiplies_as_many_pairs_of_real_tokens(monkeypatch):
    words = bench.lengths(OPTIONS)
    assert (words.min(), words.max()) == (2, 9)
    pairs = sum(65 * (n * 5 + -(-n // 4) * 2 + 1) for n in words.tolist())
    sizes = []
    real = bench.torch.mm
    monkeypatch.setattr(bench.torch, "mm", lambda a, b, out=None: sizes.append(len(a) * b.shape[1]) or real(a, b))
    bench.limit(OPTIONS | {"texts": 70})()
    assert abs(sum(sizes[1:]) - pairs) <= sizes[0]


def test_a_row_shows_old_new_and_limit():
    figures = {"seconds": 2.5, "gigabytes": 1.25, "sample": 0.0}
    row = {"texts": "full length", "difference": 0.0} | dict.fromkeys(("plain", "ours", "limit"), figures)
    assert bench.table_row(row).count("2.5 s") == 3
