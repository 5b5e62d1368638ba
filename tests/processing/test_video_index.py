import re
import struct
import threading
from pathlib import Path

import av
import pytest
from av.stream import Disposition
from PIL import Image
from videos import RECIPES, Recipe, VideoOf, copy_packets, decode_everything, write_sound, write_video

from hcmi.processing.video_index import FrameIndex, build_index, check_duration, open_stream, quiet
from hcmi.processing.video_sources import EncodedVideo, VideoReadError, open_source

PIXELS, SECONDS = 10**7, 3600.0
COVER, MAIN, OTHER = Disposition.attached_pic, Disposition.default, Disposition(0)


def index_of(path: Path, max_duration: float = SECONDS) -> FrameIndex:
    with open_stream(open_source(path), PIXELS) as (container, stream):
        return build_index(str(path), container, stream, max_duration)


def times_shown(index: FrameIndex) -> list[float]:
    return [index.times[position] for position in index.shown]


@pytest.mark.parametrize("name", RECIPES)
def test_frames_are_listed_as_decoding_everything_finds_them(name, video_of: VideoOf):
    path, recipe = video_of(name), RECIPES[name]
    index = index_of(path)
    times = times_shown(index)
    expected = [time for time, _ in decode_everything(path, rate=recipe.rate if recipe.counted else None)]
    assert len(times) == recipe.frames
    assert times == pytest.approx(expected, abs=2e-6)
    assert times == sorted(times)
    assert index.counted == recipe.counted
    assert index.damage is None
    if recipe.times is None:
        assert index.end == pytest.approx(recipe.frames / recipe.rate, abs=1e-3)


def test_decoding_can_begin_where_the_groups_begin(h264):
    index = index_of(h264)
    with av.open(str(h264)) as container:
        keys = [float(frame.pts * frame.time_base) for frame in container.decode(video=0) if frame.key_frame]
    assert len(keys) >= 3
    assert [time for time, key in zip(index.times, index.keys, strict=True) if key] == pytest.approx(keys)
    for position, time in enumerate(index.times):
        entry = index.entry_point(position)
        assert index.keys[entry]
        assert entry <= position
        assert index.times[entry] <= time
        assert not any(index.keys[later] for later in range(entry + 1, position + 1) if index.times[later] <= time)


def test_a_frame_stored_after_a_key_frame_and_shown_before_it_belongs_to_the_group_before(video_of: VideoOf):
    index = index_of(video_of("h264 open groups"))
    leading = [
        position
        for position in range(1, len(index.times))
        if any(index.keys[i] and index.times[i] > index.times[position] for i in range(position))
    ]
    assert leading
    for position in leading:
        assert index.times[index.entry_point(position)] < index.times[position]


def test_no_duration_in_the_header(video_of: VideoOf):
    path = video_of("vp9 no duration")
    with av.open(str(path)) as container:
        assert container.duration is None
        assert container.streams.video[0].frames == 0
    index = index_of(path)
    assert len(index.pts) == 60
    assert index.end == pytest.approx(2.4, abs=1e-3)


def test_seconds_count_from_where_a_player_begins(h264, tmp_path):
    with_sound = copy_packets(h264, tmp_path / "a.mp4", 0.5, silence=60, avoid_negative_ts="disabled")
    index = index_of(with_sound)
    assert times_shown(index)[0] == pytest.approx(0.5)
    assert index.end == pytest.approx(2.9)

    alone = copy_packets(h264, tmp_path / "a.mkv", 5.5, avoid_negative_ts="disabled")
    with av.open(str(alone)) as container:
        assert container.start_time == 5_500_000
    index = index_of(alone)
    assert times_shown(index)[0] == 0.0
    assert index.end == pytest.approx(2.4, abs=2e-3)
    assert index.damage is None


def test_an_edit_list_hides_frames_at_the_beginning(h264, tmp_path):
    path = copy_packets(h264, tmp_path / "a.mp4", -0.4, avoid_negative_ts="disabled", use_editlist="1")
    index = index_of(path)
    assert times_shown(index) == pytest.approx([number / 25 for number in range(50)])
    assert not all(index.visible)
    assert index.end == pytest.approx(2.0)
    assert index.damage is None


