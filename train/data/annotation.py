"""What a benchmark's annotation files say about one video."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Annotation:
    """
    A video and what is said about it, before its file is looked for.

    Attributes:
        video_id: unique within the split.
        captions: without surrounding blanks; a paragraph is one caption. Empty where a list names the video and no
            file describes it.
        file_names: names that the video's file may have, best first, without the extension of a video file. A name may
            contain "/" where the folder matters.
        start: where the video begins within its file, in seconds. None: at the file's beginning.
        end: where it ends. None: at the file's end.
    """

    video_id: str
    captions: tuple[str, ...]
    file_names: tuple[str, ...]
    start: float | None = None
    end: float | None = None
