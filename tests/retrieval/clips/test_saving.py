import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from videos import RECIPES, Recipe, decode_everything, picture, write_video

from hcmi.processing.video_reading import VideoReadError, probe_video, read_frames
from hcmi.retrieval.clips import saving
from hcmi.retrieval.clips.saving import save_clip
from hcmi.train.data import shape_stories_rendering
from hcmi.train.data.shape_stories_world import sample_stories

LOUD = 2.0
"""From this second on the sound of `write_sounding` is loud."""


def made(folder: Path, name: str) -> Path:
    return write_video(folder / f"source{RECIPES[name].suffix}", RECIPES[name])


def between(source: Path, start: float, end: float) -> list:
    """The source's frames shown between two seconds: when each begins, and the frame."""
    frames = decode_everything(source)
    following = [time for time, _ in frames[1:]] + [np.inf]
    return [shot for shot, over in zip(frames, following, strict=True) if over > start + 1e-9 and shot[0] < end - 1e-9]


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.float() - b.float()).abs().mean().item()


def assert_shows(clip: Path, expected: list, begin: float) -> None:
    """The clip's frames are those, at their times, each nearer to its own than to any other frame."""
    frames = decode_everything(clip)
    assert len(frames) == len(expected)
    for number, (time, pixels) in enumerate(frames):
        assert time == pytest.approx(expected[number][0] - begin, abs=1e-3)
        distances = [distance(pixels, other) for _, other in expected]
        assert int(np.argmin(distances)) == number
        assert distances[number] < 10


@pytest.mark.parametrize("kind", [".mp4", ".mkv"])
@pytest.mark.parametrize("name", ["h264", "h264 mkv", "h264 ts", "h264 open groups", "vp9", "h264 uneven times"])
def test_packets_are_copied_from_the_key_frame_before(tmp_path, name, kind):
    source = made(tmp_path, name)
    clip = save_clip(source, 1.0, 1.5, tmp_path / f"clip{kind}")
    assert clip.copied
    assert not clip.sound
    assert clip.path == tmp_path / f"clip{kind}"
    expected = between(source, clip.start, clip.end)
    assert 1.0 - saving.NEAR <= clip.start <= 1.0
    assert clip.start == pytest.approx(expected[0][0])
    assert 1.5 <= clip.end <= 1.5 + 0.3, "frames stored earlier than they are shown are let in by a few"
    frames = decode_everything(clip.path)
    assert len(frames) == len(expected)
    for (time, pixels), (own_time, own) in zip(frames, expected, strict=True):
        assert time == pytest.approx(own_time - clip.start, abs=2e-3)
        assert torch.equal(pixels, own)


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("h264 long groups", 3.0, 3.5),  # the key frame is three seconds before
        ("h264 long groups mkv", 8.0, 8.4),
        ("h264 raw", 1.0, 1.5),  # the file has no times
        ("mpeg4 avi b frames", 1.0, 1.5),
        ("wmv", 1.0, 1.5),  # no container for it
        ("h264 long groups", 13.0, 99.0),  # up to the end
    ],
)
def test_otherwise_exactly_the_stretch_is_encoded(tmp_path, name, start, end):
    recipe = RECIPES[name]
    clip = save_clip(made(tmp_path, name), start, end, tmp_path / "clip.mp4")
    assert not clip.copied
    first, last = round(start * recipe.rate), min(round(end * recipe.rate), recipe.frames) - 1
    assert (clip.start, clip.end) == pytest.approx((first / recipe.rate, (last + 1) / recipe.rate), abs=1e-3)
    frames = range(first, last + 1)
    expected = [(n / recipe.rate, torch.from_numpy(picture(n, recipe.size)).permute(2, 0, 1)) for n in frames]
    info = probe_video(clip.path)
    assert (info.codec, info.size) == ("h264", recipe.size)
    assert info.end == pytest.approx(clip.end - clip.start, abs=1e-3)
    frames = decode_everything(clip.path)
    assert [time for time, _ in frames] == pytest.approx([time - clip.start for time, _ in expected], abs=1e-3)
    for number, (_, pixels) in enumerate(frames):
        distances = [distance(pixels, other) for _, other in expected]
        assert int(np.argmin(distances)) == number