def test_an_edit_list_hides_frames_at_the_end(h264, tmp_path):
    content = bytearray(h264.read_bytes())
    struct.pack_into(">I", content, content.index(b"elst") + 12, 1000)  # milliseconds
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    index = index_of(path)
    assert times_shown(index) == pytest.approx([number / 25 for number in range(25)])
    assert index.end == pytest.approx(1.0)
    assert index.damage is None


def write_streams(path: Path, *streams: tuple[str, tuple[int, int], Disposition]) -> Path:
    """A file with these video streams: codec, size, and what it is for."""
    with av.open(str(path), "w") as container:
        made = []
        for codec, size, disposition in streams:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.disposition = disposition
            made.append((stream, av.VideoFrame(*size, stream.pix_fmt), 1 if disposition == COVER else 3))
        for stream, frame, count in made:
            for number in range(count):
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


def test_the_main_one_of_several_streams(tmp_path):
    path = write_streams(tmp_path / "a.mkv", ("libx264", (32, 32), OTHER), ("libx264", (64, 48), MAIN))
    with open_stream(open_source(path), PIXELS) as (_, stream):
        assert (stream.codec_context.width, stream.codec_context.height) == (64, 48)


def test_a_cover_picture_is_no_video(tmp_path):
    path = write_streams(tmp_path / "a.mp4", ("mjpeg", (320, 320), COVER), ("libx264", (64, 48), MAIN))
    with open_stream(open_source(path), PIXELS) as (_, stream):
        assert (stream.codec_context.width, stream.codec_context.height) == (64, 48)
    alone = write_streams(tmp_path / "b.mp4", ("mjpeg", (320, 320), COVER))
    assert refusal(alone) == "no video stream in it, only a cover picture"


def truncated(source: Path, target: Path, share: float) -> Path:
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("h264 mkv", "ends after"),
        ("vp9", "ends after"),
        ("mpeg4 avi", "packet .* is corrupt|of 60 frames"),
        ("h264 fragments", "packet .* is corrupt"),
        ("h264 flv", "packet .* is corrupt"),
    ],
)
def test_a_file_that_breaks_off_is_damaged(name, damage, video_of: VideoOf, tmp_path):
    whole = video_of(name)
    index = index_of(truncated(whole, tmp_path / f"cut{whole.suffix}", 0.5))
    assert 0 < len(index.shown) < 50
    assert index.end < 2.0
    assert index.damage is not None
    assert re.search(damage, index.damage)


def test_frames_missing_in_the_middle_of_an_avi_are_damage(video_of: VideoOf, tmp_path):
    content = bytearray(video_of("mpeg4 avi").read_bytes())
    content[8000:12000] = bytes(4000)
    path = tmp_path / "a.avi"
    path.write_bytes(content)
    assert index_of(path).damage.endswith("of 60 frames are there")


def test_a_longer_sound_is_no_damage(h264, tmp_path):
    path = copy_packets(h264, tmp_path / "a.mp4", 0.0, silence=200, avoid_negative_ts="disabled")
    with av.open(str(path)) as container:
        assert container.duration > 10 * av.time_base
    index = index_of(path)
    assert index.damage is None
    assert index.end == pytest.approx(2.4)


def refusal(path: Path, max_frame_pixels: int = PIXELS, max_duration: float = SECONDS) -> str:
    with (
        pytest.raises(VideoReadError) as caught,
        open_stream(open_source(path), max_frame_pixels) as (container, stream),
    ):
        build_index(str(path), container, stream, max_duration)
    assert caught.value.name == str(path)
    return caught.value.reason


def test_limits(h264, tmp_path):
    assert refusal(h264, max_frame_pixels=96 * 64 - 1) == "frames of 96 x 64 pixels; the limit is 6143 pixels"
    with open_stream(open_source(h264), 96 * 64) as (container, stream):
        assert len(build_index("a", container, stream, 2.4).shown) == 60
    assert refusal(h264, max_duration=2.39) == "longer than the limit of 2.39 s"
    long = write_video(tmp_path / "a.mkv", Recipe(frames=3, times=[0, 40, 50_000_000]))
    assert refusal(long) == "longer than the limit of 3600 s"
    narrow = write_video(tmp_path / "b.mkv", Recipe(codec="ffv1", frames=2, size=(4000, 16)))
    assert refusal(narrow) == "frames of 4000 x 16 pixels; the limit is 100 to 1"


