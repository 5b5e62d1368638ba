"""An index with random embeddings over real files of some seconds, whose moments begin somewhere inside."""

from collections.abc import Sequence
from pathlib import Path

from encoded import random_encoded
from videos import Recipe, write_video

from hcmi.retrieval import EncodedVideos, VideoIndex
from hcmi.retrieval.index.catalog import FileState
from hcmi.retrieval.index.search import Hit
from hcmi.retrieval.index.window import Window

WIDTH = 24  # of the tiny model
SECONDS = 18.0

_RECIPES = {
    ".mp4": Recipe(frames=180, rate=10, group=250),
    ".avi": Recipe(".avi", codec="mpeg4", frames=180, rate=10, group=12),
}


def make_demo_index(folder: Path, model_folder: str, names: Sequence[str]) -> Path:
    """`folder/index`, of `folder/videos/<name>` for each name; two windows of the same stretch a video."""
    index, places = folder / "index", []
    (folder / "videos").mkdir(exist_ok=True)
    with VideoIndex.create(index, model_folder, device="cpu") as made:
        for name in names:
            path = write_video(folder / "videos" / name, _RECIPES[Path(name).suffix])
            state = path.stat()
            file = FileState(state.st_size, state.st_mtime_ns, duration=SECONDS)
            made.begin_file(path, file, [Window(number, 0.0, SECONDS) for number in range(2)])
            places += [(str(path), number) for number in range(2)]
        few = random_encoded([6] * len(places), WIDTH)
        slower = SECONDS / 6
        made.append(EncodedVideos(few.names, few.features, few.timestamps * slower, few.video_spans * slower), places)
    return index


def late_moment(index: VideoIndex, suffix: str, most: int = 8) -> tuple[str, int, Hit]:
    """A query, and the place and hit of a file of this kind whose moment begins well after its beginning."""
    words = ["red ring", "blue square", "green ring", "square grows", "ring slides left", "two red", "then blue right"]
    for query in (f"{start} {rest}" for start in ("a", "two", "then a", "a red", "green") for rest in words):
        for place, hit in enumerate(index.search(query, top_k=most).hits):
            if hit.start > 2 and hit.video.endswith(suffix):
                return query, place, hit
    raise AssertionError("all moments begin at the beginning")
