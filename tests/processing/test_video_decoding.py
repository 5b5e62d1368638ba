import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from videos import RECIPES, Recipe, VideoOf, copy_packets, decode_everything, shown_at, write_video

from hcmi.processing import video_decoding
from hcmi.processing.video_decoding import EncodedReader
from hcmi.processing.video_index import open_stream
from hcmi.processing.video_sources import VideoReadError, open_source


def reader_of(path: Path | bytes, strict: bool = False, max_frame_pixels: int = 10**7) -> EncodedReader:
    return EncodedReader(open_source(path), strict, max_frame_pixels, 3600.0)


def same(frame: torch.Tensor) -> torch.Tensor:
    return frame


@pytest.fixture
def threads():
    """Sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names the passes that reading takes, as it takes them."""
    taken: list[str] = []

    def watch(name: str) -> None:
        original: Callable = getattr(EncodedReader, name)

        def watched(*arguments, **options):
            taken.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(EncodedReader, name, watched)

    watch("_read_planned")
    watch("_read_everything")
    return taken


# Where the frames of a stream are not where its packets say, and have to be found by decoding all of them.
WITHOUT_PLAN = {"h264 open groups", "h264 no key frames"} | {name for name, recipe in RECIPES.items() if recipe.counted}


@pytest.mark.parametrize("number_of_threads", [1, 3])
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.filterwarnings("error")
def test_frames_are_exactly_those_of_decoding_everything(name, number_of_threads, video_of: VideoOf, threads, passes):
    threads(number_of_threads)
    path, recipe = video_of(name), RECIPES[name]
    everything = decode_everything(path, rate=recipe.rate if recipe.counted else None)
    draw = random.Random(name)
    reader = reader_of(path, strict=True)
    for _ in range(6):
        times = [draw.uniform(-0.1, reader.end + 0.1) for _ in range(draw.choice([1, 2, 3, 12]))]
        shots = reader.read(times, same)
        assert set(shots) == set(times)
        for time, (begin, frame) in shots.items():
            expected_begin, expected = shown_at(everything, time)
            assert begin == pytest.approx(expected_begin, abs=2e-6)
            assert torch.equal(frame, expected)
    assert reader.damage is None
    if name not in WITHOUT_PLAN:
        assert "_read_everything" not in passes


def test_every_single_frame_can_be_asked_for(h264):
    everything = decode_everything(h264)
    reader = reader_of(h264)
    for begin, expected in everything:
        assert torch.equal(reader.read([begin + 0.001], same)[begin + 0.001][1], expected)
    shots = reader.read([begin + 0.001 for begin, _ in everything], same)
    assert all(torch.equal(shots[begin + 0.001][1], expected) for begin, expected in everything)


def test_only_wanted_frames_are_converted_and_each_once(h264):
    converted: list[torch.Tensor] = []

    def convert(frame: torch.Tensor) -> torch.Tensor:
        converted.append(frame)
        return frame[:, :4, :4]

    shots = reader_of(h264).read([2.0, 0.5, 0.501, 0.5, 1.0], convert)
    assert len(converted) == 3
    assert all(frame.shape == (3, 64, 96) and frame.dtype == torch.uint8 for frame in converted)
    assert shots[0.5][1] is shots[0.501][1]
    assert shots[2.0][1].shape == (3, 4, 4)


