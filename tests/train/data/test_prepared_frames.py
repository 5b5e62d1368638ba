import shutil

import datasets
import pytest
import torch
from transformers import CLIPImageProcessor

from hcmi.processing import HCMIProcessor, VideoReadError
from hcmi.train.data import row_reading
from hcmi.train.data.frame_sources import FileFrames
from hcmi.train.data.prepared_frames import prepare_frames, prepared_row


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


def test_each_row_holds_the_middle_frames_of_its_segments(videos, processor, tmp_path):
    prepared = prepare_frames(videos, processor, 6, tmp_path)
    source = FileFrames(processor, videos, 6)
    assert len(prepared) == len(videos)
    for row in range(len(videos)):
        frames, timestamps, span = prepared_row(prepared, row)
        assert torch.equal(frames, source(row).frames)
        assert timestamps == source(row).timestamps.tolist() and span == source(row).span
        frames += 1  # no view of the file


def test_the_rows_lie_in_one_file_and_not_in_memory(videos, processor, tmp_path):
    prepared = prepare_frames(videos, processor, 5, tmp_path / "new")
    files = list((tmp_path / "new").iterdir())
    assert [str(file) for file in files] == [entry["filename"] for entry in prepared.cache_files]
    assert len(files) == 1 and isinstance(prepared.data, datasets.table.MemoryMappedTable)


@pytest.mark.parametrize("workers", [(1, 1), (2, 2), (2, 1), (1, 2)])
def test_a_second_call_does_not_decode(videos, processor, tmp_path, monkeypatch, workers):
    first = prepare_frames(videos, processor, 5, tmp_path, workers[0])
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    monkeypatch.setattr(row_reading, "read_frames", lambda *_, **__: pytest.fail("decoded again"))
    again = prepare_frames(videos, processor, 5, tmp_path, workers[1])
    assert again[:] == first[:]
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}


def test_other_settings_are_another_file(videos, processor, tmp_path, decoded):
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
    prepare_frames(videos, processor, 5, tmp_path)
    assert not decoded


def test_two_processes_prepare_what_one_does(videos, processor, tmp_path):
    one = prepare_frames(videos, processor, 5, tmp_path / "one")
    two = prepare_frames(videos, processor, 5, tmp_path / "two", num_workers=2)
    assert one[:] == two[:]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreadable_video_is_named_and_taken_up_when_it_is_repaired(videos, processor, tmp_path, workers):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    paths = [*videos["video"][:-1], str(broken)]
    dataset = videos.remove_columns("video").add_column("video", paths)
    with pytest.raises(VideoReadError, match=r"broken\.mp4"):
        prepare_frames(dataset, processor, 5, tmp_path / "prepared", workers)
    shutil.copy(videos["video"][-1], broken)
    repaired = prepare_frames(dataset, processor, 5, tmp_path / "prepared", workers)
    assert repaired[:] == prepare_frames(videos, processor, 5, tmp_path / "whole")[:]


def test_another_file_under_the_same_path_is_prepared_anew(videos, processor, tmp_path, decoded):
    path = tmp_path / "video.mp4"
    dataset = videos.select([0]).remove_columns("video").add_column("video", [str(path)])
    shutil.copy(videos["video"][0], path)
    old = prepare_frames(dataset, processor, 5, tmp_path / "prepared")[0]
    shutil.copy(videos["video"][1], path)
    new = prepare_frames(dataset, processor, 5, tmp_path / "prepared")[0]
    assert len(decoded) == 2
    assert old["frames"] != new["frames"]


def test_preparing_leaves_the_training_its_threads(videos, processor, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        prepare_frames(videos, processor, 5, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
