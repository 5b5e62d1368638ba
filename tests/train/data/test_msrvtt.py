import json

import pytest
from miniature_benchmarks import FORMS, sentence, write_miniature

from hcmi.train.data.benchmarks import protocols, read_annotations


@pytest.fixture(params=FORMS["msrvtt"])
def folder(request, tmp_path):
    return write_miniature("msrvtt", tmp_path / "made", request.param, decodable=False).annotations


def ids(numbers):
    return [f"video{number}" for number in numbers]


def test_1k_a_tests_on_one_sentence_a_video_of_the_list(folder):
    for protocol in ("1k-A-9k", "1k-A-7k"):
        found = read_annotations("msrvtt", "test", folder, protocol)
        assert [annotation.video_id for annotation in found] == ids(range(16, 20))
        assert [annotation.captions for annotation in found] == [(f"{sentence(n)}, 1k-A",) for n in range(16, 20)]
        assert found[0].file_names == ("video16",) and found[0].start is found[0].end is None


def test_the_test_list_needs_no_other_file(folder):
    for path in folder.rglob("*.json"):
        path.unlink()
    assert len(read_annotations("msrvtt", "test", folder)) == 4


@pytest.mark.parametrize(
    ("protocol", "split", "numbers"),
    [
        ("1k-A-9k", "train", range(16)),
        ("1k-A-7k", "train", range(12)),
        ("1k-A-9k", "validation", range(8, 12)),
        ("full", "train", range(8)),
        ("full", "validation", range(8, 12)),
        ("full", "test", range(12, 20)),
    ],
)
def test_the_other_lists_have_all_captions_in_the_order_of_the_file(folder, protocol, split, numbers):
    found = read_annotations("msrvtt", split, folder, protocol)
    assert [annotation.video_id for annotation in found] == ids(numbers)
    for number, annotation in zip(numbers, found, strict=True):
        assert annotation.captions == tuple(sentence(number, variant) for variant in range(3))


def test_the_validation_videos_lie_inside_the_training_lists_of_1k_a_and_not_of_full(folder):
    def videos(split, protocol):
        return {annotation.video_id for annotation in read_annotations("msrvtt", split, folder, protocol)}

    for protocol in ("1k-A-9k", "1k-A-7k"):
        assert videos("validation", protocol) < videos("train", protocol)
        assert not videos("test", protocol) & videos("train", protocol)
    assert not videos("validation", "full") & videos("train", "full")
    assert not videos("test", "full") & (videos("train", "full") | videos("validation", "full"))


def test_the_order_of_the_list_counts(folder):
    (path,) = folder.rglob("MSRVTT_train.7k.csv")
    path.write_text("video_id\nvideo9\nvideo0\n")
    assert [a.video_id for a in read_annotations("msrvtt", "train", folder, "1k-A-7k")] == ["video9", "video0"]


def test_without_the_test_part_its_videos_have_no_captions(tmp_path):
    folder = write_miniature("msrvtt", tmp_path / "made", "videodatainfo", decodable=False).annotations
    (folder / "test_videodatainfo.json").unlink()
    found = read_annotations("msrvtt", "train", folder, "1k-A-9k")
    assert [annotation.video_id for annotation in found if not annotation.captions] == ids(range(12, 16))
    assert all(annotation.captions for annotation in read_annotations("msrvtt", "train", folder, "1k-A-7k"))


def test_missing_and_wrong_files_are_named(folder):
    (list_of_9k,) = folder.rglob("MSRVTT_train.9k.csv")
    list_of_9k.unlink()
    with pytest.raises(ValueError, match=r"have no MSRVTT_train.9k.csv"):
        read_annotations("msrvtt", "train", folder)
    for path in folder.rglob("*.json"):
        path.write_text(json.dumps({"videos": [], "captions": []}))
    with pytest.raises(ValueError, match=r"has no lists `videos` and `sentences`"):
        read_annotations("msrvtt", "validation", folder)
    for path in folder.rglob("*.json"):
        path.unlink()
    with pytest.raises(ValueError, match=r"MSRVTT_data\*.json or train_val_videodatainfo.json or test_videodatainfo"):
        read_annotations("msrvtt", "validation", folder)


def test_counts_are_those_of_the_literature():
    for protocol, videos in (("1k-A-9k", 9_000), ("1k-A-7k", 7_010), ("full", 6_513)):
        splits = protocols("msrvtt")[protocol].splits
        assert splits["train"].videos == (videos, videos) and splits["train"].captions == (20 * videos, 20 * videos)
        assert splits["validation"].videos == (497, 497)
    assert splits["test"].videos == (2_990, 2_990) and splits["test"].captions == (59_800, 59_800)
    assert protocols("msrvtt")["1k-A-7k"].splits["test"].captions == (1_000, 1_000)
