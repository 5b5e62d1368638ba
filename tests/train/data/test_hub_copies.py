import datasets
import pytest
from datasets import Dataset, Features, Value, Video
from hub_copies import write_hub_copy

from hcmi.train.data.annotation import Annotation
from hcmi.train.data.hub_copies import read_hub_copy


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def msrvtt_row(number, caption):
    return {
        "video_id": f"video{number}", "video": f"video{number}.mp4", "caption": caption, "source": "MSR-VTT",
        "category": 9, "url": "https://example.com/watch", "start time": 137.72, "end time": 149.44, "id": number,
    }  # fmt: skip


def msvd_row(video_id, captions):
    return {"video_id": video_id, "video": f"{video_id}.avi", "caption": captions, "source": "MSVD"}


def activitynet_row(video_id, sentences):
    return {
        "video_id": video_id, "video": f"{video_id}.mp4", "caption": "joined otherwise",
        "source": "ActivityNet_Captions", "duration": 82.73, "timestamps": [[0, 9.5]] * len(sentences),
        "sentences": sentences,
    }  # fmt: skip


@pytest.fixture
def msrvtt(tmp_path):
    """As friedrichor/MSR-VTT and VLM2Vec/MSR-VTT: captions are a list in the training files, a string in the test's."""
    configurations = {
        "train_9k": {"train": [msrvtt_row(7, ["a car", "a red car"]), msrvtt_row(3, ["a dog"])]},
        "train_7k": {"train": [msrvtt_row(3, ["a dog"])]},
        "test_1k": {"test": [msrvtt_row(9, "a cat sleeps")]},
    }
    return str(write_hub_copy(tmp_path / "MSR-VTT", configurations))


@pytest.fixture
def msvd(tmp_path):
    """As friedrichor/MSVD and VLM2Vec/MSVD."""
    splits = {
        "train": [msvd_row("-4wsuPCjDBc_5_15", ["a squirrel eats", "an animal eats", "an animal eats"])],
        "validation": [msvd_row("-8y1Q0rA3n8_108_115", ["a man runs"])],
        "test": [msvd_row("-Cv5LsqKUXc_17_25", ["a girl sings", "she sings"]), msvd_row("00jrXRMlZOY_0_10", ["rain"])],
    }
    return str(write_hub_copy(tmp_path / "MSVD", {"default": splits}))


@pytest.fixture
def didemo(tmp_path):
    """As friedrichor/DiDeMo and VLM2Vec/DiDeMo: no id, no validation."""
    row = {"caption": "the sun sets the boat leaves ", "source": "DiDeMo"}
    splits = {split: [{"video": f"{split}/12@N02_34_{split}.mp4"} | row] for split in ("train", "test")}
    return str(write_hub_copy(tmp_path / "DiDeMo", {"default": splits}))


@pytest.fixture
def activitynet(tmp_path):
    """As friedrichor/ActivityNet_Captions."""
    splits = {
        "train": [activitynet_row("v_a", ["A girl dances.", " She stops. "])],
        "val1": [activitynet_row("v_b", ["A man lifts."]), activitynet_row("v_c", [" Rain.", " Snow."])],
        "val2": [activitynet_row("v_b", ["Weights go up.", "They fall."])],
    }
    return str(write_hub_copy(tmp_path / "ActivityNet_Captions", {"default": splits}))


def test_msrvtt(msrvtt):
    two = Annotation("video7", ("a car", "a red car"), ("video7",))
    one = Annotation("video3", ("a dog",), ("video3",))
    assert list(read_hub_copy("msrvtt", msrvtt, "train", "1k-A-9k")) == [two, one]
    assert list(read_hub_copy("msrvtt", msrvtt, "train", "1k-A-7k")) == [one]
    for protocol in ("1k-A-9k", "1k-A-7k"):
        test = list(read_hub_copy("msrvtt", msrvtt, "test", protocol))
        assert test == [Annotation("video9", ("a cat sleeps",), ("video9",))]


def test_msvd(msvd):
    captions = {
        split: {row.video_id: row.captions for row in read_hub_copy("msvd", msvd, split, "official")}
        for split in ("train", "validation", "test")
    }
    assert captions == {
        "train": {"-4wsuPCjDBc_5_15": ("a squirrel eats", "an animal eats", "an animal eats")},
        "validation": {"-8y1Q0rA3n8_108_115": ("a man runs",)},
        "test": {"-Cv5LsqKUXc_17_25": ("a girl sings", "she sings"), "00jrXRMlZOY_0_10": ("rain",)},
    }


def test_didemo(didemo):
    for split in ("train", "test"):
        rows = list(read_hub_copy("didemo", didemo, split, "paragraph"))
        assert rows == [Annotation(f"12@N02_34_{split}", ("the sun sets the boat leaves",), (f"12@N02_34_{split}",))]


def test_activitynet(activitynet):
    def read(split, protocol):
        return list(read_hub_copy("activitynet", activitynet, split, protocol))

    for protocol in ("val_1", "val_2"):
        assert read("train", protocol) == [Annotation("v_a", ("A girl dances. She stops.",), ("v_a", "a"))]
    assert read("test", "val_1") == [
        Annotation("v_b", ("A man lifts.",), ("v_b", "b")),
        Annotation("v_c", ("Rain. Snow.",), ("v_c", "c")),
    ]
    assert read("test", "val_2") == [Annotation("v_b", ("Weights go up. They fall.",), ("v_b", "b"))]