def test_uneven_times_stay_uneven(tmp_path):
    source = made(tmp_path, "h264 uneven times")
    clip = save_clip(source, 0.9, 1.6, tmp_path / "clip.mp4", copy=False)
    expected = between(source, 0.9, 1.6)
    assert (clip.copied, clip.start) == (False, pytest.approx(expected[0][0]))
    assert len({round(b[0] - a[0], 3) for a, b in pairwise(expected)}) > 5
    assert_shows(clip.path, expected, clip.start)


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("rotation", [(90, False), (180, False), (270, True), (0, True)])
@pytest.mark.parametrize("kind", [".mp4", ".mkv"])
def test_turned_pictures_stay_turned(tmp_path, rotation, copied, kind):
    source = write_video(tmp_path / "source.mp4", Recipe(rotation=rotation, frames=40))
    clip = save_clip(source, 0.8, 1.2, tmp_path / f"clip{kind}", copy=copied)
    assert clip.copied is copied
    times = [clip.start + 0.01, clip.end - 0.01]
    own, other = read_frames(source, times).frames, read_frames(clip.path, [t - clip.start for t in times]).frames
    assert own.shape == other.shape
    assert distance(own, other) < 8
    assert distance(own, other) < distance(own, other.flip(2)) / 2
    assert distance(own, other) < distance(own, other.flip(3)) / 2


def test_odd_sizes_colours_and_depths_are_brought_to_what_players_know(tmp_path):
    for name in ("h264 odd size", "h264 10-bit", "mjpeg odd size"):
        source = made(tmp_path, name)
        clip = save_clip(source, 0.4, 0.8, tmp_path / f"{name}.mp4", copy=False)
        with av.open(str(clip.path)) as container:
            assert container.streams.video[0].codec_context.pix_fmt in ("yuv420p", "yuvj420p")
        own, other = read_frames(source, [0.5]).frames.float(), read_frames(clip.path, [0.1]).frames.float()
        assert [side - side % 2 for side in own.shape[2:]] == list(other.shape[2:])
        torch.testing.assert_close(own.mean((2, 3)), other.mean((2, 3)), atol=3, rtol=0)


def test_videos_of_the_built_in_benchmark(tmp_path):
    (story, *_) = sample_stories(random.Random(3), 1, set())
    shape_stories_rendering.write_video(tmp_path / "story.mp4", story, (1, 2))
    info = probe_video(tmp_path / "story.mp4")
    start, end = info.duration * 0.4, info.duration * 0.7
    clip = save_clip(tmp_path / "story.mp4", start, end, tmp_path / "clip.mp4")
    assert_shows(clip.path, between(tmp_path / "story.mp4", clip.start, clip.end), clip.start)
    assert clip.start <= start < end <= clip.end + 1 / info.frame_rate


def write_sounding(path: Path, codec: str = "aac", group: int = 25, seconds: int = 4, offset: float = 0.0) -> Path:
    """Pictures with sound, silent up to the second `LOUD`; everything `offset` seconds later."""
    with av.open(str(path), "w") as container:
        frames = container.add_stream("libx264", rate=25, options={"sc_threshold": "0"})
        frames.width, frames.height, frames.pix_fmt, frames.gop_size = 96, 64, "yuv420p", group
        sound = container.add_stream(codec, rate=48000, layout="stereo")
        for number in range(25 * seconds):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number + round(offset * 25), Fraction(1, 25)
            container.mux(frames.encode(frame))
            wave = np.sin(np.arange(1920 * number, 1920 * (number + 1)) * 0.05) * 20000 * (number >= 25 * LOUD)
            samples = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None].astype(np.int16), "s16", "stereo")
            samples.sample_rate, samples.pts = 48000, 1920 * number + round(offset * 48000)
            container.mux(sound.encode(samples))
        container.mux(frames.encode(None))
        container.mux(sound.encode(None))
    return path


def loud_from(path: Path) -> tuple[float, float]:
    """The second at which the sound becomes loud, and the one at which it ends."""
    resampler = av.AudioResampler("fltp", "mono", 48000)
    with av.open(str(path)) as container:
        zero = (container.start_time or 0) / av.time_base
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    times = np.concatenate([frame.time - zero + np.arange(frame.samples) / 48000 for frame in frames])
    loud = np.abs(np.concatenate([frame.to_ndarray()[0] for frame in frames])) > 0.2
    return times[loud.argmax()], times[-1]


