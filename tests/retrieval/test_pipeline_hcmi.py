import math
from pathlib import Path

import numpy as np
import pytest
import torch
from saved_hcmi import save_tiny_hcmi, write_video
from torch.nn.functional import cosine_similarity
from torch.utils.data import Dataset
from transformers import BertConfig, BertModel, pipeline

import hcmi  # noqa: F401  (registers the pipeline)
from hcmi.modeling_hcmi import LEVELS, HCMIModel
from hcmi.modeling_hcmi.moments_hcmi import relevant_span
from hcmi.processing import HCMIProcessor, VideoReadError
from hcmi.retrieval import EncodedVideos, HCMIRetrievalPipeline, VideoIndex, pipeline_hcmi
from hcmi.retrieval.index.catalog import FileState
from hcmi.retrieval.index.window import Window

QUERIES = ["a red ring slides left", "two blue square grows then a green ring slides right", "red"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    return save_tiny_hcmi(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[str]:
    """Five MP4 files that differ in colour and length; the last has fewer frames than the model takes."""
    folder = tmp_path_factory.mktemp("videos")
    lengths = [12, 20, 9, 15, 3]
    return [write_video(folder / f"{i}.mp4", length, seed=i) for i, length in enumerate(lengths)]


@pytest.fixture(scope="module")
def pipe(model_folder) -> HCMIRetrievalPipeline:
    return pipeline("text-video-retrieval", model=model_folder, device="cpu")


def by_hand(model_folder: str, query: str, videos: list[str]) -> list[dict]:
    """The plainest way to the pipeline's result: one video at a time, frames as floats, one frame at a time."""
    model, processor = HCMIModel.from_pretrained(model_folder), HCMIProcessor.from_pretrained(model_folder)
    hits = []
    with torch.no_grad():
        text = model.get_text_features(**processor(text=[query], return_tensors="pt"))
        for name in videos:
            inputs = processor(videos=[name], return_tensors="pt")
            video = model.get_video_features(inputs["pixel_values_videos"], inputs["video_mask"])
            similarity = model.score(text, video)
            real = int(inputs["video_mask"].sum())
            relevance = [cosine_similarity(text.pooler_output[0], video.frames[0, f], dim=0) for f in range(real)]
            start, end = relevant_span(
                torch.stack(relevance),
                inputs["video_mask"][0],
                inputs["timestamps"][0],
                *inputs["video_spans"][0].tolist(),
            )
            hits.append(
                {
                    "video": name,
                    "score": similarity.combined.item(),
                    "start": start,
                    "end": end,
                    "level_scores": {level: similarity[level].item() for level in LEVELS},
                }
            )
    return sorted(hits, key=lambda hit: -hit["score"])


def assert_same(hits: list[dict], expected: list[dict], tolerance: float = 1e-4) -> None:
    assert [hit["video"] for hit in hits] == [hit["video"] for hit in expected]
    for hit, other in zip(hits, expected, strict=True):
        assert list(hit) == ["video", "score", "start", "end", "level_scores"]
        for key in ("score", "start", "end"):
            assert isinstance(hit[key], float)
            assert hit[key] == pytest.approx(other[key], abs=tolerance)
        assert hit["level_scores"] == pytest.approx(other["level_scores"], abs=tolerance)


@pytest.mark.parametrize("query", QUERIES)
def test_result_is_that_of_the_plain_computation(pipe, model_folder, videos, query):
    expected = by_hand(model_folder, query, videos)
    assert len({round(hit["score"], 3) for hit in expected}) == len(videos), "the test needs scores that differ"
    assert_same(pipe(query, videos=videos), expected)
    for hit in pipe(query, videos=videos):
        assert 0 <= hit["start"] < hit["end"] <= 2.0


def test_several_queries_give_a_list_of_results_whatever_the_batches_and_workers(pipe, videos):
    single = [pipe(query, videos=videos) for query in QUERIES]
    for settings in ({}, {"batch_size": 2}, {"batch_size": 8, "num_workers": 2}):
        together = pipe(QUERIES, videos=videos, **settings)
        assert len(together) == len(QUERIES)
        for hits, expected in zip(together, single, strict=True):
            assert_same(hits, expected)
    assert_same(pipe(tuple(QUERIES[:1]), videos=videos)[0], single[0])


@pytest.mark.parametrize("kind", ["generator", "dataset"])
def test_a_stream_of_queries_gives_an_iterator(pipe, videos, kind):
    class Queries(Dataset):
        def __len__(self):
            return len(QUERIES)

        def __getitem__(self, index):
            return QUERIES[index]

    encoded = pipe.encode_videos(videos)
    results = pipe(Queries() if kind == "dataset" else (query for query in QUERIES), videos=encoded, batch_size=2)
    assert not isinstance(results, list)
    for hits, expected in zip(list(results), pipe(QUERIES, videos=encoded), strict=True):
        assert_same(hits, expected)


def test_top_k(pipe, model_folder, videos):
    ranking = pipe(QUERIES[0], videos=videos, top_k=None)
    assert len(ranking) == 5
    assert pipe(QUERIES[0], videos=videos, top_k=2) == ranking[:2]
    assert pipe(QUERIES[0], videos=videos, top_k=99) == ranking
    more = [*videos, videos[0]]
    assert len(pipe(QUERIES[0], videos=more)) == 5, "the default"
    preset = pipeline("text-video-retrieval", model=model_folder, device="cpu", top_k=3, batch_size=4)
    assert_same(preset(QUERIES[0], videos=videos), ranking[:3])
    assert len(preset(QUERIES[0], videos=videos, top_k=1)) == 1


def test_equal_scores_keep_the_order_of_the_videos(pipe, videos):
    encoded = pipe.encode_videos(videos)
    level = torch.tensor([[0.5, 0.7, 0.5, 0.7, 0.5]])
    outputs = dict.fromkeys(("combined", *LEVELS), level) | {"relevance": torch.zeros(1, 5, 12)}
    hits = pipe.postprocess(outputs, videos=encoded, top_k=4)
    assert [hit["video"] for hit in hits] == [videos[i] for i in (1, 3, 0, 2)]


def test_each_video_is_encoded_once_and_travels_as_uint8(pipe, videos, monkeypatch):
    seen = []
    encode = pipe.model.get_video_features

    def spy(pixel_values_videos, video_mask):
        seen.append((len(pixel_values_videos), pixel_values_videos.dtype))
        return encode(pixel_values_videos, video_mask)

    monkeypatch.setattr(pipe.model, "get_video_features", spy)
    pipe(QUERIES, videos=videos, batch_size=2)
    assert seen == [(2, torch.uint8), (2, torch.uint8), (1, torch.uint8)]
    encoded = pipe.encode_videos(videos[:3], batch_size=3)
    pipe(QUERIES, videos=encoded)
    pipe(QUERIES[0], videos=encoded)
    assert seen[3:] == [(3, torch.uint8)]


def test_encoded_videos_stand_for_files(pipe, videos):
    encoded = pipe.encode_videos(videos, batch_size=4)
    assert isinstance(encoded, EncodedVideos)
    assert len(encoded) == 5
    assert encoded.names == videos
    assert encoded.timestamps.shape == (5, 6)
    assert encoded.timestamps.isnan().sum() == 3, "the short video has three frames of six"
    for field in ("last_hidden_state", "hidden_states", "attentions"):
        assert getattr(encoded.features, field) is None, "hidden states would fill the memory"
    assert_same(pipe(QUERIES[1], videos=encoded), pipe(QUERIES[1], videos=videos))
    assert_same(pipe(QUERIES[1], videos=pipe.encode_videos(videos[:2]) + pipe.encode_videos(videos[2:])),
                pipe(QUERIES[1], videos=videos))  # fmt: skip


def test_encoded_videos_of_different_length_add_up(pipe, model_folder, videos):
    processor = HCMIProcessor.from_pretrained(model_folder)
    processor.frames_per_video = 3
    fewer = HCMIRetrievalPipeline(model=pipe.model, processor=processor, device="cpu")
    encoded = fewer.encode_videos(videos[:2]) + pipe.encode_videos(videos[2:])
    assert encoded.timestamps.shape == (5, 6)
    expected = fewer(QUERIES[0], videos=videos[:2]) + pipe(QUERIES[0], videos=videos[2:])
    assert_same(pipe(QUERIES[0], videos=encoded), sorted(expected, key=lambda hit: -hit["score"]))


def test_encoded_videos_survive_saving(pipe, videos, tmp_path):
    encoded = pipe.encode_videos(videos)
    encoded.save(tmp_path / "videos.safetensors")
    loaded = EncodedVideos.load(tmp_path / "videos.safetensors")
    assert loaded.names == videos
    assert torch.equal(loaded.video_spans, encoded.video_spans)
    assert pipe(QUERIES, videos=loaded) == pipe(QUERIES, videos=encoded)


def test_loading_refuses_other_files(model_folder, tmp_path):
    with pytest.raises(ValueError, match="does not hold encoded videos"):
        EncodedVideos.load(Path(model_folder, "model.safetensors"))
    (tmp_path / "text.txt").write_text("nothing of the kind")
    with pytest.raises(ValueError, match="not a safetensors file"):
        EncodedVideos.load(tmp_path / "text.txt")
    with pytest.raises(FileNotFoundError):
        EncodedVideos.load(tmp_path / "missing.safetensors")


def test_many_videos_are_scored_in_blocks(pipe, videos, monkeypatch):
    expected = pipe(QUERIES, videos=videos)
    monkeypatch.setattr(pipeline_hcmi, "VIDEOS_AT_ONCE", 2)
    for hits, whole in zip(pipe(QUERIES, videos=videos), expected, strict=True):
        assert_same(hits, whole, tolerance=1e-5)


def test_dtype_and_device(pipe, model_folder, videos):
    half = pipeline("text-video-retrieval", model=model_folder, device="cpu", dtype="bfloat16", batch_size=2)
    assert half.device == torch.device("cpu")
    assert half.dtype == torch.bfloat16
    encoded = half.encode_videos(videos)
    assert encoded.features.clips.dtype == torch.bfloat16
    scores = {hit["video"]: hit["score"] for hit in pipe(QUERIES[0], videos=videos)}
    assert {hit["video"]: hit["score"] for hit in half(QUERIES[0], videos=encoded)} == pytest.approx(scores, abs=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same(pipe, model_folder, videos):
    on_gpu = pipeline("text-video-retrieval", model=model_folder, device="cuda:0", batch_size=4, num_workers=2)
    encoded = on_gpu.encode_videos(videos)
    assert encoded.features.frames.device.type == "cpu"
    for hits, expected in zip(on_gpu(QUERIES, videos=encoded), pipe(QUERIES, videos=videos), strict=True):
        assert_same(hits, expected, tolerance=1e-2)


def test_any_source_can_be_searched_and_has_a_name(pipe, videos):
    frames = np.random.default_rng(0).integers(0, 255, (8, 40, 40, 3), dtype=np.uint8)
    content = Path(videos[2]).read_bytes()
    with open(videos[3], "rb") as file:
        sources = [Path(videos[0]), {"path": videos[1], "bytes": None}, content, file, frames]
        hits = pipe(QUERIES[0], videos=sources, batch_size=2)
    assert {hit["video"] for hit in hits} == {videos[0], videos[1], "videos[2]", videos[3], "videos[4]"}
    scores = {hit["video"]: hit["score"] for hit in pipe(QUERIES[0], videos=videos)}
    same = {hit["video"]: hit["score"] for hit in hits}
    assert same["videos[2]"] == pytest.approx(scores[videos[2]], abs=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_video_is_named_or_left_out(pipe, videos, tmp_path, workers):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 50)
    gallery = [videos[0], str(broken), b"neither", videos[2]]
    with pytest.raises(VideoReadError, match=r"broken\.mp4"):
        pipe(QUERIES[0], videos=gallery, num_workers=workers)
    with pytest.raises(VideoReadError, match=r"videos\[0\]: bytes"):
        pipe(QUERIES[0], videos=gallery[2:], num_workers=workers)
    with pytest.warns(UserWarning) as warnings:
        hits = pipe(QUERIES[0], videos=gallery, on_error="skip", batch_size=3, num_workers=workers)
    text = str(warnings[0].message)
    assert "2 of 4" in text
    assert "broken.mp4" in text
    assert "videos[2]" in text
    assert_same(hits, pipe(QUERIES[0], videos=[videos[0], videos[2]]))
    with pytest.raises(VideoReadError, match=r"None of the 2 videos.*broken.mp4"):
        pipe(QUERIES[0], videos=gallery[1:3], on_error="skip", num_workers=workers)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ([], "no query"),
        (["red", ""], "empty"),
        (["red", None], "NoneType"),
        (3, "int"),
    ],
)
def test_queries_that_say_nothing(pipe, videos, queries, message):
    with pytest.raises(ValueError, match=message):
        pipe(queries, videos=videos)


@pytest.mark.parametrize(
    ("gallery", "message"), [([], "no videos"), ("a.mp4", "list"), (b"bytes", "list"), (3, "list")]
)
def test_videos_have_to_be_a_list(pipe, gallery, message):
    with pytest.raises(ValueError, match=message):
        pipe("red", videos=gallery)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"top_k": 0}, "top_k"), ({"top_k": 2.5}, "top_k"), ({"topk": 3}, "topk"), ({"on_error": "ignore"}, "on_error")],
)
def test_impossible_arguments_are_refused_before_any_work(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe("red", videos=["does not exist.mp4"], **arguments)


def test_videos_of_another_model_are_refused(pipe, videos):
    encoded = pipe.encode_videos(videos[:1])
    narrow = encoded.features.select(slice(None))
    narrow.pooler_output = narrow.pooler_output[:, :8]
    other = EncodedVideos(encoded.names, narrow, encoded.timestamps, encoded.video_spans)
    with pytest.raises(ValueError, match="8 wide"):
        pipe("red", videos=other)
    with pytest.raises(ValueError, match="different models"):
        encoded + other


def test_only_hcmi_with_its_processor(pipe):
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    with pytest.raises(ValueError, match="BertModel"):
        HCMIRetrievalPipeline(model=BertModel(BertConfig(**tiny)), processor=pipe.processor)
    with pytest.raises(ValueError, match="processor"):
        HCMIRetrievalPipeline(model=pipe.model)


def test_a_saved_pipeline_opens_as_a_model_folder(pipe, videos, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = pipeline("text-video-retrieval", model=str(tmp_path), device="cpu")
    assert_same(again(QUERIES[0], videos=videos), pipe(QUERIES[0], videos=videos), tolerance=1e-6)


def test_saving_does_not_publish_the_model_alone(pipe, tmp_path):
    with pytest.raises(ValueError, match="push_to_hub"):
        pipe.save_pretrained(tmp_path / "new", push_to_hub=True, repo_id="owner/name")
    assert not (tmp_path / "new").exists()


def test_progress_bar(pipe, videos, capsys):
    pipe.encode_videos(videos[:2])
    assert capsys.readouterr().err == "", "two videos need no bar"
    pipe.encode_videos(videos[:2], progress=True)
    assert "2/2" in capsys.readouterr().err


def test_a_video_without_frames_for_every_segment_has_a_finite_span(pipe, videos):
    hit = pipe(QUERIES[0], videos=videos[-1:])[0]
    assert math.isfinite(hit["score"])
    assert 0 <= hit["start"] < hit["end"] <= 0.3 + 1e-6


def test_an_index_stands_in_for_the_videos(model_folder, videos, pipe, tmp_path):
    encoded = pipe.encode_videos(videos)
    with VideoIndex.create(tmp_path / "index", model_folder, precision="float32", device="cpu") as index:
        for row, video in enumerate(videos):
            index.begin_file(video, FileState(0, 0), [Window(0, *encoded.video_spans[row].tolist())])
        index.append(encoded, [(video, 0) for video in videos])
    searching = pipeline("text-video-retrieval", model=model_folder, device="cpu", index=str(tmp_path / "index"))
    for found, expected in zip(searching(QUERIES, top_k=3), pipe(QUERIES, videos=encoded, top_k=3), strict=True):
        assert_same([{key: hit[key] for key in expected[0]} for hit in found], expected)
        assert all(hit["others"] == () and hit["window"]["number"] == 0 for hit in found)
    assert len(searching(QUERIES[0], top_k=None)) == len(videos)
    assert [len(hits) for hits in searching((query for query in QUERIES), top_k=2)] == [2] * len(QUERIES)
    with pytest.raises(ValueError, match="nothing to search"):
        pipe(QUERIES[0])
