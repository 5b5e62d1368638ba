"""DiDeMo (Hendricks et al., ICCV 2017): Flickr videos whose moments are described, retrieved by paragraph.

Files read, anywhere in the folder:

- train_data.json, val_data.json, test_data.json (any name with this in it): a list of descriptions with `video` and
  `description`; `times` and the other fields are not read and may be absent.
- train_list.txt, val_list.txt, test_list.txt: one video a line, the lists of retrieval papers (Liu et al., BMVC 2019).
  Extensions in a list may be others than in the annotations, or only a dot.

Protocol "paragraph": all descriptions of a video, in the order of the file and with a blank between, are its one
caption; whole videos, no given moments, so that `start` and `end` stay empty. Described videos that are not in the list
(29 of the official validation, 33 of the test) do not belong to the protocol. Video files may be named as in the
annotations ("x.mov", "x."), with another extension ("x.mp4") or with one more ("x.mov.mp4").
"""

from collections import defaultdict
from collections.abc import Iterator

from .annotation import Annotation
from .annotation_files import AnnotationFolder, read_json, read_lines, read_strings
from .benchmark_builder import BenchmarkBuilder
from .benchmark_info import Counts, Protocol

_PREFIXES = {"train": "train", "validation": "val", "test": "test"}


class DiDeMo(BenchmarkBuilder):
    """See the module."""

    NAME = "didemo"
    PROTOCOLS = {
        "paragraph": Protocol(
            "DiDeMo paragraphs: all descriptions of a video joined, 1,004 against 1,004 whole videos, no given moments",
            {
                # The lists of different sources differ by a few videos.
                "train": Counts((8_392, 8_395), (8_392, 8_395)),
                "validation": Counts((1_065, 1_065), (1_065, 1_065)),
                "test": Counts((1_004, 1_004), (1_004, 1_004)),
            },
        )
    }

    @staticmethod
    def read_files(folder: AnnotationFolder, split: str, protocol: str) -> Iterator[Annotation]:
        prefix = _PREFIXES[split]
        path = folder.find(f"{prefix}_data.json", f"*{prefix}_data*.json")
        names: dict[str, str] = {}
        descriptions = defaultdict(list)
        for entry in read_json(path, list):
            video, description = read_strings(path, entry, "video", "description")
            names.setdefault(_stem(video), video)
            descriptions[_stem(video)].append(description.strip())
        for listed in read_lines(folder.find(f"{prefix}_list.txt")):
            stem = _stem(listed)
            video = names.get(stem, listed)
            paragraph = " ".join(descriptions.get(stem, []))
            yield Annotation(video, (paragraph,) * bool(paragraph), tuple(dict.fromkeys((video, listed, stem))))


def _stem(name: str) -> str:
    """A name without its extension, which may be any word or nothing after the dot."""
    return name.rpartition(".")[0] or name
