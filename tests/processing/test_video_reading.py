import io
import json
import os
import random
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from slow_server import serve
from torch.utils.data import DataLoader, Dataset
from videos import VideoOf, copy_packets, decode_everything, picture, shown_at

from hcmi.processing import VideoReadError, probe_video, read_frames
from hcmi.processing.frame_sampling import segment_times

CLIPS = os.environ.get("HCMI_CLIPS")


def middles(start: float, end: float) -> list[float]:
    return segment_times(start, end, 12)


def test_frames_of_any_source_are_the_same(h264, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    content = h264.read_bytes()
    expected = read_frames(h264, middles)
    assert expected.frames.shape == (12, 3, 64, 96)
    with h264.open("rb") as opened, serve(content) as address:
        sources = [str(h264), h264.as_uri(), content, opened, f"{address}/video", {"path": None, "bytes": content}]
        for source in sources:
            read = read_frames(source, middles)
            assert torch.equal(read.frames, expected.frames)
            assert torch.equal(read.timestamps, expected.timestamps)


def test_frames_come_in_the_order_in_which_they_are_shown_each_once(h264):
    everything = decode_everything(h264)
    times = [2.0, 0.1, 1.0, 0.11, 1.0]
    read = read_frames(h264, times)
    assert read.frames.dtype == torch.uint8
    assert read.timestamps.dtype == torch.float64
    assert read.timestamps.tolist() == pytest.approx([0.08, 1.0, 2.0])
    assert read.shown.tolist() == [2, 0, 1, 0, 1]
    for time, index in zip(times, read.shown, strict=True):
        assert torch.equal(read.frames[index], shown_at(everything, time)[1])


def test_the_stretch_and_the_video_are_told(h264):
    asked = []

    def times(start: float, end: float) -> list[float]:
        asked.append((start, end))
        return middles(start, end)

    read = read_frames(h264, times, start=0.5, end=1.5)
    assert asked == [(0.5, 1.5)]
    assert read.span == (0.5, 1.5)
    assert read.timestamps[0] >= 0.5 - 0.04
    assert read.timestamps[-1] < 1.5
    info = read.info
    assert (info.name, info.start, info.frames) == (str(h264), 0.0, 60)
    assert (info.end, info.duration, info.frame_rate) == pytest.approx((2.4, 2.4, 25.0))
    assert (info.size, info.codec) == ((96, 64), "h264")
    assert "mp4" in info.container
    assert probe_video(h264) == info


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [
        (None, None, (0.0, 2.4)),
        (0, 2, (0.0, 2.0)),
        (1.0, None, (1.0, 2.4)),
        (None, 1.0, (0.0, 1.0)),
        (0.0, 3.3, (0.0, 2.4)),  # annotations are rounded
        (2.39, 3.0, (2.39, 2.4)),
    ],
)
def test_the_stretch_looked_at(h264, start, end, span):
    assert read_frames(h264, middles, start=start, end=end).span == pytest.approx(span)


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (2.4, None, "from 2.4 s on, but it lasts from 0 s to 2.4 s"),
        (3.0, 4.0, "from 3 s to 4 s, but it lasts"),
        (-0.5, 1.0, "from -0.5 s to 1 s, but it lasts"),
        (0.0, 3.5, "from 0 s to 3.5 s, but it lasts"),
        (1.0, 1.0, "start=1 s is not before end=1 s"),
        (2.0, 1.0, "start=2 s is not before end=1 s"),
        (None, 0.0, "start=0 s is not before end=0 s"),
        (float("nan"), None, "finite"),
        (0.0, float("inf"), "finite"),
    ],
)
def test_a_stretch_that_is_not_there_is_refused(h264, start, end, reason):
    with pytest.raises(VideoReadError) as caught:
        read_frames(h264, middles, start=start, end=end)
    assert caught.value.name == str(h264)
    assert reason in caught.value.reason


def test_a_video_that_begins_later_than_its_sound(h264, tmp_path):
    path = copy_packets(h264, tmp_path / "a.mp4", 0.5, silence=60, avoid_negative_ts="disabled")
    assert read_frames(path, middles).span == pytest.approx((0.5, 2.9))
    read = read_frames(path, [0.1, 0.6], start=0.0, end=1.0)
    assert read.span == (0.0, 1.0)
    assert read.timestamps.tolist() == pytest.approx([0.5, 0.58])


@pytest.mark.parametrize("times", [[], [float("nan")], [0.1, float("inf")]])
def test_times_that_are_none(h264, times):
    with pytest.raises(ValueError, match="times must be finite"):
        read_frames(h264, times)


