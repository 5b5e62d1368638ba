import json
import os
import pickle

import pytest
from miniature_benchmarks import FORMS, sentence, write_miniature

from hcmi.train.data.benchmarks import read_annotations


def made(tmp_path, form="json"):
    return write_miniature("msvd", tmp_path / form, form, decodable=False).annotations


@pytest.mark.parametrize("form", FORMS["msvd"])
def test_every_format_says_the_same(tmp_path, form):
    folder = made(tmp_path, form)
    for split, numbers in (("train", range(8)), ("validation", range(8, 12)), ("test", range(12, 16))):
        found = read_annotations("msvd", split, folder)
        for number, annotation in zip(numbers, found, strict=True):
            clip = f"{'-' if number % 2 else '_'}q{number:02}Zt_k-8_{number}_{number + 9}"
            assert annotation.video_id == clip
            assert annotation.captions == tuple(sentence(number, variant) for variant in range(2 + number % 2))
            assert annotation.file_names == (clip, f"vid{number + 1}")
            assert annotation.start is annotation.end is None


def test_the_mapping_may_be_absent(tmp_path):
    folder = made(tmp_path)
    (folder / "youtube_mapping.txt").unlink()
    assert [len(annotation.file_names) for annotation in read_annotations("msvd", "test", folder)] == [1] * 4


def test_equal_sentences_stay(tmp_path):
    folder = made(tmp_path)
    clip = (folder / "test_list.txt").read_text().split()[0]
    (folder / "captions_msvd.json").write_text(json.dumps({clip: ["a man sings", "a man sings ", "a man sings"]}))
    assert read_annotations("msvd", "test", folder)[0].captions == ("a man sings",) * 3


def test_the_published_text_is_split_at_the_first_blank_only(tmp_path):
    folder = made(tmp_path, "text")
    clip = (folder / "test_list.txt").read_text().split()[0]
    (folder / "AllVideoDescriptions.txt").write_bytes(
        b"/*** not read ***/\n# a comment\n\n" + f"{clip} a  man # sings\r\n{clip} caf".encode() + b"\xe9\n"
    )
    assert read_annotations("msvd", "test", folder)[0].captions == ("a  man # sings", "café")


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    class Hostile:
        def __reduce__(self):
            return os.system, ("touch hacked",)

    monkeypatch.chdir(tmp_path)
    folder = made(tmp_path, "pickle")
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps({"clip": [["a", Hostile()]]}))
    with pytest.raises(ValueError, match=r"raw-captions.pkl is refused: it names code to be called"):
        read_annotations("msvd", "test", folder)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("contents", [[], ["a"], {"clip": "words"}, {"clip": ["a man sings"]}, {"clip": [[["a"]]]}])
def test_a_pickle_of_another_shape_is_refused(tmp_path, contents):
    folder = made(tmp_path, "pickle")
    (folder / "raw-captions.pkl").write_bytes(pickle.dumps(contents))
    with pytest.raises(ValueError, match=r"raw-captions.pkl is not a dictionary of clip ids to lists of sentences"):
        read_annotations("msvd", "test", folder)


@pytest.mark.parametrize("contents", [{"clip": "words"}, {"clip": [1]}, {"clip": [["a", "man"]]}, {"clip": {}}])
def test_a_json_file_of_another_shape_is_refused(tmp_path, contents):
    folder = made(tmp_path)
    (folder / "captions_msvd.json").write_text(json.dumps(contents))
    with pytest.raises(ValueError, match=r"captions_msvd.json is not a dictionary of clip ids to lists of sentences"):
        read_annotations("msvd", "test", folder)


def test_missing_captions_are_named(tmp_path):
    folder = made(tmp_path)
    (folder / "captions_msvd.json").unlink()
    with pytest.raises(
        ValueError, match=r"have no captions_msvd.json or .* AllVideoDescriptions.txt or raw-captions.pkl"
    ):
        read_annotations("msvd", "test", folder)


def test_a_line_with_nothing_said_is_named(tmp_path):
    folder = made(tmp_path, "text")
    (folder / "AllVideoDescriptions.txt").write_text("clip\n")
    with pytest.raises(ValueError, match=r"AllVideoDescriptions.txt has a line with nothing after clip"):
        read_annotations("msvd", "test", folder)