@pytest.mark.parametrize("kind", [".mp4", ".mkv"])
@pytest.mark.parametrize(("group", "copied"), [(25, True), (200, False)])
def test_sound_stays_with_the_picture(tmp_path, group, copied, kind):
    source = write_sounding(tmp_path / "source.mp4", group=group, seconds=5)
    clip = save_clip(source, 1.5 if copied else 2.5, 3.5, tmp_path / f"clip{kind}")
    assert (clip.copied, clip.sound) == (copied, True)
    begin, end = loud_from(clip.path)
    assert begin == pytest.approx(max(LOUD - clip.start, 0.0), abs=0.05)
    assert end == pytest.approx(clip.end - clip.start, abs=0.05)
    assert probe_video(clip.path).start == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("mp2", ".ts"), ("mp3", ".avi"), ("pcm_s16le", ".mkv"), ("flac", ".mkv")]
)
def test_sound_of_any_kind_is_encoded_where_the_picture_is(tmp_path, codec, suffix):
    source = write_sounding(tmp_path / f"source{suffix}", codec, offset=0.0 if suffix == ".avi" else 1.0)
    clip = save_clip(source, 1.0, 3.0, tmp_path / "clip.mp4", copy=False)
    assert (clip.copied, clip.sound) == (False, True)
    begin, end = loud_from(clip.path)
    assert begin == pytest.approx(loud_from(source)[0] - clip.start, abs=0.05)
    assert end == pytest.approx(clip.end - clip.start, abs=0.05)
    with av.open(str(clip.path)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"


def test_nothing_is_overwritten_and_mistakes_are_told(tmp_path):
    source = made(tmp_path, "h264")
    (tmp_path / "there.mp4").write_bytes(b"mine")
    for arguments, message in (
        ((0.5, 1.0, "there.mp4"), "already there"),
        ((0.5, 1.0, "clip.gif"), r"\.mp4"),
        ((1.0, 1.0, "clip.mp4"), "start before its end"),
        ((float("nan"), 1.0, "clip.mp4"), "start before its end"),
    ):
        with pytest.raises(ValueError, match=message):
            save_clip(source, *arguments[:2], tmp_path / arguments[2])
    for start, end in ((2.5, 3.0), (-2.0, 0.0)):
        with pytest.raises(VideoReadError, match=r"lasts from 0 s to 2\.4 s"):
            save_clip(source, start, end, tmp_path / "clip.mp4")
    assert (tmp_path / "there.mp4").read_bytes() == b"mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["source.mp4", "there.mp4"]


def test_broken_files_leave_nothing_behind(tmp_path):
    whole = made(tmp_path, "h264 long groups mkv").read_bytes()
    for name, content in (("cut.mkv", whole[:80]), ("text.mp4", b"no video" * 50), ("empty.mp4", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoReadError, match=name):
            save_clip(tmp_path / name, 0.5, 1.0, tmp_path / "clip.mp4")
    damaged = bytearray(made(tmp_path, "h264 long groups").read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 3000] = random.Random(0).randbytes(3000)
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    for start in (6.5, 7.0, 9.0):  # the packets could be copied, they could not, they cannot
        with pytest.raises(VideoReadError, match=r"damaged\.mp4.*decoding fails"):
            save_clip(tmp_path / "damaged.mp4", start, 9.2, tmp_path / "clip.mp4")
    with pytest.raises(VideoReadError, match=r"gone\.mp4"):
        save_clip(tmp_path / "gone.mp4", 0.5, 1.0, tmp_path / "clip.mp4")
    assert not list(tmp_path.glob("*clip*"))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_half_written_file_never_has_the_name(tmp_path, monkeypatch, stop):
    source = made(tmp_path, "h264")

    def write_half(*arguments):
        arguments[-1].write_bytes(b"half")
        raise stop

    monkeypatch.setattr(saving, "copy_clip", write_half)
    with pytest.raises(type(stop) if isinstance(stop, OSError) else stop):
        save_clip(source, 0.5, 1.0, tmp_path / "clip.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["source.mp4"]


def test_a_copy_that_does_not_begin_is_not_kept(tmp_path, monkeypatch):
    source = made(tmp_path, "h264")
    span = saving._span_to_copy

    def from_a_frame_that_is_no_key(index, wanted):
        key, stop = span(index, wanted)
        return key + 1, stop

    monkeypatch.setattr(saving, "_span_to_copy", from_a_frame_that_is_no_key)
    clip = save_clip(source, 1.0, 1.4, tmp_path / "clip.mp4")
    assert (clip.copied, clip.start, clip.end) == (False, pytest.approx(1.0), pytest.approx(1.4))
