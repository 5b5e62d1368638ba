"""What a run says of its readers: how long it waits for them, and at which file one of them died or hung."""

import multiprocessing
import re

import pytest
from written_frames import DeadlyFiles, EndlessFiles

from hcmi.train import run_data
from hcmi.train.data.shape_stories import load_shape_stories

pytestmark = pytest.mark.usefixtures("no_picture")

DECODED = {"num_workers": 1, "candidate_frames": 0, "frame_store": "none"}


@pytest.mark.parametrize(
    ("frames", "message"),
    [(DeadlyFiles, "the process that read {} ended"), (EndlessFiles, "{} was not read within 2 seconds")],
)
def test_a_reader_that_dies_or_hangs_ends_the_run_with_the_file(run, stories, monkeypatch, tmp_path, frames, message):
    row = load_shape_stories(stories, "train")[5]
    video = f"video {row['video_id']!r} (row 5, file {row['video']})"
    monkeypatch.setattr(run_data, "FileFrames", frames)
    with pytest.raises(ChildProcessError, match=re.escape(message.format(video))):
        run(tmp_path, reader_timeout=2.0, **DECODED)
    for process in multiprocessing.active_children():
        process.join(30)
        assert process.exitcode is not None


def test_every_epoch_tells_what_the_run_waited_for(run, tmp_path, capsys):
    run(tmp_path, choose="last", num_workers=1)
    out = capsys.readouterr().out
    told = re.findall(r"epoch (\d)/2: (\d+) % of the time waiting for data, (\d+) % for the steps", out)
    assert [epoch for epoch, *_ in told] == ["1", "2"]
    assert all(99 <= int(waiting) + int(steps) <= 101 for _, waiting, steps in told)