def test_rows_of_one_caption_are_put_together_in_file_order(tmp_path):
    rows = [
        {"video_id": "b", "video_path": "clips/2.webm", "sentence": "first of b"},
        {"video_id": "a", "video_path": "clips/1.webm", "sentence": "first of a"},
        {"video_id": "b", "video_path": "clips/2.webm", "sentence": "second of b"},
    ]
    folder = str(write_hub_copy(tmp_path / "copy", {"default": {"test": rows}}))
    assert list(read_hub_copy("msvd", folder, "test", "official")) == [
        Annotation("b", ("first of b", "second of b"), ("2", "b")),
        Annotation("a", ("first of a",), ("1", "a")),
    ]
    paragraphs = [row.captions for row in read_hub_copy("didemo", folder, "test", "paragraph")]
    assert paragraphs == [("first of b second of b",), ("first of a",)]


def test_stored_videos_are_not_decoded(tmp_path):
    rows = {"video": [{"path": "vid1.avi", "bytes": b"no video"}], "caption": ["rain"]}
    stored = Dataset.from_dict(rows, features=Features({"video": Video(decode=False), "caption": Value("string")}))
    folder = write_hub_copy(tmp_path / "copy", {"default": {"val": stored.cast_column("video", Video())}})
    annotations = list(read_hub_copy("msvd", str(folder), "validation", "official"))
    assert annotations == [Annotation("vid1", ("rain",), ("vid1",))]


@pytest.mark.parametrize(
    ("name", "split", "protocol", "said"),
    [
        ("msrvtt", "train", "full", "msrvtt on the Hub lack the protocol 'full', they have 1k-A-9k, 1k-A-7k"),
        ("msrvtt", "validation", "1k-A-9k", "split 'validation' of the protocol '1k-A-9k', they have train, test"),
        ("activitynet", "validation", "val_1", "activitynet on the Hub lack the split 'validation'"),
        ("lsmdc", "test", "challenge-1000", "no copy of lsmdc on the Hub can be read"),
    ],
)
def test_what_no_copy_has_is_refused(name, split, protocol, said):
    with pytest.raises(ValueError, match=f"{said}.*give the folder with the benchmark's own annotation files"):
        read_hub_copy(name, "owner/name", split, protocol)


def test_a_split_that_is_not_there_is_refused(didemo):
    with pytest.raises(ValueError, match=r"DiDeMo' has no split 'validation' or 'val', it has train, test: give the"):
        read_hub_copy("didemo", didemo, "validation", "paragraph")


def test_a_configuration_that_is_not_there_is_refused(msvd, msrvtt):
    with pytest.raises(ValueError, match=r"MSVD', configuration 'train_9k' .*'default'"):
        read_hub_copy("msrvtt", msvd, "train", "1k-A-9k")
    with pytest.raises(ValueError, match=r"MSR-VTT' .*'train_9k', 'train_7k', 'test_1k'"):
        read_hub_copy("msvd", msrvtt, "test", "official")


@pytest.mark.parametrize("missing", ["caption", "video"])
def test_columns_that_do_not_fit_are_refused(tmp_path, missing):
    row = {"video": "1.mp4", "caption": "rain", "label": 3}
    del row[missing]
    folder = str(write_hub_copy(tmp_path / "copy", {"default": {"test": [row]}}))
    found = ", ".join(row)
    with pytest.raises(ValueError, match=rf"has the columns {found}; needed are one of .*caption.* and one of .*video"):
        read_hub_copy("msvd", folder, "test", "official")


@pytest.mark.parametrize(
    "row",
    [
        {"video_id": "b", "caption": [7, 8]},
        {"video_id": "b", "caption": 7},
        {"video_id": None, "caption": ["rain"]},
        {"video_id": 3, "caption": ["rain"]},
    ],
)
def test_names_and_captions_that_are_not_text_are_refused(tmp_path, row):
    folder = str(write_hub_copy(tmp_path / "copy", {"default": {"test": [row]}}))
    with pytest.raises(ValueError, match=r"row 0 of the data set '.*copy' needs a video's name and captions, all"):
        read_hub_copy("msvd", folder, "test", "official")


def test_videos_without_a_caption_are_kept(tmp_path):
    rows = [
        {"video_id": "a", "caption": []},
        {"video_id": "b", "caption": None},
        {"video_id": "c", "caption": [" ", " rain "]},
    ]
    folder = str(write_hub_copy(tmp_path / "copy", {"default": {"test": rows}}))
    for name, protocol in (("msvd", "official"), ("didemo", "paragraph")):
        captions = {row.video_id: row.captions for row in read_hub_copy(name, folder, "test", protocol)}
        assert captions == {"a": (), "b": (), "c": ("rain",)}


@pytest.mark.parametrize("repository", ["nobody/no-such-copy", "/nowhere/no-such-copy", "no such copy"])
def test_a_repository_that_cannot_be_reached_is_named(repository):
    with pytest.raises(ValueError, match=f"cannot read the data set '{repository}' .*hf auth login"):
        read_hub_copy("msvd", repository, "test", "official")


def test_a_damaged_file_is_refused(tmp_path, msvd):
    (tmp_path / "MSVD" / "default_test.json").write_text('[{"video_id": "a", "cap')
    with pytest.raises(ValueError, match=r"cannot read the data set .*MSVD"):
        read_hub_copy("msvd", msvd, "test", "official")
