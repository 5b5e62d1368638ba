import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from transformers import CLIPImageProcessor

from hcmi.processing import HCMIProcessor, VideoReadError
from hcmi.train.data import prepared_frames, row_reading, worker_pool
from hcmi.train.data.candidates import PreparedCandidates
from hcmi.train.data.frame_sources import FileFrames
from hcmi.train.data.prepared_frames import frame_folder, frame_size, prepare_frames

KILLED = """
import os, sys, signal
import datasets
from hcmi.processing import HCMIProcessor
from hcmi.train.data import prepared_frames
processor, data, folder = HCMIProcessor.from_pretrained(sys.argv[1]), *sys.argv[2:]
prepared_frames._ROWS_PER_SHARD = 2
real, count = prepared_frames.decode_candidates, 0
def decode(*arguments):
    global count
    count += 1
    if count == 6:  # in the middle of the third shard
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
prepared_frames.decode_candidates = decode
prepared_frames.prepare_frames(datasets.load_from_disk(data), processor, 5, folder)
"""


@pytest.fixture
def decoded(monkeypatch):
    """Names of the videos that were decoded in this process."""
    names = []
    real = row_reading.read_frames

    def read_frames(video, *args, **kwargs):
        names.append(video)
        return real(video, *args, **kwargs)

    monkeypatch.setattr(row_reading, "read_frames", read_frames)
    return names


@pytest.fixture
def small_shards(monkeypatch):
    """Two rows a file, and processes from the beginning where there are several."""
    monkeypatch.setattr(prepared_frames, "_ROWS_PER_SHARD", 2)
    monkeypatch.setattr(worker_pool, "_START_SECONDS", 0)


def rows_of(files):
    """The first row of each file of rows."""
    return sorted(int(file.name.split("-")[1]) for file in files if file.name.endswith(".arrow"))


def files_of(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.name != ".lock" and file.is_file()}


def with_videos(dataset, paths):
    return dataset.remove_columns("video").add_column("video", paths)


def test_each_row_holds_the_middle_frames_of_its_segments(videos, processor, tmp_path):
    prepared = prepare_frames(videos, processor, 6, tmp_path)
    source = FileFrames(processor, videos, 6)
    assert len(prepared) == len(videos)
    for row in range(len(videos)):
        frames, timestamps, span = PreparedCandidates(prepared)(row)
        taken = frames[list(range(len(timestamps)))]
        assert torch.equal(taken, source(row).frames)
        assert timestamps == source(row).timestamps.tolist() and span == source(row).span
        assert torch.equal(frames[[3, 0]], source(row).frames[[3, 0]])
        taken += 1  # no view of the file


def test_jpeg_keeps_each_frame_nearly_and_in_less_space(videos, processor, tmp_path):
    larger = CLIPImageProcessor(size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96})
    processor = HCMIProcessor(larger, processor.tokenizer)
    raw, jpeg = (
        prepare_frames(videos, processor, 6, tmp_path, encoding=encoding, progress=False)
        for encoding in ("raw", "jpeg")
    )
    for row in range(len(videos)):
        exact, near = PreparedCandidates(raw)(row), PreparedCandidates(jpeg)(row)
        assert near.timestamps == exact.timestamps and near.span == exact.span
        everything = list(range(len(exact.timestamps)))
        difference = (exact.frames[everything].int() - near.frames[everything].int()).abs().float()
        assert 0 < difference.mean() < 1.5
        assert (jpeg[row]["encoding"], jpeg[row]["shape"]) == ("jpeg", [3, 96, 96])
        for place, data in enumerate(jpeg[row]["frames"]):
            with Image.open(io.BytesIO(data)) as picture:
                assert picture.format == "JPEG"
                assert np.array_equal(np.asarray(picture), near.frames[[place]][0].permute(1, 2, 0).numpy())
    sizes = [sum(len(frame) for frames in prepared["frames"] for frame in frames) for prepared in (raw, jpeg)]
    assert sizes[1] < sizes[0] / 3
    assert frame_size(videos, processor, 6, "raw") == 3 * 96 * 96 > 3 * frame_size(videos, processor, 6, "jpeg")


