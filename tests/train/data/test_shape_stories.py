import json
import random
import re
from pathlib import Path

import av
import numpy as np
import pytest
from datasets import Dataset, IterableDataset

from hcmi.train.data import shape_stories
from hcmi.train.data.shape_stories import ShapeStories, default_folder, load_shape_stories, write_shape_stories
from hcmi.train.data.shape_stories_rendering import RGB

CONNECTIVES = frozenset(re.findall("[a-z]+", "first then next and after that before finally while as at the same time"))
SIZES = {"train": 20, "validation": 5, "test": 15}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_shape_stories(tmp_path_factory.mktemp("stories") / "new", 7, SIZES, workers=1, progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def annotations(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def test_folder_holds_the_videos_the_annotations_and_the_settings_only(folder):
    names = set(contents(folder))
    videos = {f"videos/{split}/{split}_{i:05d}.mp4" for split, size in SIZES.items() for i in range(size)}
    assert names == videos | {f"{split}.jsonl" for split in SIZES} | {"dataset.json"}
    assert json.loads((folder / "dataset.json").read_text()) == {"version": "1.0.0", "seed": 7, "sizes": SIZES}


def test_files_do_not_depend_on_the_number_of_workers(folder, tmp_path):
    again = write_shape_stories(tmp_path / "again", 7, SIZES, workers=2, progress=False)
    assert contents(again) == contents(folder)


def test_another_seed_gives_other_files(folder, tmp_path):
    other = write_shape_stories(tmp_path / "other", 8, {"test": 3}, workers=1, progress=False)
    ours, theirs = contents(folder), contents(other)
    assert all(ours[name] != theirs[name] for name in theirs)


def test_the_test_split_does_not_depend_on_the_other_sizes(folder, tmp_path):
    small = write_shape_stories(tmp_path / "small", 7, {"test": 15}, workers=1, progress=False)
    theirs = contents(small)
    assert {name: data for name, data in contents(folder).items() if "test" in name} == {
        name: data for name, data in theirs.items() if "test" in name
    }


def test_a_complete_folder_is_reused(folder, monkeypatch):
    monkeypatch.setattr(shape_stories, "write_video", lambda *_: pytest.fail("rendered again"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}
    assert write_shape_stories(folder, 7, SIZES) == folder
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_an_interrupted_folder_is_continued_with_the_same_result(folder, tmp_path, monkeypatch):
    target = tmp_path / "interrupted"
    written: list[str] = []
    real = shape_stories.write_video

    def failing(path, *arguments):
        if len(written) == 12:
            raise KeyboardInterrupt
        written.append(path)
        real(path, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shape_stories, "write_video", failing)
        write_shape_stories(target, 7, SIZES, workers=1, progress=False)
    assert not (target / "dataset.json").exists()
    with pytest.raises(ValueError, match="no complete shape stories"):
        load_shape_stories(target, "test")
    with pytest.raises(ValueError, match="other settings"):
        write_shape_stories(target, 8, SIZES)
    kept = {path: Path(path).stat().st_mtime_ns for path in written}
    write_shape_stories(target, 7, SIZES, workers=1, progress=False)
    assert contents(target) == contents(folder)
    assert kept == {path: Path(path).stat().st_mtime_ns for path in written}


def test_deleted_and_emptied_files_come_back(folder):
    before = contents(folder)
    (folder / "videos/test/test_00003.mp4").unlink()
    (folder / "videos/train/train_00000.mp4").write_bytes(b"")
    (folder / "validation.jsonl").unlink()
    write_shape_stories(folder, 7, SIZES, workers=1, progress=False)
    assert contents(folder) == before


def test_other_settings_and_other_folders_are_refused(folder, tmp_path):
    for seed, sizes in ((8, SIZES), (7, {**SIZES, "test": 14}), (7, {"test": 15})):
        with pytest.raises(ValueError, match=r"other settings.*choose another folder"):
            write_shape_stories(folder, seed, sizes)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty and holds no shape stories"):
        write_shape_stories(tmp_path, 7, SIZES)
    with pytest.raises(ValueError, match=r"unknown splits.*trial"):
        write_shape_stories(tmp_path / "new", 7, {"trial": 3})
    with pytest.raises(ValueError, match=r"at least one video.*test"):
        write_shape_stories(tmp_path / "new", 7, {"test": 0})
    assert not (tmp_path / "new").exists()


def test_no_caption_occurs_twice_in_the_default_benchmark():
    stories = shape_stories._sample_all(
        0, {split: shape_stories.DEFAULT_SIZES[split] for split in shape_stories._SPLITS}
    )
    lines = shape_stories._annotate_all(0, stories)
    captions = [caption for split in lines.values() for line in split for caption in line["captions"]]
    assert len(captions) == 3 * 4600 == len(set(captions))
    for split, rows in lines.items():
        assert len(rows) == shape_stories.DEFAULT_SIZES[split]
        assert 0.35 < sum(row["decoy_group"] is not None for row in rows) / len(rows) < 0.45


def test_spans_cut_out_the_phrases(folder):
    for split in SIZES:
        for row in annotations(folder, split):
            assert len(row["captions"]) == 3
            for k, caption in enumerate(row["captions"]):
                assert re.fullmatch(r"[a-z]+(,? [a-z]+)*", caption)
                rest = list(caption)
                for event in row["events"]:
                    first, last = event["spans"][k]
                    assert caption[first:last] == event["phrases"][k]
                    rest[first:last] = "*" * (last - first)
                words = set(re.split(r"[ ,*]+", "".join(rest))) - {""}
                assert words <= CONNECTIVES


def test_decoys_tell_the_same_events_in_another_arrangement(folder):
    groups: dict[int, list[dict]] = {}
    for row in annotations(folder, "train"):
        if row["decoy_group"] is not None:
            groups.setdefault(row["decoy_group"], []).append(row)
    assert groups
    colours = re.compile("|".join([*RGB, "violet"]))
    for rows in groups.values():
        assert len(rows) in (2, 3)
        named = [
            sorted(tuple(sorted(colours.findall(e["phrases"][0].replace("violet", "purple")))) for e in row["events"])
            for row in rows
        ]
        assert all(names == named[0] for names in named)


def test_colours_are_on_screen_exactly_during_their_events(folder):
    def visible(picture: np.ndarray, colour: str) -> bool:
        return (np.abs(picture.astype(int) - RGB[colour]).max(-1) < 60).sum() >= 12

    checked = 0
    for row in annotations(folder, "test"):
        with av.open(str(folder / row["video"])) as container:
            frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.duration is not None
            assert container.duration / av.time_base >= row["events"][-1]["end"] - 1e-6
        assert frames[0][1].shape == (96, 96, 3)
        for colour in RGB:
            events = [e for e in row["events"] if colour in e["phrases"][0].replace("violet", "purple")]
            for time, picture in frames:
                running = [e for e in events if e["start"] - 1e-6 <= time < e["end"] - 1e-6]
                fading = re.search("appear|show|fade|emerge", " ".join(e["phrases"][0] for e in running))
                if not running:
                    assert not visible(picture, colour), (row["video_id"], colour, time)
                elif not fading or time > (running[0]["start"] + 0.7 * (running[0]["end"] - running[0]["start"])):
                    assert visible(picture, colour), (row["video_id"], colour, time)
                checked += 1
    assert checked > 1000


def test_loading_gives_the_contracted_columns(folder):
    data = load_shape_stories(folder, "test")
    assert isinstance(data, Dataset) and len(data) == 15
    assert data.column_names == ["video_id", "video", "captions", "start", "end", "events"]
    assert "shape_stories" in data.info.description
    for row, line in zip(data, annotations(folder, "test"), strict=True):
        assert Path(row["video"]).is_absolute() and Path(row["video"]).is_file()
        assert row["start"] is None and row["end"] is None
        assert row["video_id"] == line["video_id"] and row["events"] == line["events"]
    with pytest.raises(ValueError, match="not 'trial'"):
        load_shape_stories(folder, "trial")


def test_a_moved_folder_gives_its_new_paths(folder, tmp_path):
    first = write_shape_stories(tmp_path / "first", 7, {"test": 2}, workers=1, progress=False)
    load_shape_stories(first, "test")
    second = first.rename(tmp_path / "second")
    assert load_shape_stories(second, "test")[0]["video"] == str(second.resolve() / "videos/test/test_00000.mp4")


def test_streaming_gives_the_same_rows(folder):
    stream = ShapeStories(cache_dir=str(folder / ".cache"), data_dir=str(folder.resolve())).as_streaming_dataset("test")
    assert isinstance(stream, IterableDataset)
    assert list(stream) == list(load_shape_stories(folder, "test"))


def test_default_folder_names_the_seed():
    assert default_folder(3).name == "shape_stories-3"
    assert default_folder(3) != default_folder(4)


def test_captions_of_one_video_differ():
    # Many seeds, because stories of one short event have the fewest paraphrases.
    for seed in range(20):
        stories = shape_stories._sample_all(seed, {"test": 30})
        random.Random(seed).shuffle(stories["test"])
        for row in shape_stories._annotate_all(seed, stories)["test"]:
            assert len(set(row["captions"])) == 3
