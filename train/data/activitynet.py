"""ActivityNet Captions (Krishna et al., ICCV 2017): YouTube videos whose events are described, retrieved by paragraph.

Files read, anywhere in the folder: train.json, val_1.json and val_2.json, each a dictionary of "v_" and the YouTube id
to `sentences` in order (`timestamps` and `duration` are not read). Video files are v_<id>.* or <id>.*. The id lists
beside them are not read: the captions decide. (train_ids.json and val_ids.json list a few ids without captions: 15 of
10,022, and 9 of 4,925 for val_1, 41 for val_2.)

Protocols: the sentences of a video, each without the blanks around it, are joined to its one caption; whole videos, so
that `start` and `end` stay empty. "val_1" tests on the first set of validation captions, as published numbers do,
"val_2" on the second one. Both train on the same videos, and there is no further split to choose a model by.
"""

from collections.abc import Iterator

from .annotation import Annotation
from .annotation_files import AnnotationFolder, read_json
from .benchmark_builder import BenchmarkBuilder
from .benchmark_info import Counts, Protocol

_PREFIX = "v_"


def _protocol(name: str, videos: int) -> Protocol:
    return Protocol(
        f"ActivityNet Captions, {name}: sentences of a video joined, {videos:,} paragraphs against {videos:,} videos",
        {
            "train": Counts((10_009, 10_009), (10_009, 10_009)),
            "test": Counts((videos, videos), (videos, videos)),
        },
    )


class ActivityNet(BenchmarkBuilder):
    """See the module."""

    NAME = "activitynet"
    PROTOCOLS = {"val_1": _protocol("val_1", 4_917), "val_2": _protocol("val_2", 4_885)}

    @staticmethod
    def read_files(folder: AnnotationFolder, split: str, protocol: str) -> Iterator[Annotation]:
        path = folder.find(f"{'train' if split == 'train' else protocol}.json")
        for video_id, entry in read_json(path, dict).items():
            sentences = entry.get("sentences") if isinstance(entry, dict) else None
            if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
                raise ValueError(f"{path} has no list of sentences for {video_id}: it is another file")
            paragraph = " ".join(sentence.strip() for sentence in sentences)
            yield Annotation(video_id, (paragraph,) * bool(paragraph), (video_id, video_id.removeprefix(_PREFIX)))
