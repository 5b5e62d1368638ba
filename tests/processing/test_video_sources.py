import io
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from slow_server import serve

from hcmi.processing import video_sources
from hcmi.processing.frames_in_memory import FramesInMemory
from hcmi.processing.video_sources import EncodedVideo, VideoReadError, open_source

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a video, 100%.mp4"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def server():
    with serve(CONTENT) as address:
        yield address


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def content_of(source: EncodedVideo) -> bytes:
    assert isinstance(source, EncodedVideo)
    return Path(source.target).read_bytes() if isinstance(source.target, str) else source.target.read()


def test_paths_and_file_urls_name_the_file_itself(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    for video in (str(file), file, file.name, Path(file.name), file.as_uri(), f"file://localhost{file.as_uri()[7:]}"):
        source = open_source(video)
        assert source.target == str(file)
        assert not source.temporary


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_bytes_of_a_file(kind):
    assert content_of(open_source(kind(CONTENT))) == CONTENT


def test_file_objects_are_read_from_their_beginning(file):
    with file.open("rb") as opened, tempfile.NamedTemporaryFile() as temporary:
        temporary.write(CONTENT)
        for video in (opened, io.BytesIO(CONTENT), temporary):
            video.seek(1000)
            source = open_source(video)
            assert content_of(source) == CONTENT
        assert source.name == temporary.name


def test_a_file_object_that_cannot_seek_is_read_whole():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb") as other:
        other.write(CONTENT[:30_000])
        other.close()
        assert content_of(open_source(pipe)) == CONTENT[:30_000]


def test_values_of_a_datasets_video_column(file):
    for value in (
        {"path": str(file), "bytes": None},
        {"path": None, "bytes": CONTENT},
        {"path": "x", "bytes": CONTENT},
    ):
        assert content_of(open_source(value)) == CONTENT
    assert open_source({"path": "inner.mp4", "bytes": CONTENT}).name == "inner.mp4"


def test_frames_are_frames():
    for video in ([Image.new("RGB", (4, 4))], np.zeros((2, 4, 4, 3), np.uint8), torch.zeros(2, 3, 4, 4)):
        source = open_source(video, input_fps=5.0)
        assert isinstance(source, FramesInMemory)
        assert source.fps == 5.0


def test_a_decoder_is_taken_as_it_is():
    class Decoder:
        def get_frames_played_at(self, seconds):
            raise NotImplementedError

    decoder = Decoder()
    assert open_source(decoder) is decoder


@pytest.mark.parametrize("answer", ["video", "chunked", "moved"])
def test_urls_are_fetched_whole(server, answer):
    source = open_source(f"{server}/{answer}")
    assert source.temporary
    assert source.name == f"{server}/{answer}"
    with source.target:
        assert content_of(source) == CONTENT


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("missing", "cannot be fetched: HTTP Error 404"),
        ("empty", "empty"),
        ("cut", f"cannot be fetched: the connection ended after {len(CONTENT) // 2} of {len(CONTENT)} bytes"),
    ],
)
def test_bad_answers_are_told(server, answer, reason):
    with pytest.raises(VideoReadError) as caught:
        open_source(f"{server}/{answer}")
    assert caught.value.name == f"{server}/{answer}"
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize("answer", ["silent", "trickle", "trickle-headers"])
def test_a_server_that_hangs_does_not_hang_the_caller(server, answer, monkeypatch):
    monkeypatch.setattr(video_sources, "URL_TIMEOUT", 0.3)
    monkeypatch.setattr(video_sources, "URL_DEADLINE", 1.0)
    with pytest.raises(VideoReadError, match=r"cannot be fetched: (timed out|not complete after 1 s)"):
        open_source(f"{server}/{answer}")


@pytest.mark.parametrize("answer", ["video", "chunked"])
def test_a_file_larger_than_the_limit_is_not_fetched(server, answer, monkeypatch):
    monkeypatch.setattr(video_sources, "URL_MAX_BYTES", 100_000)
    with pytest.raises(VideoReadError, match="larger than 100000 bytes"):
        open_source(f"{server}/{answer}")


def test_nobody_there():
    with serve(CONTENT) as address:
        gone = f"{address}/video"
    with pytest.raises(VideoReadError, match=r"cannot be fetched: .*refused"):
        open_source(gone)


@pytest.mark.parametrize(
    ("video", "reason"),
    [
        ("missing.mp4", "No such file"),
        ("nul\0.mp4", "null"),
        ("x" * 5000, "name too long"),
        (b"", "empty"),
        (io.BytesIO(), "empty"),
        (io.StringIO("text"), "opened as text"),
        ("ftp://example.org/video.mp4", "URLs with ftp:// are not supported"),
        ("hf://datasets/x/y.mp4", "URLs with hf:// are not supported"),
        ("file://elsewhere/video.mp4", "another machine"),
        ({"path": None, "bytes": None}, "neither bytes nor a path"),
        ({"path": "a.mp4", "bytes": b""}, "empty"),
        ({"path": "missing.mp4", "bytes": None}, "No such file"),
        ({}, "neither bytes nor a path"),
        (None, "not one of: path, URL"),
        (7, "not one of: path, URL"),
        ([], "not one of: path, URL"),
        (["a.mp4"], "not one of: path, URL"),
        (np.zeros((4, 4, 3), np.uint8), "layout"),
    ],
)
def test_what_is_no_source_is_refused_with_its_name_and_the_reason(video, reason):
    with pytest.raises(VideoReadError) as caught:
        open_source(video)
    assert reason in str(caught.value)
    assert caught.value.name
    assert reason in caught.value.reason


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    reasons = {"empty.mp4": "empty", "pipe.mp4": "not a regular file", "loop.mp4": "symbolic links", ".": "a directory"}
    for name, reason in reasons.items():
        path = os.path.join(tmp_path, name)
        with pytest.raises(VideoReadError, match=reason) as caught:
            open_source(path)
        assert caught.value.name == path
    with pytest.raises(VideoReadError, match="not a regular file"):
        open_source("/dev/zero")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(file):
    file.chmod(0)
    with pytest.raises(VideoReadError, match="no permission"):
        open_source(file)


def test_a_closed_file_object_and_one_of_text(file):
    with file.open("rb") as closed:
        pass
    with pytest.raises(VideoReadError, match="closed"):
        open_source(closed)
    with tempfile.NamedTemporaryFile("w+") as text, pytest.raises(VideoReadError, match="opened as text"):
        open_source(text)


def test_the_error_survives_pickling_and_being_built_from_its_message():
    error = VideoReadError("a.mp4", "empty")
    assert isinstance(error, ValueError)
    assert str(error) == "a.mp4: empty"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.name, copy.reason, str(copy)) == (VideoReadError, "a.mp4", "empty", "a.mp4: empty")
    rebuilt = VideoReadError("Caught in a worker: a.mp4: empty")
    assert str(rebuilt) == "Caught in a worker: a.mp4: empty"


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise VideoReadError("a video: with colons.mp4", "VideoReadError is not its reason")


def test_a_loaders_worker_passes_the_error_on_as_it_was():
    with pytest.raises(VideoReadError) as caught:
        list(torch.utils.data.DataLoader(Broken(), num_workers=1))
    assert str(caught.value) == "a video: with colons.mp4: VideoReadError is not its reason"
