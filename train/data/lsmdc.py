"""LSMDC 2016 (Rohrbach et al., IJCV 2017): clips of films with a sentence each out of the audio description.

Files read, anywhere in the folder: LSMDC16_annos_training.csv, LSMDC16_annos_val.csv and, for the test,
LSMDC16_challenge_1000_publictect.csv (spelt so). A line has six fields between tabs, no quoting: clip id, begin and end
aligned, begin and end as cut, sentence. Video files are <film>/<clip id>.avi, or <clip id>.avi in any folder.

Protocol "challenge-1000": 1,000 sentences against 1,000 clips, one each. Clip ids repeat in the training file: the
lines of one clip become one row with several captions, in the order of the file. Clips are cut already, so that `start`
and `end` stay empty.
"""

import re
from collections import defaultdict
from collections.abc import Iterator

from .annotation import Annotation
from .annotation_files import AnnotationFolder, read_tab_separated
from .benchmark_builder import BenchmarkBuilder
from .benchmark_info import Counts, Protocol

_FILES = {
    "train": ("LSMDC16_annos_training.csv",),
    "validation": ("LSMDC16_annos_val.csv",),
    "test": ("LSMDC16_challenge_1000_publictect.csv", "LSMDC16_challenge_1000_public*.csv"),
}
_FIELDS = 6
_TIME = r"\d\d\.\d\d\.\d\d\.\d\d\d"
_CLIP = re.compile(rf"(?P<film>.+)_{_TIME}-{_TIME}")


class LSMDC(BenchmarkBuilder):
    """See the module."""

    NAME = "lsmdc"
    PROTOCOLS = {
        "challenge-1000": Protocol(
            "LSMDC 2016 public challenge list: 1,000 sentences against 1,000 clips, one sentence a clip",
            {
                # About 101 thousand: releases and copies of the training file differ by some hundred clips.
                "train": Counts((100_500, 101_500), (100_500, 101_500)),
                "validation": Counts((7_408, 7_408), (7_408, 7_408)),
                "test": Counts((1_000, 1_000), (1_000, 1_000)),
            },
        )
    }

    @staticmethod
    def read_files(folder: AnnotationFolder, split: str, protocol: str) -> Iterator[Annotation]:
        sentences = defaultdict(list)
        for clip, *_, sentence in read_tab_separated(folder.find(*_FILES[split]), _FIELDS):
            sentences[clip].append(sentence.strip())
        for clip, own in sentences.items():
            name = _CLIP.fullmatch(clip)
            yield Annotation(clip, tuple(own), (f"{name['film']}/{clip}", clip) if name else (clip,))