def test_the_rows_lie_in_files_of_a_few_rows_and_not_in_memory(videos, processor, tmp_path, small_shards):
    prepared = prepare_frames(videos, processor, 5, tmp_path / "new")
    (place,) = (tmp_path / "new").iterdir()
    files = [Path(entry["filename"]) for entry in prepared.cache_files]
    assert {*files, place / "settings.json"} == set(files_of(place)) and rows_of(files) == [0, 2, 4, 6]
    assert all(isinstance(block, datasets.table.MemoryMappedTable) for row in prepared.data.blocks for block in row)
    settings = json.loads((place / "settings.json").read_text())
    assert (settings["candidates"], settings["encoding"], settings["rows"]) == (5, "raw", 8)
    assert settings["frames"] == {"shortest_edge": 16, "size": None, "mode": "bicubic", "crop": [16, 16]}


def test_many_rows_make_no_more_files_than_allowed(videos, processor, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared_frames, "_ROWS_PER_SHARD", 1)
    monkeypatch.setattr(prepared_frames, "_MOST_SHARDS", 3)
    prepared = prepare_frames(videos, processor, 2, tmp_path)
    assert len(prepared.cache_files) == 3 and len(prepared) == 8


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_call_does_not_decode(videos, processor, tmp_path, monkeypatch, workers):
    first = prepare_frames(videos, processor, 5, tmp_path)
    before = files_of(tmp_path)
    monkeypatch.setattr(row_reading, "read_frames", lambda *_, **__: pytest.fail("decoded again"))
    again = prepare_frames(videos, processor, 5, tmp_path, num_workers=workers)
    assert again[:] == first[:] and before == files_of(tmp_path)


def test_other_settings_are_another_folder(videos, processor, tmp_path, decoded):
    def count():
        decoded.clear()
        return len(list(tmp_path.iterdir()))

    prepare_frames(videos, processor, 5, tmp_path)
    assert len(decoded) == 8 and count() == 1
    prepare_frames(videos, processor, 6, tmp_path)
    assert len(decoded) == 8 and count() == 2
    larger = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    assert prepare_frames(videos, HCMIProcessor(larger, processor.tokenizer), 5, tmp_path)[0]["shape"][-1] == 24
    assert len(decoded) == 8 and count() == 3
    prepare_frames(videos.select(range(3)), processor, 5, tmp_path)
    assert len(decoded) == 3 and count() == 4
    stretch = videos.remove_columns("end").add_column("end", [1.0] * 8)
    assert prepare_frames(stretch, processor, 5, tmp_path)[0]["span"] == [0.0, 1.0]
    assert len(decoded) == 8 and count() == 5
    prepare_frames(videos, processor, 5, tmp_path, encoding="jpeg")
    assert len(decoded) == 8 and count() == 6
    prepare_frames(videos, processor, 5, tmp_path)
    assert not decoded


