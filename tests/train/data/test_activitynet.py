import json

import pytest
from miniature_benchmarks import FORMS, sentence, write_miniature

from hcmi.train.data.benchmarks import read_annotations


@pytest.fixture(params=FORMS["activitynet"])
def folder(request, tmp_path):
    return write_miniature("activitynet", tmp_path / "made", request.param, decodable=False).annotations


@pytest.mark.parametrize(
    ("protocol", "split", "part", "numbers"),
    [
        ("val_1", "train", "train", range(8)),
        ("val_2", "train", "train", range(8)),
        ("val_1", "test", "val_1", range(8, 12)),
        ("val_2", "test", "val_2", range(8, 11)),
    ],
)
def test_sentences_are_stripped_and_joined(folder, protocol, split, part, numbers):
    found = read_annotations("activitynet", split, folder, protocol)
    for number, annotation in zip(numbers, found, strict=True):
        name = f"{'-' if number % 2 else '_'}a{number}Bc-_{number}x"
        assert annotation.video_id == f"v_{name}" and annotation.file_names == (f"v_{name}", name)
        assert annotation.captions == (f"{sentence(number)}. {sentence(number, 1)}. {part}.",)
        assert annotation.start is annotation.end is None


def test_ids_without_captions_play_no_part(folder):
    assert "v_without_captions" in (folder / "train_ids.json").read_text()
    assert len(read_annotations("activitynet", "train", folder)) == 8


def test_a_video_without_sentences_has_no_caption(folder):
    (folder / "val_1.json").write_text(json.dumps({"v_a": {"sentences": [" "]}, "v_b": {"sentences": ["B."]}}))
    assert [annotation.captions for annotation in read_annotations("activitynet", "test", folder)] == [(), ("B.",)]


def test_missing_and_wrong_files_are_named(folder):
    for entry in ({"timestamps": []}, {"sentences": "A."}, {"sentences": [1]}, []):
        (folder / "val_1.json").write_text(json.dumps({"v_a": entry}))
        with pytest.raises(ValueError, match=r"val_1.json has no list of sentences for v_a"):
            read_annotations("activitynet", "test", folder)
    (folder / "val_1.json").unlink()
    with pytest.raises(ValueError, match=r"have no val_1.json"):
        read_annotations("activitynet", "test", folder)
