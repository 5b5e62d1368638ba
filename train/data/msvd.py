"""MSVD (Chen and Dolan, ACL 2011): 1,970 YouTube clips with about 41 sentences each, also called YouTube2Text.

Files read, anywhere in the folder:

- train_list.txt, val_list.txt, test_list.txt: one clip id a line (video on YouTube, first and last second), the splits
  of Venugopalan et al. (2015).
- The captions, the first of: captions_msvd.json (any name with "captions" in it; clip id -> list of sentences);
  AllVideoDescriptions.txt, as the data set is published (a line is a clip id, a blank and a sentence; comments begin
  with "#"); raw-captions.pkl (clip id -> list of lists of words), out of which nothing but lists and strings is built.
- youtube_mapping.txt, where it is there: a clip id and "vidN" a line. Video files may have either name.

Protocol "official": every sentence of a test video is a query, 27,763 of them against 670 videos. 961 sentences belong
to more than one test video. Clips are cut already, so that `start` and `end` stay empty.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .annotation import Annotation
from .annotation_files import AnnotationFolder, read_json, read_lines
from .benchmark_builder import BenchmarkBuilder
from .benchmark_info import Counts, Protocol
from .restricted_pickle import read_pickle

_LISTS = {"train": "train_list.txt", "validation": "val_list.txt", "test": "test_list.txt"}
_JSON = ("captions_msvd.json", "*captions*.json")
_TEXT = "AllVideoDescriptions.txt"
_PICKLE = "raw-captions.pkl"
_MAPPING = "youtube_mapping.txt"


class MSVD(BenchmarkBuilder):
    """See the module."""

    NAME = "msvd"
    PROTOCOLS = {
        "official": Protocol(
            "MSVD official splits: every sentence is a query (about 41 a video), against 670 videos",
            {
                "train": Counts((1_200, 1_200), (48_774, 48_774)),
                "validation": Counts((100, 100), (4_290, 4_290)),
                "test": Counts((670, 670), (27_763, 27_763)),
            },
        )
    }

    @staticmethod
    def read_files(folder: AnnotationFolder, split: str, protocol: str) -> Iterator[Annotation]:
        captions = _captions(folder)
        other_names = {}
        if path := folder.find_if_there(_MAPPING):
            other_names = {clip: (name,) for clip, name in _split_lines(path)}
        for clip in read_lines(folder.find(_LISTS[split])):
            own = tuple(caption.strip() for caption in captions.get(clip, []))
            yield Annotation(clip, own, (clip, *other_names.get(clip, ())))


def _captions(folder: AnnotationFolder) -> Mapping[str, Sequence[str]]:
    """Clip id -> sentences in the order of the file."""
    path = folder.find(*_JSON, _TEXT, _PICKLE)
    if path.suffix.lower() == ".txt":
        captions = defaultdict(list)
        for clip, caption in _split_lines(path):
            captions[clip].append(caption)
        return captions
    if path.suffix.lower() == ".json":
        return _checked(path, read_json(path, dict), str)
    return {clip: [" ".join(words) for words in own] for clip, own in _checked(path, read_pickle(path), list).items()}


def _checked(path: Path, captions: object, kind: type) -> dict:
    """That the file holds clip ids and lists of sentences, which are strings or lists of words."""
    if isinstance(captions, dict) and all(isinstance(own, list) for own in captions.values()):
        sentences = [sentence for own in captions.values() for sentence in own]
        words = [word for sentence in sentences if kind is list for word in sentence]
        if all(isinstance(sentence, kind) for sentence in sentences) and all(isinstance(word, str) for word in words):
            return captions
    raise ValueError(f"{path} is not a dictionary of clip ids to lists of sentences: it is another file")


def _split_lines(path: Path) -> list[tuple[str, str]]:
    """The first word and the rest of every line."""
    pairs = []
    for line in read_lines(path):
        first, *rest = line.split(maxsplit=1)
        if not rest:
            raise ValueError(f"{path} has a line with nothing after {first}")
        pairs.append((first, rest[0]))
    return pairs
