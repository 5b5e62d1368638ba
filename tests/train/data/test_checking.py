import os
import shutil

import pytest
from miniature_benchmarks import FORMS, expect_miniature_counts, write_miniature

from hcmi.train.data import worker_pool
from hcmi.train.data.benchmarks import BENCHMARKS, load_benchmark
from hcmi.train.data.check_report import format_check
from hcmi.train.data.checking import check_benchmark


@pytest.fixture
def miniature(request, tmp_path, monkeypatch):
    """A small copy of a benchmark, MSR-VTT unless told, complete by its own counts."""
    copy = write_miniature(getattr(request, "param", "msrvtt"), tmp_path)
    expect_miniature_counts(monkeypatch, copy)
    return copy


@pytest.fixture
def cut_short(miniature):
    """Ids: the file of the first video of the test split is no video any more, that of the second ends early."""
    rows = load_benchmark("msrvtt", "test", **miniature.place, cache_dir=miniature.videos.parent / "cache")
    first, second = rows[0], rows[1]
    with open(first["video"], "wb") as file:
        file.write(b"no video")
    os.truncate(second["video"], os.path.getsize(second["video"]) // 2)
    return first["video_id"], second["video_id"]


@pytest.mark.parametrize("miniature", FORMS, indirect=True)
def test_a_complete_benchmark_is_complete(miniature):
    report = check_benchmark(miniature.name, **miniature.place)
    protocol = next(iter(BENCHMARKS[miniature.name].protocols))
    assert report["complete"] and report["protocol"] == protocol
    assert list(report["splits"]) == list(BENCHMARKS[miniature.name].protocols[protocol].splits)
    for split, checked in report["splits"].items():
        assert (checked["videos"], checked["captions"]) == miniature.counts[protocol, split]
        assert checked["complete"] and not checked["without_file"] and not checked["without_caption"]
        assert "decoded" not in checked
    text = format_check(report)
    assert "NOT COMPLETE" not in text and str(miniature.videos) in text
    assert f"test: {report['splits']['test']['videos']} of {report['splits']['test']['videos']} videos" in text


def test_missing_files_are_all_in_the_report_and_ten_in_the_text(miniature):
    gone = [f"video{number}" for number in range(11)]
    for name in gone:
        (miniature.videos / "TrainValVideo" / f"{name}.mp4").unlink()
    report = check_benchmark("msrvtt", **miniature.place)
    train, validation, test = (report["splits"][split] for split in ("train", "validation", "test"))
    assert train["without_file"] == gone and validation["without_file"] == gone[8:]
    assert (train["videos"], train["captions"], train["captions_without_video"]) == (5, 15, 33)
    assert train["wrong_counts"] == ["5 videos, expected 16", "15 captions, expected 48"]
    assert test["complete"] and not train["complete"] and not validation["complete"] and not report["complete"]
    text = format_check(report)
    assert "11 videos, which 33 captions describe, have no file: video0, " in text and "video9, …" in text
    assert f"{report['files']} files in {miniature.videos}" in text and report["files"] == 9
    assert text.count("NOT COMPLETE") == 3


def test_other_counts_are_not_complete(tmp_path):
    miniature = write_miniature("msrvtt", tmp_path, decodable=False)
    report = check_benchmark("msrvtt", **miniature.place, splits=["test"])
    assert list(report["splits"]) == ["test"] and not report["complete"]
    assert report["splits"]["test"]["expected"] == {"videos": (1000, 1000), "captions": (1000, 1000)}
    assert "test: 4 of 1,000 videos, 4 of 1,000 captions   NOT COMPLETE" in format_check(report)


def test_captions_that_occur_more_than_once_are_counted(miniature):
    path = miniature.annotations / "lists" / "MSRVTT_JSFUSION_test.csv"
    rows = ["key,vid_key,video_id,sentence"]
    rows += [f"ret{n},msr{n},video{n},{said}" for n, said in zip(range(16, 20), ["a", "a", "b", "a"], strict=True)]
    path.write_text("\n".join(rows))
    test = check_benchmark("msrvtt", **miniature.place)["splits"]["test"]
    assert test["captions_of_several_videos"] == {"a": 3} and test["captions_repeated_for_their_video"] == 0


@pytest.mark.parametrize("miniature", ["msvd"], indirect=True)
def test_captions_that_repeat_another_of_their_video_are_counted(miniature):
    path = miniature.annotations / "captions_msvd.json"
    text = path.read_text()
    path.write_text(text.replace("the square that goes left is red", "a red square moves left"))
    before = text.count("the square that goes left is red")
    splits = check_benchmark("msvd", **miniature.place)["splits"].values()
    assert sum(checked["captions_repeated_for_their_video"] for checked in splits) == before == 1


def test_a_video_without_a_caption_is_named(miniature):
    path = miniature.annotations / "deep" / "MSRVTT_data.json"
    path.write_text(path.read_text().replace('"video_id": "video3", "caption"', '"video_id": "video99", "caption"'))
    train = check_benchmark("msrvtt", **miniature.place)["splits"]["train"]
    assert train["without_caption"] == ["video3"] and not train["complete"]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_video_that_cannot_be_read_is_listed(miniature, cut_short, workers, monkeypatch):
    monkeypatch.setattr(worker_pool, "_START_SECONDS", 0)
    unreadable, shortened = cut_short
    report = check_benchmark("msrvtt", **miniature.place, splits=["test"], decode=5, num_workers=workers)
    decoded = report["splits"]["test"]["decoded"]
    assert (decoded["frames"], decoded["videos"]) == (5, 4)
    problems = [*decoded["unreadable"], *decoded["damaged"]]
    assert [video["video_id"] for video in problems] == [unreadable, shortened]
    assert all(video["reason"] and video["video"].endswith(f"{video['video_id']}.mp4") for video in problems)
    assert not report["complete"]
    text = format_check(report)
    assert all(f"{video['video_id']} ({video['video']}): {video['reason']}" in text for video in problems)


def test_readable_videos_are_complete(miniature):
    report = check_benchmark("msrvtt", **miniature.place, decode=3)
    assert report["complete"]
    assert {split: checked["decoded"]["videos"] for split, checked in report["splits"].items()} == {
        "train": 16, "validation": 4, "test": 4,
    }  # fmt: skip
    assert "all 16 videos can be read" in format_check(report)


def test_a_split_whose_annotations_are_not_there_does_not_hide_the_others(miniature):
    shutil.rmtree(miniature.annotations / "deep")
    report = check_benchmark("msrvtt", **miniature.place)
    assert report["splits"]["test"]["complete"] and not report["complete"]
    assert "MSRVTT_data" in report["splits"]["train"]["error"]
    assert report["splits"]["train"]["error"] in format_check(report)


@pytest.mark.parametrize("miniature", ["activitynet"], indirect=True)
def test_a_split_that_the_protocol_lacks_is_told(miniature):
    report = check_benchmark("activitynet", **miniature.place, splits=["validation", "test"])
    assert "no validation split" in report["splits"]["validation"]["error"] and not report["complete"]


def test_the_built_in_benchmark_is_checked_too(stories):
    report = check_benchmark("shape_stories", annotations=stories, splits=["test"], decode=2)
    assert report["complete"] and report["splits"]["test"]["videos"] == 8
    assert report["splits"]["test"]["expected"] == {"videos": None, "captions": None}
    assert "test: 8 videos, 24 captions" in format_check(report)


def test_a_place_that_is_not_told_is_asked_for(miniature, tmp_path):
    with pytest.raises(ValueError, match="no protocol '1k-B': choose one of 1k-A-9k"):
        check_benchmark("msrvtt", **miniature.place, protocol="1k-B")
    with pytest.raises(ValueError, match="annotations"):
        check_benchmark("msrvtt", videos=miniature.videos)
    with pytest.raises(ValueError, match="videos"):
        check_benchmark("msrvtt", annotations="hf://someone/MSR-VTT")
    with pytest.raises(ValueError, match="no benchmark 'msr'"):
        check_benchmark("msr", **miniature.place)
    report = check_benchmark("msrvtt", annotations=miniature.annotations, videos=tmp_path / "nowhere")
    assert "nowhere" in report["splits"]["test"]["error"]


@pytest.mark.skipif("HCMI_BENCHMARKS" not in os.environ, reason="HCMI_BENCHMARKS names no folder of annotation files")
@pytest.mark.parametrize(("name", "strings", "times"), [("msrvtt", 4, 9), ("msvd", 961, None)])
def test_shared_captions_of_the_real_test_splits(name, strings, times, tmp_path):
    folder = os.path.join(os.environ["HCMI_BENCHMARKS"], name)
    test = check_benchmark(name, annotations=folder, videos=tmp_path, splits=["test"])["splits"]["test"]
    assert len(test["captions_of_several_videos"]) == strings
    assert times is None or sum(test["captions_of_several_videos"].values()) == times
