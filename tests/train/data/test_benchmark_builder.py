import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from datasets.distributed import split_dataset_by_node
from miniature_benchmarks import Miniature, expect_miniature_counts, write_miniature
from torch.utils.data import DataLoader

from hcmi.train.data.annotation import Annotation
from hcmi.train.data.benchmark_builder import BenchmarkBuilder, find_videos
from hcmi.train.data.benchmark_info import benchmark_info
from hcmi.train.data.msvd import MSVD
from hcmi.train.data.video_files import VideoFiles

COLUMNS = ["video_id", "video", "captions", "start", "end"]


@pytest.fixture
def miniature(tmp_path, monkeypatch) -> Miniature:
    made = write_miniature("msvd", tmp_path / "msvd", decodable=False)
    expect_miniature_counts(monkeypatch, made)
    return made


@pytest.fixture
def load(miniature, tmp_path) -> Callable[..., datasets.Dataset]:
    def call(split: str = "test", streaming: bool = False, **changed) -> datasets.Dataset:
        place = {**miniature.place, "protocol": "official", "cache_dir": tmp_path / "cache"}
        return MSVD.load(split, streaming=streaming, **{**place, **changed})

    return call


def test_rows_features_and_info(load, miniature):
    dataset = load("train")
    assert isinstance(dataset, datasets.Dataset) and len(dataset) == 8
    assert dataset.column_names == COLUMNS
    assert dataset.features["captions"] == datasets.List(datasets.Value("string"))
    assert dataset.features["start"] == dataset.features["end"] == datasets.Value("float64")
    assert dataset[1] == {
        "video_id": "-q01Zt_k-8_1_10",
        "video": str(miniature.videos / "-q01Zt_k-8_1_10.avi"),
        "captions": [
            "a green square moves right",
            "the square that goes right is green",
            "someone pushes a green thing right",
        ],
        "start": None,
        "end": None,
    }
    info = benchmark_info(dataset)
    assert (info.benchmark, info.split, info.protocol) == ("msvd", "train", "official")
    assert (info.videos, info.captions, info.expected_videos, info.expected_captions) == (8, 20, (8, 8), (20, 20))
    assert info.complete and info.missing == 0
    assert info.description == MSVD.PROTOCOLS["official"].description
    assert (dataset.info.config_name, str(dataset.split)) == ("official", "train")


def test_the_cache_is_used_again(load, monkeypatch):
    first = load()
    monkeypatch.setattr(BenchmarkBuilder, "_generate_examples", lambda *_: pytest.fail("written again"))
    again = load()
    assert again.cache_files == first.cache_files and again.to_list() == first.to_list()
    assert benchmark_info(again) == benchmark_info(first) and again.info.config_name == "official"
    assert again._fingerprint == first._fingerprint


def test_changes_are_seen_in_spite_of_the_cache(load, miniature, monkeypatch):
    seen = [load()]
    captions = miniature.annotations / "captions_msvd.json"
    captions.write_text(captions.read_text().replace("red", "pink"))
    seen.append(load())
    assert "a pink square moves up" in seen[-1][0]["captions"]
    (miniature.videos / "more").mkdir()
    video = Path(seen[0][2]["video"])
    video.rename(video.parent / "more" / video.name)
    seen.append(load())
    assert seen[-1][2]["video"] == str(video.parent / "more" / video.name)
    (video.parent / "more" / video.name).unlink()
    with pytest.raises(ValueError, match="1 of 4 videos have no file"):
        load()
    seen += [load(allow_missing=True), load("validation")]
    assert len({dataset._fingerprint for dataset in seen}) == len(seen)
    assert len({dataset.cache_files[0]["filename"] for dataset in seen}) == len(seen)


def test_the_other_splits_need_not_be_there(load, miniature):
    for name in ("train_list.txt", "val_list.txt"):
        (miniature.annotations / name).unlink()
    assert len(load("test")) == 4
    with pytest.raises(ValueError, match=rf"{miniature.annotations} and the folders below it have no train_list.txt"):
        load("train")


def test_videos_are_looked_for_beside_the_annotations_by_default(load, miniature):
    miniature.videos.rename(miniature.annotations / "clips")
    assert load(videos=None)[0]["video"].startswith(str(miniature.annotations / "clips"))


def test_streaming_gives_the_same_rows_and_info(load, tmp_path):
    stream = load("train", streaming=True)
    assert isinstance(stream, datasets.IterableDataset)
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    stored = load("train")
    assert list(stream) == stored.to_list() and list(stream) == list(stream)
    assert benchmark_info(stream) == benchmark_info(stored)
    assert stream.info.config_name == "official" and stream.features == stored.features
    assert list(pickle.loads(pickle.dumps(stream))) == stored.to_list()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 8])
def test_nodes_share_the_rows(load, streaming, nodes):
    dataset = load("train", streaming=streaming)
    parts = [list(split_dataset_by_node(dataset, rank=rank, world_size=nodes)) for rank in range(nodes)]
    ids = [row["video_id"] for part in parts for row in part]
    assert sorted(ids) == sorted(row["video_id"] for row in dataset) and len(ids) == 8
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_workers_share_a_stream(load):
    rows = DataLoader(load("train", streaming=True).select_columns(["video_id"]), batch_size=None, num_workers=2)
    assert sorted(row["video_id"] for row in rows) == sorted(load("train")["video_id"])