def decoded_for(path: Path, times: list[float], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many frames come out of the decoder."""
    counted = 0
    original = video_decoding._decode_planned

    def counting(*arguments):
        nonlocal counted
        for frame in original(*arguments):
            counted += 1
            yield frame

    monkeypatch.setattr(video_decoding, "_decode_planned", counting)
    reader_of(path).read(times, same)
    monkeypatch.undo()
    return counted


def test_no_more_is_decoded_than_needed(video_of: VideoOf, monkeypatch):
    keys_only = video_of("h264 only key frames")
    assert decoded_for(keys_only, [0.5, 1.0, 2.2], monkeypatch) == 3
    # 400 frames in groups of at most 150: up to the wanted one of its group, without those nobody refers to.
    long = video_of("h264 long groups")
    assert decoded_for(long, [0.0], monkeypatch) <= 5
    assert decoded_for(long, [15.9], monkeypatch) <= 110
    whole = decoded_for(long, [number / 25 for number in range(400)], monkeypatch)
    assert whole == 400
    assert decoded_for(video_of("hevc"), [2.3], monkeypatch) < 20
    # Frames of layered HEVC may be referred to in spite of their mark: all of the group are decoded.
    assert decoded_for(video_of("hevc layers"), [0.7], monkeypatch) > 15


@pytest.mark.parametrize(("name", "seeks"), [("h264 long groups", 1), ("h264 long groups mkv", 1), ("h264", 0)])
def test_a_seek_only_where_it_saves_reading(name, seeks, video_of: VideoOf, monkeypatch):
    done = []
    original = video_decoding._seek
    monkeypatch.setattr(video_decoding, "_seek", lambda *arguments: done.append(1) or original(*arguments))
    path = video_of(name)
    reader = reader_of(path)
    time = reader.end - 0.5
    frame = reader.read([0.0, 0.1, time], same)[time][1]
    assert len(done) == seeks
    assert torch.equal(frame, shown_at(decode_everything(path), time)[1])


def test_a_seek_that_lands_elsewhere_costs_time_only(video_of: VideoOf, monkeypatch):
    def nowhere(*_):
        raise video_decoding._PlanFailed

    monkeypatch.setattr(video_decoding, "_seek", nowhere)
    path = video_of("h264 long groups")
    reader = reader_of(path, strict=True)
    assert torch.equal(reader.read([15.0], same)[15.0][1], shown_at(decode_everything(path), 15.0)[1])
    assert reader.damage is None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_honoured(degrees, mirrored, suffix, tmp_path):
    plain = write_video(tmp_path / f"plain{suffix}", Recipe(frames=2))
    turned = write_video(tmp_path / f"turned{suffix}", Recipe(frames=2, rotation=(degrees, mirrored)))
    frame = reader_of(plain).read([0.0], same)[0.0][1]
    expected = frame.rot90(degrees // 90, (1, 2))  # counter-clockwise, and then the mirror
    expected = expected.flip(2) if mirrored else expected
    assert torch.equal(reader_of(turned).read([0.0], same)[0.0][1], expected)


def test_frames_hidden_by_an_edit_list_are_not_shown(h264, tmp_path):
    path = copy_packets(h264, tmp_path / "a.mp4", -0.4, avoid_negative_ts="disabled", use_editlist="1")
    everything = decode_everything(h264)
    reader = reader_of(path)
    for time in (0.01, 0.5, 1.23, 1.99):
        assert torch.equal(reader.read([time], same)[time][1], shown_at(everything, time + 0.4)[1])


def write_two_sizes(folder: Path, *sizes: tuple[int, int]) -> Path:
    """A second of one size, then a second of the other."""
    parts = [write_video(folder / f"{size}.h264", Recipe(size=size, frames=25)).read_bytes() for size in sizes]
    path = folder / "both.h264"
    path.write_bytes(b"".join(parts))
    return path


def test_frames_that_change_their_size_are_decoded_as_they_are(tmp_path):
    shots = reader_of(write_two_sizes(tmp_path, (96, 64), (48, 32))).read([0.1, 1.7], same)
    assert [tuple(shots[time][1].shape) for time in (0.1, 1.7)] == [(3, 64, 96), (3, 32, 48)]


def test_frames_that_grow_beyond_the_limit_are_refused(tmp_path):
    reader = reader_of(write_two_sizes(tmp_path, (48, 32), (96, 64)), max_frame_pixels=48 * 32)
    assert reader.read([0.1], same)[0.1][1].shape == (3, 32, 48)
    with pytest.raises(VideoReadError, match=r"both.h264: frames of 96 x 64 pixels; the limit is 1536 pixels"):
        reader.read([1.7], same)


def spoiled(path: Path, target: Path, how: str) -> Path:
    """A copy with the third quarter of what is between its headers spoiled."""
    content = bytearray(path.read_bytes())
    begin, end = int(len(content) * 0.45), int(len(content) * 0.6)
    if how == "zeros":
        content[begin:end] = bytes(end - begin)
    else:
        content[begin:end] = random.Random(0).randbytes(end - begin)
    target.write_bytes(content)
    return target


# Where it can be noticed: Matroska's reader skips what it does not understand, and to VP9 all data are a picture.
@pytest.mark.parametrize("how", ["zeros", "noise"])
@pytest.mark.parametrize("name", ["h264", "h264 ts", "h264 avi", "h264 10-bit", "hevc", "mpeg4 mp4", "mpeg2", "av1"])
def test_a_file_broken_in_the_middle(name, how, video_of: VideoOf, tmp_path):
    path = spoiled(video_of(name), tmp_path / f"broken{RECIPES[name].suffix}", how)
    everything = decode_everything(video_of(name), rate=25 if RECIPES[name].counted else None)

    def times(reader):
        return [reader.start + (reader.end - reader.start) * (number + 0.5) / 12 for number in range(12)]

    reader = reader_of(path)
    shots = reader.read(times(reader), same)
    assert reader.damage
    assert len(shots) == 12
    # What lies before the damage is as it was.
    begin, frame = shots[times(reader)[0]]
    assert torch.equal(frame, shown_at(everything, begin + 0.001)[1])
    with pytest.raises(VideoReadError, match="broken: "):
        strict = reader_of(path, strict=True)
        strict.read(times(strict), same)


def test_damage_elsewhere_does_not_disturb(video_of: VideoOf, tmp_path):
    whole = video_of("h264 long groups")
    path = spoiled(whole, tmp_path / "broken.mp4", "zeros")
    reader = reader_of(path, strict=True)
    assert torch.equal(reader.read([0.5], same)[0.5][1], shown_at(decode_everything(whole), 0.5)[1])
    assert reader.damage is None


def test_a_stream_that_begins_in_the_middle_gives_its_first_whole_frame(video_of: VideoOf, tmp_path):
    source = video_of("h264 ts")
    content = source.read_bytes()
    path = tmp_path / "late.ts"
    path.write_bytes(content[: 188 * 3] + content[188 * 20 :])
    frames = [frame for _, frame in decode_everything(path)]
    assert len(frames) < 50
    reader = reader_of(path)
    assert torch.equal(reader.read([reader.start], same)[reader.start][1], frames[0])


def test_nothing_that_can_be_decoded(h264, tmp_path):
    content = bytearray(h264.read_bytes())
    begin = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    content[begin:end] = bytes(end - begin)
    path = tmp_path / "hollow.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoReadError, match=r"hollow.mp4: (no frame could be decoded|frames of no size)"):
        reader_of(path).read([1.0], same)


@pytest.mark.parametrize(
    "name", ["h264", "h264 mkv", "h264 ts", "vp9", "mpeg4 avi", "h264 avi", "hevc", "mjpeg odd size"]
)
def test_any_damage_gives_frames_or_the_one_exception(name, video_of: VideoOf, tmp_path):
    whole = video_of(name).read_bytes()
    draw = random.Random(name)
    outcomes = set()
    for trial in range(25):
        content = bytearray(whole)
        begin = draw.randrange(len(content)) if trial % 2 else draw.randrange(900)
        end = min(len(content), begin + draw.choice([1, 10, 100, 3000]))
        content[begin:end] = draw.randbytes(end - begin)
        content = content[: draw.choice([len(content), draw.randrange(len(content))])]
        path = tmp_path / f"{trial}{RECIPES[name].suffix}"
        path.write_bytes(content)
        try:
            reader = reader_of(path if trial % 3 else bytes(content), strict=bool(trial % 5 == 0))
            shots = reader.read([reader.start + (reader.end - reader.start) * part for part in (0.1, 0.5, 0.9)], same)
        except VideoReadError as error:
            assert error.name
            outcomes.add("refused")
        else:
            assert all(frame.dtype == torch.uint8 and frame.shape[0] == 3 for _, frame in shots.values())
            outcomes.add("read")
    assert outcomes == {"refused", "read"}


def test_a_reader_leaves_nothing_open(h264, monkeypatch):
    opened = []
    original = video_decoding.open_stream

    def watching(*arguments):
        context = original(*arguments)
        opened.append(context)
        return context

    monkeypatch.setattr(video_decoding, "open_stream", watching)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        reader_of(h264).read([0.1, 2.0], same)
    assert len(opened) == 2
    with open_stream(open_source(h264), 10**7) as (container, _):
        pass
    with pytest.raises(Exception, match="not open"):
        list(container.demux())
