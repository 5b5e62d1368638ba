import json

import pytest
import torch
from bench_scripts import load_script
from torch.nn.functional import normalize

from hcmi.modeling_hcmi import LEVELS
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.retrieval.index.embedded_store import EmbeddedStore

_, drawn, engines, _, bench = (
    load_script(name) for name in ("system", "synthetic_windows", "search_engines", "search_rivals", "search")
)


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "in_own_process", lambda work, *arguments: work(*arguments))
    for method in ("_nearest_vectors", "_best_clips"):  # timed by the bench, and here given back
        monkeypatch.setattr(EmbeddedStore, method, getattr(EmbeddedStore, method))
    return bench.Task(windows=1200, queries=6, checked=4, threads=1, seed=0, scratch=tmp_path)


def test_synthetic_windows_are_spread_as_the_model_spreads_them():
    windows, rows = drawn.SyntheticWindows(3000), list(range(0, 3000, 30))
    (videos,) = (chunk.features for chunk in windows.chunks())
    scores = blockwise_similarity(windows.queries(rows), videos, dict.fromkeys(LEVELS, 1.0))
    own = torch.arange(3000) == torch.tensor(rows)[:, None]
    measured = {"frame_word": (0.27, 0.24, 0.85), "clip_phrase": (0.08, 0.28, 0.87), "video_sentence": (0, 0.34, 0.91)}
    for level, (mean, spread, matched) in measured.items():
        assert scores[level][~own].mean() == pytest.approx(mean, abs=0.05)
        assert scores[level][~own].std() == pytest.approx(spread, abs=0.05)
        assert scores[level][own].mean() == pytest.approx(matched, abs=0.05)
    correlation = torch.corrcoef(torch.stack([scores[level][~own] for level in LEVELS]))
    for (first, second), expected in {
        ("frame_word", "clip_phrase"): 0.90,
        ("frame_word", "video_sentence"): 0.85,
        ("clip_phrase", "video_sentence"): 0.94,
    }.items():
        found = correlation[LEVELS.index(first), LEVELS.index(second)]
        assert found == pytest.approx(expected, abs=0.05)
    assert 0.5 < (scores.combined.argmax(1) == torch.tensor(rows)).float().mean() < 1


def test_synthetic_windows_are_whole_clustered_and_always_the_same():
    windows = drawn.SyntheticWindows(drawn.CHUNK + 10, seed=3)
    first, second = windows.chunks()
    assert (len(first), len(second)) == (drawn.CHUNK, 10) and second.names[0] == str(drawn.CHUNK)
    again = drawn.SyntheticWindows(drawn.CHUNK + 10, seed=3)
    assert torch.equal(list(again.chunks())[1].features.frames, second.features.frames)
    (other,) = drawn.SyntheticWindows(10, seed=4).chunks()
    assert not torch.equal(other.features.frames, second.features.frames)
    features = first.features
    assert features.frames.shape == (drawn.CHUNK, 12, 512) and features.clips.shape == (drawn.CHUNK, 4, 512)
    for name in ("frame_weights", "clip_weights", "clip_frame_weights"):
        torch.testing.assert_close(features[name].sum(-1), torch.ones(features[name].shape[:-1]))
    texts = windows.queries([5, drawn.CHUNK + 5])
    assert torch.equal(windows.queries([5, drawn.CHUNK + 5]).words, texts.words)
    lengths = texts.word_mask.sum(1)
    assert ((lengths >= 8) & (lengths <= 32)).all() and torch.equal(texts.phrase_mask.sum(1), -(-lengths // 4))


def test_windows_of_a_topic_are_alike():
    def mean_cosine(windows):
        (chunk,) = drawn.SyntheticWindows(windows).chunks()
        return normalize(chunk.features.pooler_output, dim=-1).mean(0).square().sum()

    assert mean_cosine(drawn.WINDOWS_PER_TOPIC) > 0.3 and mean_cosine(50 * drawn.WINDOWS_PER_TOPIC) < 0.1


def test_exhaustive_is_a_plain_sort_of_all_scores(task):
    (chunk,) = task.drawn().chunks()
    texts = task.texts().select(slice(task.checked))
    scores = blockwise_similarity(texts, chunk.features, engines.LEVEL_WEIGHTS).combined
    assert bench.exhaustive(task) == scores.argsort(dim=1, descending=True)[:, : bench.TOP].tolist()


@pytest.mark.parametrize("name", bench.ENGINES)
def test_every_engine_finds_what_the_exhaustive_search_finds(task, name):
    for package in bench.ENGINES[name][0].packages:
        pytest.importorskip(package)
    row = {"engine": name, **bench.measured(name, task, bench.exhaustive(task))}
    assert row["overlap"] >= (0.8 if name == "faiss-ivf" else 0.95) and row["recall_at_1"] > 0.5
    assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p95_ms"]
    line = bench.table_row(row)
    assert line.startswith(name) and all(f"{stage} " in line for stage in row["stages_ms"])
    if name == "hcmi":
        assert row["bytes_per_window"] < 10_000 and row["stages_ms"].keys() == {"vectors", "clips", "exact score, hits"}
    assert not any(task.scratch.iterdir())
    json.dumps(row)


def test_an_engine_whose_package_is_missing_is_told(task, monkeypatch):
    monkeypatch.setattr(bench.Faiss, "packages", ("no_such_package",))
    row = {"engine": "faiss-flat", **bench.measured("faiss-flat", task, [])}
    assert "not installed: no_such_package" in bench.table_row(row)


def test_hits_are_compared_with_the_exhaustive_ones(task):
    own = task.rows()
    hits = [[row, 2, 3, 4] for row in own[:5]] + [[]]
    figures = bench.found(hits, task, [[own[0], 2, 8, 9], [own[1], 2, 3, 4]])
    assert figures == {"overlap": 6 / 8, "recall_at_1": 5 / 6, "asked": 6}
