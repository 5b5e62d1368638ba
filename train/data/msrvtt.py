"""MSR-VTT (Xu et al., CVPR 2016): 10,000 web video clips with 20 sentences each.

Files read, anywhere in the folder:

- MSRVTT_data.json (any name with MSRVTT_data in it), or train_val_videodatainfo.json and test_videodatainfo.json: the
  list `videos` with `video_id` and `split` ("train", "validate", "test") and the list `sentences` with `video_id` and
  `caption`. The second pair together holds what the first file does; each is read where it is there.
- MSRVTT_JSFUSION_test.csv (`key,vid_key,video_id,sentence`), MSRVTT_train.9k.csv and MSRVTT_train.7k.csv (`video_id`):
  the lists of the protocols 1k-A.
- MSRVTT_train.full.csv, MSRVTT_val.full.csv, MSRVTT_test.full.csv (`video_id`): where they are there, the lists of the
  full split; otherwise the field `split` says it.

Protocols: "1k-A" (Yu et al., ECCV 2018) tests on 1,000 videos with one sentence each, out of the official test split,
and trains on 9,000 videos (all but those) or on 7,010 (the official training and validation splits). Its validation is
the official 497 videos, which lie inside both training lists: the list is given as it is, and who chooses a model by
them must keep them out of training. "full" is the official split. Numbers of the one are never compared to the other's.
Clips are cut already, so that `start` and `end` stay empty: "start time" in the files counts in the uncut video.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .annotation import Annotation
from .annotation_files import AnnotationFolder, read_csv, read_json, read_strings
from .benchmark_builder import BenchmarkBuilder
from .benchmark_info import Counts, Protocol

_JSON = "*MSRVTT_data*.json"
_JSON_PARTS = ("train_val_videodatainfo.json", "test_videodatainfo.json")
_TEST_1K_A = "MSRVTT_JSFUSION_test.csv"
_FULL_LISTS = {"train": "MSRVTT_train.full.csv", "validation": "MSRVTT_val.full.csv", "test": "MSRVTT_test.full.csv"}
_SPLIT_FIELDS = {"train": "train", "validation": "validate", "test": "test"}
_VALIDATION = Counts((497, 497), (9_940, 9_940))


def _protocol_1k_a(videos: int) -> Protocol:
    return Protocol(
        f"MSR-VTT 1k-A (JSFUSION list): 1,000 sentences against 1,000 videos, one each; trained on {videos:,} videos",
        {
            "train": Counts((videos, videos), (20 * videos, 20 * videos)),
            "validation": _VALIDATION,
            "test": Counts((1_000, 1_000), (1_000, 1_000)),
        },
    )


class MSRVTT(BenchmarkBuilder):
    """See the module."""

    NAME = "msrvtt"
    PROTOCOLS = {
        "1k-A-9k": _protocol_1k_a(9_000),
        "1k-A-7k": _protocol_1k_a(7_010),
        "full": Protocol(
            "MSR-VTT full split: every sentence is a query (20 a video), against 2,990 videos; trained on 6,513 videos",
            {
                "train": Counts((6_513, 6_513), (130_260, 130_260)),
                "validation": _VALIDATION,
                "test": Counts((2_990, 2_990), (59_800, 59_800)),
            },
        ),
    }

    @staticmethod
    def read_files(folder: AnnotationFolder, split: str, protocol: str) -> Iterator[Annotation]:
        if split == "test" and protocol != "full":
            for video_id, sentence in read_csv(folder.find(_TEST_1K_A), ("video_id", "sentence")):
                yield _annotation(video_id, [sentence])
            return
        contents = _read_all(folder)
        sentences = defaultdict(list)
        for path, part in contents:
            for entry in part["sentences"]:
                video_id, caption = read_strings(path, entry, "video_id", "caption")
                sentences[video_id].append(caption)
        for video_id in _listed(folder, split, protocol, contents):
            yield _annotation(video_id, sentences.get(video_id, []))


def _annotation(video_id: str, sentences: list[str]) -> Annotation:
    return Annotation(video_id, tuple(sentence.strip() for sentence in sentences), (video_id,))


def _read_all(folder: AnnotationFolder) -> list[tuple[Path, dict[str, Any]]]:
    path = folder.find_if_there(_JSON)
    paths = [path] if path else [part for name in _JSON_PARTS if (part := folder.find_if_there(name))]
    if not paths:
        folder.find(_JSON, *_JSON_PARTS)
    contents = [(path, read_json(path, dict)) for path in paths]
    for path, part in contents:
        if not isinstance(part.get("videos"), list) or not isinstance(part.get("sentences"), list):
            raise ValueError(f"{path} has no lists `videos` and `sentences`: it is another file")
    return contents


def _listed(folder: AnnotationFolder, split: str, protocol: str, contents: list[tuple[Path, dict]]) -> list[str]:
    """The ids of the split's videos, in order."""
    if split == "train" and protocol != "full":
        path = folder.find(f"MSRVTT_train.{protocol.removeprefix('1k-A-')}.csv")
    else:
        path = folder.find_if_there(_FULL_LISTS[split])
    if path:
        return [video_id for (video_id,) in read_csv(path, ("video_id",))]
    videos = [read_strings(path, entry, "video_id", "split") for path, part in contents for entry in part["videos"]]
    return [video_id for video_id, own in videos if own == _SPLIT_FIELDS[split]]