def test_mean_and_deviation_do_not_matter(videos, processor, tmp_path, decoded):
    prepare_frames(videos, processor, 5, tmp_path)
    decoded.clear()
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    other = CLIPImageProcessor(**size, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    prepare_frames(videos, HCMIProcessor(other, processor.tokenizer), 5, tmp_path)
    assert not decoded


def test_a_data_set_without_stretches_means_whole_files(videos, processor, tmp_path):
    bare = videos.select_columns(["video_id", "video"])
    assert prepare_frames(bare, processor, 5, tmp_path)[:] == prepare_frames(videos, processor, 5, tmp_path)[:]


def test_a_killed_call_is_gone_on_with(videos, processor, tmp_path, small_shards, decoded):
    processor.save_pretrained(tmp_path / "processor")
    videos.save_to_disk(tmp_path / "data")
    saved, folder = datasets.load_from_disk(tmp_path / "data"), tmp_path / "prepared"
    program = [sys.executable, "-c", KILLED, str(tmp_path / "processor"), str(tmp_path / "data"), str(folder)]
    assert subprocess.run(program, capture_output=True).returncode == -signal.SIGKILL
    before = files_of(folder)
    assert rows_of(before) == [0, 2] and {file.suffix for file in before} == {".arrow", ".part", ".json"}
    prepared = prepare_frames(saved, processor, 5, folder)
    assert decoded == videos["video"][4:]
    after = files_of(folder)
    assert rows_of(after) == [0, 2, 4, 6] and {file.suffix for file in after} == {".arrow", ".json"}
    assert all(after[file] == time for file, time in before.items() if file.suffix == ".arrow")
    assert prepared[:] == prepare_frames(videos, processor, 5, tmp_path / "whole")[:]


def test_processes_store_what_comes_before_an_unreadable_video(videos, processor, tmp_path, small_shards, decoded):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    dataset = with_videos(videos, [*videos["video"][:-1], str(broken)])
    with pytest.raises(VideoReadError) as error:
        prepare_frames(dataset, processor, 5, tmp_path / "prepared", num_workers=2)
    assert error.value.name == str(broken) and error.value.reason and "Traceback" not in str(error.value)
    assert not decoded
    shutil.copy(videos["video"][-1], broken)
    repaired = prepare_frames(dataset, processor, 5, tmp_path / "prepared")
    assert decoded == [videos["video"][6], str(broken)]
    assert repaired[:] == prepare_frames(videos, processor, 5, tmp_path / "whole")[:]


def test_rows_before_an_unreadable_one_are_kept(videos, processor, tmp_path, small_shards, decoded):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    dataset = with_videos(videos, [*videos["video"][:5], str(broken), *videos["video"][6:]])
    for count in (6, 2):  # the second time from the first row that is not stored
        decoded.clear()
        with pytest.raises(VideoReadError, match=r"broken\.mp4"):
            prepare_frames(dataset, processor, 5, tmp_path / "prepared")
        assert len(decoded) == count


def test_another_file_under_the_same_path_is_prepared_anew(videos, processor, tmp_path, small_shards, decoded):
    paths = [shutil.copy(video, tmp_path) for video in videos["video"]]
    dataset, folder = with_videos(videos, paths), tmp_path / "prepared"
    old = prepare_frames(dataset, processor, 5, folder)[:]["frames"]
    before = files_of(folder)
    shutil.copy(videos["video"][0], paths[5])
    decoded.clear()
    new = prepare_frames(dataset, processor, 5, folder)[:]["frames"]
    assert decoded == paths[4:6]
    assert new[5] == new[0] and [*new[:5], *new[6:]] == [*old[:5], *old[6:]]
    assert rows_of(files_of(folder)) == [0, 2, 4, 6] and len(files_of(folder).keys() & before.keys()) == 4


def test_two_calls_take_turns(videos, processor, tmp_path, monkeypatch, capsys):
    prepare_frames(videos, processor, 5, tmp_path)
    (place,) = tmp_path.iterdir()
    (file,) = place.glob("rows-*.arrow")
    file.unlink()
    said = []
    with FileLock(place / ".lock"):
        second = threading.Thread(target=prepare_frames, args=(videos, processor, 5, tmp_path))
        second.start()
        while "waiting for the process" not in "".join(said):
            said.append(capsys.readouterr().out)
            assert second.is_alive()
            time.sleep(0.01)
        assert not file.exists()
    second.join()
    assert file.exists()


def test_speed_and_size_are_told(videos, processor, tmp_path, capsys, small_shards):
    prepare_frames(videos, processor, 5, tmp_path)
    printed = capsys.readouterr()
    assert "8/8" in printed.err and "video/s" in printed.err and "B/s" in printed.err
    (place,) = tmp_path.iterdir()
    size = sum(file.stat().st_size for file in files_of(place)) / 1000
    assert f"8 rows, {size:.1f}kB on disk" in printed.out and str(place) in printed.out
    prepare_frames(videos, processor, 5, tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")


def test_frames_lie_beside_the_data_set_unless_told(videos):
    assert str(frame_folder(videos.select([1]))) in videos.cache_files[0]["filename"]
    with pytest.raises(ValueError, match="name a folder"):
        frame_folder(datasets.Dataset.from_dict({"video": ["a.mp4"]}))


def test_impossible_wishes_are_named(videos, processor, tmp_path):
    with pytest.raises(ValueError, match="raw, jpeg, not 'png'"):
        prepare_frames(videos, processor, 5, tmp_path, encoding="png")
    with pytest.raises(ValueError, match="not 0 of 8"):
        prepare_frames(videos, processor, 0, tmp_path)
    with pytest.raises(ValueError, match="not 5 of 0"):
        prepare_frames(videos.select([]), processor, 5, tmp_path)
    assert not list(tmp_path.iterdir())
