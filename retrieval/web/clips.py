"""Moments of videos that browsers cannot play, as files that they can."""

import os
import tempfile
from collections import OrderedDict
from pathlib import Path

import av

from hcmi.retrieval.clips.saving import SavedClip, save_clip
from hcmi.retrieval.index.search import Hit

KEPT = 50
"""Clips that are kept, for whoever watches them again."""

_BEFORE, _AFTER, _LONGEST = 2.0, 8.0, 60.0  # seconds
_PICTURES, _SOUNDS, _PIXELS = {"h264", "vp9", "av1"}, {"aac", "mp3", "opus"}, {"yuv420p", "yuvj420p"}


class PlayableClips:
    """
    Clips in a temporary folder. One of them is made at a time; any number of threads may look for those that were.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hcmi-demo-")
        self._clips: OrderedDict[str, SavedClip] = OrderedDict()

    def close(self) -> None:
        """Removes the folder."""
        self._folder.cleanup()

    def get(self, name: str) -> SavedClip | None:
        """The clip of this name, if it was made."""
        return self._clips.get(name)

    def make(self, name: str, hit: Hit) -> SavedClip:
        """
        A hit's moment with some seconds around it, which any browser plays.

        Args:
            name: of the file.

        Raises:
            VideoReadError: the video cannot be read.
            OSError: there is no room for the clip.
        """
        if name not in self._clips:
            start = max(0.0, hit.start - _BEFORE)
            end = min(hit.end + _AFTER, start + _LONGEST)
            path = Path(self._folder.name, f"{name}.mp4")
            clip = save_clip(hit.video, start, end, path)
            if clip.copied and not _plays(path):
                path.unlink()
                clip = save_clip(hit.video, start, end, path, copy=False)
            self._clips[name] = clip
            if len(self._clips) > KEPT:
                _, oldest = self._clips.popitem(last=False)
                os.unlink(oldest.path)
        return self._clips[name]


def _plays(path: Path) -> bool:
    """Whether every browser knows what is in an MP4 file."""
    with av.open(str(path)) as container:
        pictures = [stream.codec_context for stream in container.streams.video]
        sounds = {stream.codec_context.name for stream in container.streams.audio}
        return sounds <= _SOUNDS and all(each.name in _PICTURES and each.pix_fmt in _PIXELS for each in pictures)