def test_missing_videos_are_refused_with_the_first_ten_of_them(load, miniature, monkeypatch):
    for path in list(miniature.videos.iterdir()):
        if not path.name.startswith("-q15"):
            path.unlink()
    with pytest.raises(ValueError) as raised:
        load()
    message = str(raised.value)
    assert "msvd test, official" in message and "3 of 4 videos have no file among the 1 files" in message
    assert f"in {miniature.videos} and the folders below it: _q12Zt_k-8_12_21, -q13Zt_k-8_13_22" in message
    assert "--allow-missing" in message and "1 videos, expected 4" in message
    lists = miniature.annotations / "test_list.txt"
    lists.write_text("".join(f"clip{n}\n" for n in range(30)) + "-q15Zt_k-8_15_24\n")
    captions = miniature.annotations / "captions_msvd.json"
    captions.write_text(captions.read_text()[:-1] + "".join(f', "clip{n}": ["a"]' for n in range(30)) + "}")
    with pytest.raises(ValueError, match=r"30 of 31 videos .*: clip0, clip1, .*clip9, …; .*"):
        load()


def test_allowed_missing_videos_are_noted(load, miniature):
    next(miniature.videos.glob("-q13*")).unlink()
    dataset = load(allow_missing=True)
    assert dataset["video_id"] == ["_q12Zt_k-8_12_21", "_q14Zt_k-8_14_23", "-q15Zt_k-8_15_24"]
    info = benchmark_info(dataset)
    assert (info.videos, info.captions, info.missing, info.complete) == (3, 7, 1, False)
    assert info.expected_videos == (4, 4)
    assert benchmark_info(load("train", allow_missing=True)).complete


def test_videos_without_captions_are_no_secret(load, miniature):
    captions = miniature.annotations / "captions_msvd.json"
    captions.write_text(captions.read_text().replace("-q13Zt", "-other"))
    with pytest.raises(
        ValueError, match=r"1 of 4 videos have no caption in .*: -q13Zt_k-8_13_22; 3 videos, expected 4"
    ):
        load()
    assert benchmark_info(load(allow_missing=True)).missing == 1


def test_wrong_counts_are_refused(load, miniature):
    lists = miniature.annotations / "test_list.txt"
    lists.write_text("\n".join(lists.read_text().splitlines()[1:]))
    with pytest.raises(ValueError, match=r"msvd test, official.*: 3 videos, expected 4; 8 captions, expected 10"):
        load()
    info = benchmark_info(load(allow_missing=True))
    assert (info.videos, info.missing, info.complete) == (3, 0, False)


def test_nothing_at_all_is_refused_whatever_is_allowed(load, miniature, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"4 of 4 videos have no file .*Name the folder of the video files"):
        load(videos=tmp_path / "empty", allow_missing=True)
    (miniature.annotations / "test_list.txt").write_text("")
    with pytest.raises(ValueError, match="The list is empty"):
        load(allow_missing=True)


def test_repeated_ids_and_shared_files_are_refused(load, miniature):
    lists = miniature.annotations / "test_list.txt"
    contents = lists.read_text()
    lists.write_text(contents + "-q13Zt_k-8_13_22\n")
    with pytest.raises(ValueError, match=r"lists -q13Zt_k-8_13_22 more than once"):
        load(allow_missing=True)
    lists.write_text(contents)
    mapping = miniature.annotations / "youtube_mapping.txt"
    mapping.write_text("-q13Zt_k-8_13_22 -q15Zt_k-8_15_24")
    next(miniature.videos.glob("-q13*")).unlink()
    with pytest.raises(ValueError, match="would be both the videos -q13Zt_k-8_13_22 and -q15Zt_k-8_15_24"):
        load(allow_missing=True)


def test_a_builder_checks_its_protocol_and_split(miniature):
    with pytest.raises(ValueError, match="msvd has no protocol 'mine': choose one of official"):
        MSVD(split="test", annotations=miniature.annotations, protocol="mine")
    with pytest.raises(ValueError, match="there is no split 'val'"):
        MSVD(split="val", annotations=miniature.annotations)


def test_folders_that_are_not_there_are_named(load, tmp_path):
    for place in ("annotations", "videos"):
        with pytest.raises(ValueError, match=f"there is no folder {tmp_path / 'absent'}"):
            load(**{place: tmp_path / "absent"})
    with pytest.raises(ValueError, match=r"msvd needs its annotation files: name their folder"):
        load(annotations=None)


def test_copies_on_the_hub_are_read_by_their_own_module(load, miniature, monkeypatch):
    asked = []

    def read_hub_copy(*place: str):
        asked.append(place)
        for clip in (miniature.annotations / "test_list.txt").read_text().split():
            yield Annotation(clip, ("one", "two") if "q15" in clip or "q12" in clip else ("a", "b", "c"), (clip,))

    module = types.ModuleType("hub_copies")
    module.read_hub_copy = read_hub_copy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hcmi.train.data.hub_copies", module)
    dataset = load(annotations="hf://someone/MSVD")
    assert asked == [("msvd", "someone/MSVD", "test", "official")]
    assert dataset[0]["captions"] == ["one", "two"] and benchmark_info(dataset).complete
    with pytest.raises(ValueError, match=r"hf://someone/MSVD holds annotations: name the folder of the video files"):
        load(annotations="hf://someone/MSVD", videos=None)


def test_stretches_of_one_file_are_videos_of_their_own(tmp_path):
    (tmp_path / "film.mp4").touch()
    stretches = [Annotation(f"film_{n}", ("a caption",), ("film",), start=n, end=n + 1.0) for n in (0.0, 1.0)]
    found = find_videos(stretches, VideoFiles(tmp_path))
    assert [(row["video_id"], row["start"]) for row in found.rows] == [("film_0.0", 0.0), ("film_1.0", 1.0)]
    again = Annotation("other", ("a caption",), ("film",), start=1.0, end=2.0)
    with pytest.raises(ValueError, match=r"film_1\.0 and other"):
        find_videos([*stretches, again], VideoFiles(tmp_path))