def test_times_outside_mean_the_first_and_the_last_frame(h264):
    read = read_frames(h264, [-5.0, 99.0])
    assert read.timestamps.tolist() == pytest.approx([0.0, 2.36])


def test_frames_in_memory_last_as_their_rate_says():
    frames = torch.stack([torch.from_numpy(picture(number)).permute(2, 0, 1) for number in range(10)])
    read = read_frames(frames, [0.0, 1.24, 1.25, 4.99], input_fps=2.0)
    assert read.info.end == 5.0
    assert read.info.frames == 10
    assert read.timestamps.tolist() == [0.0, 1.0, 4.5]
    assert torch.equal(read.frames, frames[[0, 2, 9]])
    assert probe_video(frames).duration == 10.0
    images = [Image.fromarray(picture(number)) for number in range(10)]
    assert torch.equal(read_frames(images, [0.0, 4.99], input_fps=2.0).frames, frames[[0, 9]])


def test_frames_in_memory_keep_to_the_limits_and_are_named():
    with pytest.raises(VideoReadError, match=r"frames of shape \(2, 3, 64, 96\): frames of 96 x 64 pixels"):
        read_frames(torch.zeros(2, 3, 64, 96), [0.0], max_frame_pixels=1000)
    with pytest.raises(VideoReadError, match=r"frames of 5000 x 2 pixels; the limit is 100 to 1"):
        read_frames([Image.new("RGB", (5000, 2))], [0.0])
    with pytest.raises(VideoReadError, match=r"frames of shape \(2, 3, 8, 8\): .*between 0 and 1"):
        read_frames(torch.full((2, 3, 8, 8), 2.0), [0.0])
    with pytest.raises(VideoReadError, match=r"frames in memory: .*layout"):
        read_frames(np.zeros((8, 8, 3), np.uint8), [0.0])
    with pytest.raises(VideoReadError, match="frames in memory: frames a second"):
        read_frames(torch.zeros(2, 3, 8, 8), [0.0], input_fps=0.0)


def test_frames_of_several_sizes_need_something_that_makes_them_equal():
    images = [Image.new("RGB", (8, 6)), Image.new("RGB", (9, 6))]
    with pytest.raises(VideoReadError, match="pass a `convert`"):
        read_frames(images, [0.0, 1.0])
    read = read_frames(images, [0.0, 1.0], convert=lambda frame: frame[:, :5, :5])
    assert read.frames.shape == (2, 3, 5, 5)


def test_limits_hold(h264):
    with pytest.raises(VideoReadError, match="the limit is 6000 pixels"):
        read_frames(h264, middles, max_frame_pixels=6000)
    with pytest.raises(VideoReadError, match="longer than the limit of 1 s"):
        probe_video(h264, max_duration=1.0)


def test_an_unknown_backend(h264):
    with pytest.raises(ValueError, match="backend must be"):
        read_frames(h264, middles, backend="opencv")


