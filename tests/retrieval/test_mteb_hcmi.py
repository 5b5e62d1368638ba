"""The wrapper for mteb: its own protocol, and a whole task where mteb is installed."""

import pytest
from datasets import Dataset, Video
from saved_hcmi import save_tiny_hcmi, write_video
from transformers import pipeline

from hcmi import HCMIModel, HCMIProcessor
from hcmi.retrieval.mteb_hcmi import HCMISearch

QUERIES = ["a red ring", "blue square slides left", "two green"]
OPTIONS = {"encode_kwargs": {"batch_size": 2}, "task_metadata": None, "hf_split": "test", "hf_subset": "default"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return save_tiny_hcmi(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def search(folder) -> HCMISearch:
    return HCMISearch(HCMIModel.from_pretrained(folder), HCMIProcessor.from_pretrained(folder), "someone/tiny")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    where = tmp_path_factory.mktemp("videos")
    return [write_video(where / f"{seed}.mp4", frames=6 + 2 * seed, seed=seed) for seed in range(4)]


@pytest.fixture(scope="module")
def videos(files) -> Dataset:
    return Dataset.from_dict({"id": [f"v{i}" for i in range(4)], "video": files}).cast_column("video", Video())


@pytest.fixture(scope="module")
def texts() -> Dataset:
    return Dataset.from_dict({"id": [f"t{i}" for i in range(3)], "text": QUERIES})


@pytest.fixture(scope="module")
def expected(folder, files) -> dict[str, dict[str, float]]:
    """By the pipeline: the score of each video for each text."""
    found = pipeline("text-video-retrieval", model=folder, device="cpu")(QUERIES, videos=files, top_k=None)
    number = {file: f"v{i}" for i, file in enumerate(files)}
    return {f"t{i}": {number[hit["video"]]: hit["score"] for hit in hits} for i, hits in enumerate(found)}


def test_texts_find_videos_as_in_the_pipeline(search, texts, videos, expected):
    search.index(videos, num_proc=None, **OPTIONS)
    found = search.search(texts, top_k=10, num_proc=None, **OPTIONS)
    for query, hits in expected.items():
        assert found[query] == pytest.approx(hits, abs=1e-5)
        assert list(found[query]) == list(hits)
    assert [len(hits) for hits in search.search(texts, top_k=2, **OPTIONS).values()] == [2, 2, 2]
    allowed = {f"t{i}": ["v0", "v3"] for i in range(3)}
    reranked = search.search(texts, top_k=10, top_ranked=allowed, **OPTIONS)
    assert all(set(hits) == {"v0", "v3"} for hits in reranked.values())


def test_videos_find_texts_with_the_same_scores(search, texts, videos, expected):
    search.index(texts, **OPTIONS)
    found = search.search(videos, top_k=10, **OPTIONS)
    for video, hits in found.items():
        assert hits == pytest.approx({text: scores[video] for text, scores in expected.items()}, abs=1e-5)


def test_other_kinds_of_rows_are_refused(search, texts, videos):
    with pytest.raises(ValueError, match="not of audio, video"):
        search.index(videos.add_column("audio", ["a"] * 4), **OPTIONS)
    with pytest.raises(ValueError, match="not of neither"):
        search.index(texts.remove_columns("text"), **OPTIONS)
    search.index(texts, **OPTIONS)
    with pytest.raises(ValueError, match="of one kind"):
        search.search(texts, top_k=1, **OPTIONS)
    with pytest.raises(ValueError, match="call index first"):
        HCMISearch(search.model, search.processor).search(texts, top_k=1, **OPTIONS)


def test_a_whole_task_in_mteb(search, texts, videos, expected):
    mteb = pytest.importorskip("mteb", reason="needs the optional package mteb")
    retrieval = pytest.importorskip("mteb.abstasks.retrieval")
    try:
        metadata = mteb.get_task("MSRVTTT2V").metadata
    except KeyError:
        pytest.skip("this mteb has no text-video retrieval")
    best = {query: {max(hits, key=hits.get): 1} for query, hits in expected.items()}

    class Tiny(retrieval.AbsTaskRetrieval):
        pass

    Tiny.metadata = metadata.model_copy(update={"name": "TinyT2V"})
    task = Tiny()
    task.dataset = {
        "default": {"test": {"corpus": videos, "queries": texts, "relevant_docs": best, "top_ranked": None}}
    }
    task.data_loaded = True
    result = mteb.evaluate(search, task, cache=None, encode_kwargs={"batch_size": 2}, co2_tracker=False)
    assert result.model_name == "someone/tiny"
    (scores,) = result.task_results[0].scores["test"]
    assert scores["recall_at_1"] == scores["ndcg_at_10"] == 1.0
