import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from videos import RECIPES, Recipe, VideoOf, copy_packets, write_video

from hcmi.processing import VideoReadError, probe_video, read_frames, video_torchcodec
from hcmi.processing.frame_sampling import frames_at, segment_times
from hcmi.processing.video_decoding import EncodedReader

needs_torchcodec = pytest.mark.skipif(
    not video_torchcodec.torchcodec_usable(), reason="torchcodec is not installed, or FFmpeg's libraries are missing"
)


class Decoder:
    """What is used of a torchcodec decoder, over frames in memory: frame i begins at `begins[i]`."""

    def __init__(self, frames: torch.Tensor, begins: list[float], end: float, channels_last: bool = False):
        self.frames, self.begins, self.end, self.channels_last = frames, begins, end, channels_last
        self.asked: list[list[float]] = []
        self.metadata = SimpleNamespace(
            path="a.mp4",
            width=frames.shape[-1],
            height=frames.shape[-2],
            begin_stream_seconds=begins[0],
            end_stream_seconds=end,
            num_frames=len(begins),
            codec="h264",
        )

    def get_frames_played_at(self, seconds: list[float]) -> SimpleNamespace:
        self.asked.append(seconds)
        if not all(self.begins[0] <= second < self.end for second in seconds):
            raise IndexError("outside of the stream")
        indices = frames_at(self.begins, seconds)
        data = self.frames[indices].permute(0, 2, 3, 1) if self.channels_last else self.frames[indices]
        return SimpleNamespace(pts_seconds=torch.tensor([self.begins[i] for i in indices]).double(), data=data)