def cut_in_the_middle(path: Path, target: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    target.write_bytes(content)
    return target


def test_a_broken_file_gives_what_can_be_read_with_one_warning_or_raises(h264, tmp_path):
    path = cut_in_the_middle(h264, tmp_path / "broken.mp4")
    with pytest.warns(UserWarning) as caught:
        read = read_frames(path, middles)
    assert len(caught) == 1
    assert str(caught[0].message).startswith(f"{path}: broken: ")
    assert caught[0].filename == __file__
    assert torch.equal(read.frames[0], shown_at(decode_everything(h264), 0.1)[1])
    with pytest.raises(VideoReadError, match=r"broken.mp4: broken: "):
        read_frames(path, middles, strict=True)


def test_a_download_that_broke_off(video_of: VideoOf, tmp_path):
    path = tmp_path / "part.webm"
    path.write_bytes(video_of("vp9").read_bytes()[:12_000])
    with pytest.warns(UserWarning, match=r"part.webm: broken: it ends after .* of 2.40 s"):
        read = read_frames(path, middles)
    assert read.info.end < 1.4
    with pytest.raises(VideoReadError, match="it ends after"):
        read_frames(path, middles, strict=True)


class Failing(io.BytesIO):
    """A file on a line that dies after so many reads."""

    name = "remote.mp4"

    def __init__(self, content: bytes, reads: int):
        super().__init__(content)
        self.reads = reads

    def read(self, size: int | None = -1) -> bytes:
        self.reads -= 1
        if self.reads < 0:
            raise OSError("the line is dead")
        return super().read(4096 if size else 0)


def test_a_file_object_that_fails_on_the_way_is_named(h264):
    outcomes = []
    for reads in range(1, 60, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_frames(Failing(h264.read_bytes(), reads), middles)
                outcomes.append("read")
            except VideoReadError as error:
                assert error.name == "remote.mp4"
                outcomes.append("refused")
    assert outcomes[0] == "refused"
    assert outcomes[-1] == "read"


_READ_ALL = """
import sys, threading, warnings
warnings.simplefilter("ignore")
import torch
from hcmi.processing import VideoReadError, read_frames
torch.set_num_threads(2)

def read(name):
    for backend in ("pyav", "auto"):
        for strict in (False, True):
            try:
                read_frames(name, lambda a, b: [a, (a + b) / 2, b], backend=backend, strict=strict)
            except VideoReadError:
                pass

threads = [threading.Thread(target=read, args=(name,)) for name in sys.argv[1:]]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("done")
"""


def test_ffmpeg_says_nothing_about_broken_files(video_of: VideoOf, tmp_path):
    names = [
        "h264",
        "h264 mkv",
        "h264 ts",
        "h264 avi",
        "hevc",
        "vp9",
        "av1",
        "mpeg4 avi b frames",
        "mjpeg odd size",
        "gif",
    ]
    broken = [
        cut_in_the_middle(video_of(name), tmp_path / f"{i}{video_of(name).suffix}") for i, name in enumerate(names)
    ]
    broken += [tmp_path / "cut.mp4", tmp_path / "text.mp4", tmp_path / "zeros.avi"]
    broken[-3].write_bytes(video_of("h264").read_bytes()[:9000])
    broken[-2].write_text("A sentence. " * 500)
    broken[-1].write_bytes(bytes(5000))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _READ_ALL, *map(str, broken)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.stderr == ""
    assert done.stdout == "done\n"
    assert done.returncode == 0


class Clips(Dataset):
    """Videos read in a worker process."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return read_frames(self.paths[index], middles).frames


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_workers_of_a_data_loader_read_and_their_errors_arrive(h264, context, tmp_path):
    expected = read_frames(h264, middles).frames
    loader = DataLoader(Clips([h264, h264]), batch_size=None, num_workers=1, multiprocessing_context=context)
    assert all(torch.equal(frames, expected) for frames in loader)
    if context == "fork":
        bad = DataLoader(
            Clips([tmp_path / "missing.mp4"]), batch_size=None, num_workers=1, multiprocessing_context=context
        )
        with pytest.raises(VideoReadError, match=r"missing.mp4: No such file"):
            list(bad)


def test_threads_read_side_by_side(video_of: VideoOf):
    paths = [video_of(name) for name in ("h264", "vp9", "hevc", "mpeg4 avi", "h264 uneven times")]
    expected = [read_frames(path, middles).frames for path in paths]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda path: read_frames(path, middles).frames, paths * 4))
    assert all(torch.equal(frames, expected[i % len(paths)]) for i, frames in enumerate(read))


@pytest.mark.skipif(not CLIPS, reason="HCMI_CLIPS names no folder of real clips")
def test_real_clips_are_all_read_exactly():
    folder = Path(str(CLIPS))
    clips = sorted(json.loads((folder / "captions.json").read_text()))
    assert clips
    for number, name in enumerate(clips):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read = read_frames(folder / name, middles, strict=True)
        assert read.frames.shape[0] == 12
        assert read.info.frames == len(decode_times(folder / name))
        assert len({frame.numpy().tobytes() for frame in read.frames}) > 6  # not one still picture
        if number % 12 == 0:
            counted = name.endswith(".avi")
            everything = decode_everything(folder / name, rate=1 if counted else None)
            shots = read.timestamps.tolist()
            for begin, frame in zip(shots, read.frames, strict=True):
                index = round(begin / read.info.duration * len(everything))
                expected = everything[index][1] if counted else shown_at(everything, begin + 1e-4)[1]
                assert torch.equal(frame, expected)


def decode_times(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [packet.dts for packet in container.demux(video=0) if packet.size]


def test_many_random_times_of_a_file_with_uneven_times(video_of: VideoOf):
    path = video_of("h264 uneven times")
    everything = decode_everything(path)
    draw = random.Random(0)
    times = [draw.uniform(0, everything[-1][0]) for _ in range(500)]
    read = read_frames(path, times)
    for time, index in zip(times, read.shown, strict=True):
        begin, frame = shown_at(everything, time)
        assert read.timestamps[index].item() == pytest.approx(begin, abs=2e-6)
        assert torch.equal(read.frames[index], frame)