def test_a_header_that_speaks_of_huge_frames_makes_nobody_allocate_them(tmp_path):
    path = write_video(tmp_path / "a.mkv", Recipe(codec="ffv1", frames=2, size=(300, 260)))
    content = path.read_bytes()
    for element, length in ((b"\xb0\x82", 300), (b"\xba\x82", 260)):
        assert content.count(element + struct.pack(">H", length)) == 1
        content = content.replace(element + struct.pack(">H", length), element + struct.pack(">H", 60_000))
    path.write_bytes(content)
    assert "of more than 10000000 pixels" in refusal(path)


def test_zero_duration(tmp_path):
    path = write_video(tmp_path / "a.mp4", Recipe(codec="mpeg4", frames=1))
    content = bytearray(path.read_bytes())
    for box, offset in ((b"stts", 12), (b"mdhd", 16), (b"tkhd", 20), (b"mvhd", 16)):
        struct.pack_into(">I", content, content.index(box) + 4 + offset, 0)
    if b"edts" in content:
        content[content.index(b"edts") :][:4] = b"free"
    path.write_bytes(content)
    assert refusal(path) == "zero duration"
    with pytest.raises(VideoReadError, match="a: zero duration"):
        check_duration("a", 1.0, 1.0, SECONDS)


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".m4a"), ("pcm_s16le", ".wav"), ("aac", ".mp4")])
def test_sound_alone(codec, suffix, tmp_path):
    assert refusal(write_sound(tmp_path / f"a{suffix}", codec)) == "no video stream in it, only audio"


def test_truncated_before_the_first_frame(video_of: VideoOf, tmp_path):
    for name, share in (("h264", 0.02), ("h264", 0.5), ("h264 mkv", 0.02), ("vp9", 0.01), ("mpeg4 avi", 0.05)):
        whole = video_of(name)
        assert refusal(truncated(whole, tmp_path / f"cut{whole.suffix}", share))


NOT_VIDEOS = {
    "a.txt": b"A sentence.\n" * 300,
    "text.mp4": b"A sentence.\n" * 300,
    "zeros.mp4": bytes(10_000),
    "page.html": b"<html><body>404</body></html>",
    "subtitles.srt": b"1\n00:00:01,000 --> 00:00:02,000\nWords\n\n" * 5,
    "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.ts\n#EXT-X-ENDLIST\n",
    "list.txt": b"ffconcat version 1.0\nfile 'other.mp4'\n",
    "one.mp4": b"\0",
}


@pytest.mark.parametrize("name", NOT_VIDEOS)
def test_what_is_no_video(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(NOT_VIDEOS[name])
    assert refusal(path).startswith(("not a video", "no video stream"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_picture_is_refused_with_the_way_out(kind, tmp_path):
    path = tmp_path / f"a.{kind.lower()}"
    Image.new("RGB", (32, 32)).save(path, kind)
    assert "pictures are passed as a list of PIL images" in refusal(path)
    renamed = tmp_path / "a.mp4"
    path.rename(renamed)
    assert "pictures are passed as a list of PIL images" in refusal(renamed)


def test_playlists_open_nothing_they_name(h264, tmp_path):
    """A file is read, never what it points to, whatever its format is taken for."""
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n" + str(h264).encode() + b"\n#EXT-X-ENDLIST\n"
    with pytest.raises(VideoReadError), open_stream(open_source(playlist), PIXELS):
        pass


def test_a_file_object_that_fails_is_reported():
    class Failing:
        name = "remote.mp4"

        def read(self, size=-1):
            raise OSError("the line is dead")

        def seek(self, offset, whence=0):
            return 100

    with (
        pytest.raises(VideoReadError, match=r"remote.mp4: .*the line is dead"),
        open_stream(EncodedVideo("remote.mp4", Failing()), PIXELS),
    ):
        pass


def test_ffmpeg_is_silent_inside_and_as_loud_as_before_outside():
    before = av.logging.get_level()
    av.logging.set_level(av.logging.DEBUG)
    try:
        with quiet:
            assert av.logging.get_level() is None
            with quiet:
                pass
            assert av.logging.get_level() is None
            other = threading.Thread(target=quiet.__enter__)
            other.start()
            other.join()
        assert av.logging.get_level() is None
        quiet.__exit__()
        assert av.logging.get_level() == av.logging.DEBUG
    finally:
        av.logging.set_level(before)
