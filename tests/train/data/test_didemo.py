import json

import pytest
from miniature_benchmarks import FORMS, sentence, write_miniature

from hcmi.train.data.benchmarks import read_annotations


@pytest.fixture(params=FORMS["didemo"])
def folder(request, tmp_path):
    return write_miniature("didemo", tmp_path / "made", request.param, decodable=False).annotations


def test_all_descriptions_of_a_video_are_joined_in_the_order_of_the_file(folder):
    # The lists are written backwards.
    for split, numbers in (("train", range(7, -1, -1)), ("validation", range(11, 7, -1)), ("test", range(15, 11, -1))):
        found = read_annotations("didemo", split, folder)
        for number, annotation in zip(numbers, found, strict=True):
            assert annotation.captions == (" ".join(f"{sentence(number, variant)}." for variant in range(3)),)
            assert annotation.video_id.startswith(f"1000{number}@N0{number % 3}_77{number}_ab{number}cd.")
            assert annotation.start is annotation.end is None


def test_described_videos_outside_the_list_are_left_out(folder):
    assert "90001@N00_test_unlisted.avi" in (folder / "test_data.json").read_text()
    assert len(read_annotations("didemo", "test", folder)) == 4


def test_names_of_files_come_from_the_annotations_and_from_the_list(folder):
    (folder / "test_list.txt").write_text("a@N0_1_b.\na@N0_2_b.mp4\na@N0_3_b\n")
    described = ("a@N0_1_b.mov", "a@N0_2_b.", "a@N0_3_b.3gp")
    entries = [{"video": video, "description": "x"} for video in described]
    (folder / "test_data.json").write_text(json.dumps(entries))
    found = read_annotations("didemo", "test", folder)
    assert tuple(annotation.video_id for annotation in found) == described
    assert [annotation.file_names for annotation in found] == [
        ("a@N0_1_b.mov", "a@N0_1_b.", "a@N0_1_b"),
        ("a@N0_2_b.", "a@N0_2_b.mp4", "a@N0_2_b"),
        ("a@N0_3_b.3gp", "a@N0_3_b"),
    ]


def test_listed_videos_without_a_description_are_kept_without_captions(folder):
    with open(folder / "test_list.txt", "a") as lists:
        lists.write("7@N00_1_f.mov\n")
    last = read_annotations("didemo", "test", folder)[-1]
    assert (last.video_id, last.captions) == ("7@N00_1_f.mov", ())


def test_missing_and_wrong_files_are_named(folder):
    (folder / "test_list.txt").unlink()
    with pytest.raises(ValueError, match=r"have no test_list.txt"):
        read_annotations("didemo", "test", folder)
    (folder / "test_data.json").write_text('[{"video": "a.mov", "times": []}]')
    with pytest.raises(ValueError, match=r"test_data.json has an entry without video, description: {'video': 'a.mov'"):
        read_annotations("didemo", "test", folder)
    (folder / "test_data.json").unlink()
    with pytest.raises(ValueError, match=r"have no test_data.json or \*test_data\*.json"):
        read_annotations("didemo", "test", folder)
