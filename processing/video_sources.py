"""Whatever a caller calls a video becomes one of three things: an encoded file, frames in memory, or a decoder."""

import contextlib
import io
import os
import stat
import tempfile
import threading
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import IO, Any

from .frames_in_memory import FramesInMemory, is_frames

URL_TIMEOUT = 20.0  # seconds without an answer
URL_DEADLINE = 600.0  # seconds for a whole file
URL_MAX_BYTES = 4 * 2**30
_CHUNK = 2**18


class VideoReadError(ValueError):
    """A video that cannot be read. Says which one (`name`) and why (`reason`).

    Survives pickling and the way a `DataLoader` rebuilds a worker's exception from its message alone.
    """

    def __init__(self, name: str, reason: str | None = None):
        if reason is None and name.startswith(f"Caught {type(self).__name__} in "):
            # A `DataLoader` makes the worker's whole traceback the message: the worker's own is its end.
            name = name.rpartition(f"{type(self).__name__}: ")[2].strip()
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return self.name if self.reason is None else f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class EncodedVideo:
    """A video file.

    Attributes:
        name: for messages.
        target: the path of a regular file, or a binary file object that can seek.
        temporary: whether `target` was made here and is closed after reading.
    """

    name: str
    target: str | IO[bytes]
    temporary: bool = False


def open_source(video: Any, input_fps: float = 1.0) -> EncodedVideo | FramesInMemory | Any:
    """What `video` is: see `HCMIProcessor` for the list of kinds.

    A file behind a URL is fetched here, whole, into a temporary file that is deleted with the returned object.

    Args:
        input_fps: frames a second, for frames in memory, which carry no clock.

    Raises:
        VideoReadError: for a source that is missing, empty, no file or of no known kind.
    """
    if isinstance(video, dict):
        return _dataset_value(video)
    if isinstance(video, (str, os.PathLike)):
        return _path_or_url(os.fspath(video))
    if isinstance(video, (bytes, bytearray, memoryview)):
        if not len(video):
            raise VideoReadError("bytes", "empty")
        return EncodedVideo(f"bytes of length {len(video)}", io.BytesIO(video))
    if hasattr(video, "read"):
        return _file_object(video)
    if is_frames(video):
        try:
            return FramesInMemory(video, input_fps)
        except ValueError as error:
            raise VideoReadError("frames in memory", str(error)) from error
    if hasattr(video, "get_frames_played_at"):
        return video
    raise VideoReadError(
        f"video of type {type(video).__name__}",
        "not one of: path, URL, bytes, binary file object, list of PIL images, array or tensor of frames, "
        "value of a datasets Video column, torchcodec decoder",
    )


def _dataset_value(value: dict[str, Any]) -> EncodedVideo:
    name = str(value.get("path") or "value of a Video column")
    if value.get("bytes") is not None:
        if not value["bytes"]:
            raise VideoReadError(name, "empty")
        return EncodedVideo(name, io.BytesIO(value["bytes"]))
    if value.get("path") is None:
        raise VideoReadError(name, "neither bytes nor a path")
    return _path_or_url(value["path"])


def _path_or_url(text: str | bytes) -> EncodedVideo:
    text = os.fsdecode(text)
    scheme = urllib.parse.urlsplit(text).scheme if "://" in text else ""
    if scheme in ("http", "https"):
        return EncodedVideo(text, _fetch(text), temporary=True)
    if scheme == "file":
        parts = urllib.parse.urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise VideoReadError(text, "a file:// URL of another machine")
        return _path(urllib.request.url2pathname(parts.path))
    if scheme:
        raise VideoReadError(text, f"URLs with {scheme}:// are not supported, only http, https and file")
    return _path(text)


def _path(path: str) -> EncodedVideo:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise VideoReadError(path, getattr(error, "strerror", None) or str(error)) from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoReadError(path, "a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise VideoReadError(path, "not a regular file")  # reading a pipe or a device may never end
    if status.st_size == 0:
        raise VideoReadError(path, "empty")
    if not os.access(path, os.R_OK):
        raise VideoReadError(path, "no permission to read it")
    return EncodedVideo(path, os.path.abspath(path))


def _file_object(file: Any) -> EncodedVideo:
    name = str(getattr(file, "name", None) or f"file object {type(file).__name__}")
    try:
        if isinstance(file.read(0), str):
            raise VideoReadError(name, "opened as text; open it with mode 'rb'")
        if not (hasattr(file, "seekable") and file.seekable()):
            file = io.BytesIO(file.read())
        end = file.seek(0, io.SEEK_END)
        file.seek(0)
    except (OSError, ValueError) as error:
        if isinstance(error, VideoReadError):
            raise
        raise VideoReadError(name, str(error)) from error
    if end == 0:
        raise VideoReadError(name, "empty")
    return EncodedVideo(name, file)


def _fetch(url: str) -> IO[bytes]:
    """The file behind a URL, whole: many servers answer no range requests, and FFmpeg checks no certificates."""
    with contextlib.ExitStack() as on_failure:
        file = on_failure.enter_context(tempfile.TemporaryFile())
        errors: list[Exception] = []
        # In a thread, since a timeout is for each single read: a server that sends a byte now and then never meets it.
        # Where that one is given up, its next write finds the file closed and ends it.
        fetching = threading.Thread(target=_copy, args=(url, file, errors), daemon=True)
        fetching.start()
        fetching.join(URL_DEADLINE)
        if fetching.is_alive():
            raise VideoReadError(url, f"cannot be fetched: not complete after {URL_DEADLINE:g} s")
        if errors:
            raise VideoReadError(url, f"cannot be fetched: {errors[0]}") from errors[0]
        if not file.tell():
            raise VideoReadError(url, "empty")
        file.seek(0)
        on_failure.pop_all()
    return file


def _copy(url: str, file: IO[bytes], errors: list[Exception]) -> None:
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "hcmi"})
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT) as answer:
            expected = int(answer.headers.get("Content-Length") or 0)
            received = 0
            while max(received, expected) <= URL_MAX_BYTES and (chunk := answer.read1(_CHUNK)):
                received += file.write(chunk)
        if max(received, expected) > URL_MAX_BYTES:
            raise ValueError(f"larger than {URL_MAX_BYTES} bytes")
        if received < expected:
            raise ValueError(f"the connection ended after {received} of {expected} bytes")
    except Exception as error:  # whatever it is, it is raised in the caller's thread
        errors.append(error)
