"""The progress bar of indexing."""

from collections.abc import Sequence

from tqdm.auto import tqdm


class IndexProgress:
    """
    A bar of bytes, which tell better than files how long it takes; with files, windows and windows a second in words.

    Args:
        sizes: bytes of the files.
        show: whether there is one.
    """

    def __init__(self, sizes: Sequence[int], show: bool):
        self._files = len(sizes)
        self._files_done, self._windows_done = 0, 0
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        begin = f"Indexing: 0/{len(sizes)} videos"
        self._bar = tqdm(total=sum(sizes), desc=begin, bar_format=form, disable=not show, smoothing=0.05)

    def advance(self, size: float, *, files: int = 0, windows: int = 0) -> None:
        """So many bytes more are done, with them files to their end, and windows."""
        self._files_done += files
        self._windows_done += windows
        rate = self._windows_done / max(self._bar.format_dict["elapsed"], 1e-9)
        told = f"Indexing: {self._files_done}/{self._files} videos, {self._windows_done} windows, {rate:.1f}/s"
        self._bar.set_description_str(told, refresh=False)
        self._bar.update(min(size, self._bar.total - self._bar.n))  # parts of a whole can add up to a little more

    def __enter__(self) -> "IndexProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