FRAMES = torch.randint(0, 256, (8, 3, 6, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_decoder_is_read_by_time_from_its_first_frame_on(channels_last):
    decoder = Decoder(FRAMES, [1.5 + 0.5 * i for i in range(8)], 5.5, channels_last)
    read = read_frames(decoder, [0.0, 0.6, 3.99, -1.0, 9.0])
    assert read.timestamps.tolist() == [0.0, 0.5, 3.5]
    assert torch.equal(read.frames, FRAMES[[0, 1, 7]])
    assert read.shown.tolist() == [0, 1, 2, 0, 2]
    assert (read.info.start, read.info.end, read.info.frames, read.info.size) == (0.0, 4.0, 8, (10, 6))
    assert read.info.name == "torchcodec decoder of a.mp4"
    assert probe_video(decoder) == read.info


def test_a_decoder_is_asked_for_few_large_frames_at_a_time(monkeypatch):
    monkeypatch.setattr(video_torchcodec, "_BYTES_AT_A_TIME", 2 * 3 * 6 * 10)
    decoder = Decoder(FRAMES, [float(i) for i in range(8)], 8.0)
    assert torch.equal(read_frames(decoder, [0.5, 1.5, 2.5, 3.5, 4.5]).frames, FRAMES[:5])
    assert [len(seconds) for seconds in decoder.asked] == [2, 2, 1]


def test_a_decoder_keeps_to_the_limits_and_its_errors_have_its_name():
    decoder = Decoder(FRAMES, [float(i) for i in range(8)], 8.0)
    with pytest.raises(VideoReadError, match="limit is 50 pixels"):
        read_frames(decoder, [0.0], max_frame_pixels=50)
    with pytest.raises(VideoReadError, match="limit of 2 s"):
        read_frames(decoder, [0.0], max_duration=2.0)
    with pytest.raises(VideoReadError, match="zero duration"):
        read_frames(Decoder(FRAMES[:1], [0.0], 0.0), [0.0])
    decoder.get_frames_played_at = lambda seconds: (_ for _ in ()).throw(RuntimeError("cannot decode"))
    with pytest.raises(VideoReadError, match=r"torchcodec decoder of a.mp4: cannot decode"):
        read_frames(decoder, [0.0])


def test_without_torchcodec(h264, monkeypatch):
    monkeypatch.setattr(video_torchcodec, "VideoDecoder", None)
    assert not video_torchcodec.torchcodec_usable()
    with pytest.raises(ImportError, match='backend="torchcodec" needs the package torchcodec'):
        read_frames(h264, [0.5], backend="torchcodec")
    assert torch.equal(read_frames(h264, [0.5]).frames, read_frames(h264, [0.5], backend="pyav").frames)


class StandIn:
    """Takes torchcodec's place; counts how often it is opened, and fails as it is told."""

    def __init__(self, decoder: Decoder | Exception):
        self.decoder, self.opened = decoder, 0

    def __call__(self, *arguments: object, **options: object) -> Decoder:
        self.opened += 1
        if isinstance(self.decoder, Exception):
            raise self.decoder
        return self.decoder


@pytest.mark.parametrize(
    "decoder",
    [
        RuntimeError("no FFmpeg that knows this"),
        Decoder(FRAMES, [0.011 + 0.04 * i for i in range(8)], 9.0),  # other frames than those of the file
        Decoder(FRAMES, [0.0, 0.04], 0.08),
    ],
)
def test_what_torchcodec_cannot_read_pyav_reads(decoder, h264, monkeypatch):
    monkeypatch.setattr(video_torchcodec, "VideoDecoder", StandIn(decoder))
    read = read_frames(h264, [0.5, 1.5], backend="torchcodec")
    assert video_torchcodec.VideoDecoder.opened == 1
    assert torch.equal(read.frames, read_frames(h264, [0.5, 1.5], backend="pyav").frames)


def test_torchcodec_is_not_asked_where_it_would_be_wrong_or_keep_quiet(h264, video_of: VideoOf, monkeypatch):
    monkeypatch.setattr(video_torchcodec, "VideoDecoder", StandIn(RuntimeError()))
    read_frames(h264, [0.5], backend="torchcodec", strict=True)
    read_frames(video_of("h264 avi"), [0.5], backend="torchcodec")
    assert video_torchcodec.VideoDecoder.opened == 0


def test_frames_come_from_torchcodec(h264, monkeypatch):
    frames = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 3, 64, 96)
    monkeypatch.setattr(video_torchcodec, "VideoDecoder", StandIn(Decoder(frames, [i / 25 for i in range(60)], 2.4)))
    for backend in ("torchcodec", "auto"):
        read = read_frames(h264, [0.5, 2.39, 0.5], backend=backend)
        assert read.frames[:, 0, 0, 0].tolist() == [12, 59]
        assert read.timestamps.tolist() == pytest.approx([0.48, 2.36])
    assert video_torchcodec.VideoDecoder.opened == 2


def both(path: Path, times: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same frames through PyAV and through torchcodec."""
    by_pyav, by_torchcodec = (read_frames(path, times, backend=backend) for backend in ("pyav", "torchcodec"))
    assert torch.equal(by_pyav.timestamps, by_torchcodec.timestamps)
    assert torch.equal(by_pyav.shown, by_torchcodec.shown)
    return by_pyav.frames, by_torchcodec.frames


# Where other versions of FFmpeg's scaler find other colours between two pixels that share one.
COLOURS_DIFFER = {"h264 10-bit", "hevc 10-bit", "h264 interlaced"}
# What torchcodec reads itself, whatever the times; for some of the others it needs PyAV's help.
WITHOUT_HELP = {"h264", "h264 mkv", "h264 fragments", "hevc", "vp9", "av1", "mpeg4 mp4"}


@needs_torchcodec
@pytest.mark.parametrize("name", RECIPES)
def test_torchcodec_gives_the_frames_that_pyav_gives(name, video_of: VideoOf, monkeypatch):
    path = video_of(name)
    end = probe_video(path).end
    draw = random.Random(name)
    for _ in range(3):
        first, second = both(path, [draw.uniform(0, end) for _ in range(4)])
        if name in WITHOUT_HELP:
            with monkeypatch.context() as patch:
                patch.delattr(EncodedReader, "read")
                read_frames(path, [draw.uniform(0, end)], backend="torchcodec")
        if name in COLOURS_DIFFER:
            grey, other = (frames.float().mean(1) for frames in (first, second))
            assert (grey - other).abs().mean() < 4
        else:
            assert torch.equal(first, second)


@needs_torchcodec
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_torchcodec_turns_frames_as_pyav_does(degrees, tmp_path):
    path = write_video(tmp_path / "a.mp4", Recipe(frames=5, rotation=(degrees, False)))
    assert torch.equal(*both(path, [0.0, 0.1]))


@needs_torchcodec
def test_torchcodec_and_times_that_do_not_begin_at_zero(h264, tmp_path):
    late = copy_packets(h264, tmp_path / "late.mp4", 0.5, silence=60, avoid_negative_ts="disabled")
    edited = copy_packets(h264, tmp_path / "edited.mp4", -0.4, avoid_negative_ts="disabled", use_editlist="1")
    for path in (late, edited):
        assert torch.equal(*both(path, [0.6, 1.0, 1.7]))


@needs_torchcodec
def test_bytes_and_file_objects_through_torchcodec(h264):
    expected = read_frames(h264, [0.5, 1.5], backend="pyav").frames
    with h264.open("rb") as opened:
        for source in (h264.read_bytes(), opened):
            assert torch.equal(read_frames(source, [0.5, 1.5], backend="torchcodec").frames, expected)


@needs_torchcodec
def test_a_torchcodec_decoder_as_a_video(h264):
    decoder = video_torchcodec.VideoDecoder(str(h264))
    read = read_frames(decoder, lambda start, end: segment_times(start, end, 12))
    expected = read_frames(h264, lambda start, end: segment_times(start, end, 12), backend="pyav")
    assert torch.equal(read.frames, expected.frames)
    assert read.timestamps.tolist() == pytest.approx(expected.timestamps.tolist())
    assert read.span == pytest.approx(expected.span)
