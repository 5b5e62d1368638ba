"""Hand-made copies of the five benchmarks, a few videos each: annotation files in all formats, real MP4 files."""

import json
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hcmi.train.data.benchmark_info import Counts, Protocol
from hcmi.train.data.benchmarks import BENCHMARKS

_COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230), "yellow": (230, 220, 40)}
_MOVES = ("left", "right", "up", "down", "nowhere")


@dataclass(frozen=True)
class Miniature:
    """
    A written copy.

    Attributes:
        name: of the benchmark.
        annotations, videos: folders.
        counts: (protocol, split) -> number of videos and captions.
    """

    name: str
    annotations: Path
    videos: Path
    counts: Mapping[tuple[str, str], tuple[int, int]]

    @property
    def place(self) -> dict[str, Path]:
        """Keywords of `load_benchmark`."""
        return {"annotations": self.annotations, "videos": self.videos}


def sentence(number: int, variant: int = 0) -> str:
    """What is said about video `number`: another sentence for each of the first 20, in three variants."""
    colour, move = list(_COLOURS)[number % 4], _MOVES[number % 5]
    return (
        f"a {colour} square moves {move}",
        f"the square that goes {move} is {colour}",
        f"someone pushes a {colour} thing {move}",
    )[variant]


def write_mp4(path: Path, number: int, frames: int = 12) -> None:
    """Video `number` of `sentence`: MP4, whatever the name, 48 × 32 pixels, 12 frames a second."""
    colour, move = list(_COLOURS.values())[number % 4], number % 5
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in range(frames):
            way = frame if move in (1, 3) else frames - frame
            left, top = (20 + way - 6 if move < 2 else 20), (12 + way - 6 if move in (2, 3) else 12)
            pixels = np.full((32, 48, 3), 128, np.uint8)
            pixels[top : top + 8, left : left + 8] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def write_miniature(name: str, folder: Path, form: str | None = None, *, decodable: bool = True) -> Miniature:
    """
    Writes a benchmark: 8 videos to train on or a few more, 4 to validate where it has such a split, 4 to test.

    Args:
        name: of the benchmark.
        folder: gets the sub-folders `annotations` and `videos`.
        form: one of `FORMS[name]`; default the first.
        decodable: whether the videos are real; otherwise they are empty files.
    """
    annotations, videos = folder / "annotations", folder / "videos"
    annotations.mkdir(parents=True)
    names, counts = _WRITERS[name](annotations, form or FORMS[name][0])
    for number, file_name in enumerate(names):
        path = videos / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        if decodable:
            write_mp4(path, number)
        else:
            path.touch()
    return Miniature(name, annotations, videos, counts)


def expect_miniature_counts(monkeypatch: pytest.MonkeyPatch, miniature: Miniature) -> None:
    """From now on the protocols want the counts of the copy, so that it is complete."""
    protocols: dict[str, Protocol] = {}
    for protocol, known in BENCHMARKS[miniature.name].protocols.items():
        counts = {split: miniature.counts[protocol, split] for split in known.splits}
        wanted = {split: Counts((count, count), (said, said)) for split, (count, said) in counts.items()}
        protocols[protocol] = replace(known, splits=wanted)
    monkeypatch.setattr(BENCHMARKS[miniature.name].code, "PROTOCOLS", protocols)


_Written = tuple[Iterable[str], Mapping[tuple[str, str], tuple[int, int]]]


def _write_msrvtt(folder: Path, form: str) -> _Written:
    splits = {"train": range(8), "validate": range(8, 12), "test": range(12, 20)}
    (folder / "lists").mkdir()
    ids = {"train.9k": range(16), "train.7k": range(12)}
    if form == "data_json":
        _json(folder / "deep" / "MSRVTT_data.json", _msrvtt_json(splits))
        ids |= {"train.full": splits["train"], "val.full": splits["validate"], "test.full": splits["test"]}
    else:
        _json(folder / "train_val_videodatainfo.json", _msrvtt_json({s: splits[s] for s in ("train", "validate")}))
        _json(folder / "test_videodatainfo.json", _msrvtt_json({"test": splits["test"]}))
    for name, numbers in ids.items():
        _lines(folder / "lists" / f"MSRVTT_{name}.csv", ["video_id", *(f"video{n}" for n in numbers)])
    rows = [f'ret{n},msr{n},video{n},"{sentence(n)}, 1k-A"' for n in range(16, 20)]
    _lines(folder / "lists" / "MSRVTT_JSFUSION_test.csv", ["key,vid_key,video_id,sentence", *rows])
    sizes = {"1k-A-9k": (16, 4, None), "1k-A-7k": (12, 4, None), "full": (8, 4, 8)}
    counts = {
        (protocol, split): (4, 4) if size is None else (size, 3 * size)
        for protocol, own in sizes.items()
        for split, size in zip(("train", "validation", "test"), own, strict=True)
    }
    return [f"{'TestVideo' if n > 11 else 'TrainValVideo'}/video{n}.mp4" for n in range(20)], counts


def _msrvtt_json(splits: Mapping[str, Iterable[int]]) -> dict[str, Any]:
    videos = [
        {"video_id": f"video{n}", "split": split, "start time": 7.5} for split, own in splits.items() for n in own
    ]
    said = [(video["video_id"], variant) for variant in range(3) for video in videos]
    sentences = [
        {"sen_id": k, "video_id": video_id, "caption": f"{sentence(int(video_id.removeprefix('video')), variant)} "}
        for k, (video_id, variant) in enumerate(said)
    ]
    return {"info": {}, "videos": videos, "sentences": sentences}


def _write_msvd(folder: Path, form: str) -> _Written:
    clips = [f"{'-' if n % 2 else '_'}q{n:02}Zt_k-8_{n}_{n + 9}" for n in range(16)]
    captions = {clip: [sentence(n, v) for v in range(2 + n % 2)] for n, clip in enumerate(clips)}
    splits = {"train": clips[:8], "val": clips[8:12], "test": clips[12:]}
    for split, own in splits.items():
        _lines(folder / f"{split}_list.txt", own)
    (folder / "youtube_mapping.txt").write_bytes("\r\n".join(f"{c} vid{n + 1}" for n, c in enumerate(clips)).encode())
    if form == "json":
        _json(folder / "captions_msvd.json", captions)
    elif form == "text":
        lines = [f"{clip} {caption}" for clip, own in captions.items() for caption in own]
        _lines(folder / "AllVideoDescriptions.txt", ["# written by hand", "", *lines])
    else:
        words = {clip: [caption.split() for caption in own] for clip, own in captions.items()}
        (folder / "raw-captions.pkl").write_bytes(pickle.dumps(words))
    names = [f"YouTubeClips/vid{n + 1}.avi" if form == "text" else f"{clip}.avi" for n, clip in enumerate(clips)]
    return names, _counts("official", {split: [captions[clip] for clip in own] for split, own in splits.items()})


def _write_lsmdc(folder: Path, form: str) -> _Written:
    films = ("0042_A_Film", "1099_Another_Film_2")
    clips = [f"{films[n % 2]}_00.{n:02}.10.120-00.{n:02}.12.886" for n in range(16)]
    clips[3] = clips[3].replace(".10.120", ".10.121").replace(".12.886", ".12.087")
    said = {clip: [f'{sentence(n)}, says "SOMEONE". '] for n, clip in enumerate(clips)}
    said[clips[2]].append("SOMEONE's square stops.")
    parts = {"annos_training": clips[:8], "annos_val": clips[8:12], "challenge_1000_publictect": clips[12:]}
    for part, own in parts.items():
        lines = [f"{clip}\t1\t2\t1\t2\t{said[clip][0]}" for clip in own]
        lines += [f"{clip}\t1\t2\t1\t2\t{caption}" for clip in own for caption in said[clip][1:]]
        _lines(folder / f"LSMDC16_{part}.csv", lines)
    names = [f"{films[n % 2]}/{clip}.avi" if form == "films" else f"{clip}.mp4" for n, clip in enumerate(clips)]
    own = dict(zip(("train", "val", "test"), ([said[clip] for clip in part] for part in parts.values()), strict=True))
    return names, _counts("challenge-1000", own)


def _write_didemo(folder: Path, form: str) -> _Written:
    extensions = ("mov", "avi", "", "3gp", "null", "MP4")
    videos = [f"1000{n}@N0{n % 3}_77{n}_ab{n}cd.{extensions[n % 6]}" for n in range(16)]
    splits = {"train": videos[:8], "val": videos[8:12], "test": videos[12:]}
    for split, own in splits.items():
        described = [*own, f"90001@N00_{split}_unlisted.avi"]
        # The descriptions of a video do not stand together.
        entries = [
            {"video": video, "description": f"{sentence(videos.index(video) if video in videos else 0, variant)}. "}
            | ({"times": [[0, 1]], "num_segments": 6, "annotation_id": 1} if form == "times" else {})
            for variant in range(3)
            for video in described
        ]
        _json(folder / ("test_data.json" if split == "test" else f"didemo_{split}_data.{form}.json"), entries)
        listed = [video if form == "times" else video.rpartition(".")[0] + "." for video in own]
        _lines(folder / f"{split}_list.txt", reversed(listed))
    names = [(f"{v}.mp4", f"{v.rpartition('.')[0]}.mp4", v)[n % 3] for n, v in enumerate(videos)]
    return names, _counts("paragraph", {split: [["a paragraph"]] * len(own) for split, own in splits.items()})


def _write_activitynet(folder: Path, form: str) -> _Written:
    ids = [f"{'-' if n % 2 else '_'}a{n}Bc-_{n}x" for n in range(12)]
    for part, numbers in {"train": range(8), "val_1": range(8, 12), "val_2": range(8, 11)}.items():
        sentences = {n: [f"{sentence(n)}.", f" {sentence(n, 1)}. ", f"  {part}."] for n in numbers}
        entries = {n: {"duration": 1.0, "timestamps": [[0, 1]] * 3, "sentences": own} for n, own in sentences.items()}
        _json(folder / f"{part}.json", {f"v_{ids[n]}": entry for n, entry in entries.items()})
    _json(folder / "train_ids.json", [f"v_{name}" for name in [*ids[:8], "without_captions"]])
    names = [f"{'v_' if form == 'prefixed' else ''}{name}.{'mkv' if n % 3 else 'mp4'}" for n, name in enumerate(ids)]
    counts = {(p, s): (n, n) for p, test in (("val_1", 4), ("val_2", 3)) for s, n in (("train", 8), ("test", test))}
    return names, counts


def _counts(protocol: str, said: Mapping[str, list[list[str]]]) -> dict[tuple[str, str], tuple[int, int]]:
    long = {"val": "validation"}
    return {(protocol, long.get(split, split)): (len(own), sum(map(len, own))) for split, own in said.items()}


def _lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _json(path: Path, contents: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(contents), "utf-8")


_WRITERS: dict[str, Callable[[Path, str], _Written]] = {
    "msrvtt": _write_msrvtt,
    "msvd": _write_msvd,
    "lsmdc": _write_lsmdc,
    "didemo": _write_didemo,
    "activitynet": _write_activitynet,
}
FORMS = {
    "msrvtt": ("data_json", "videodatainfo"),
    "msvd": ("json", "text", "pickle"),
    "lsmdc": ("films", "flat"),
    "didemo": ("times", "no_times"),
    "activitynet": ("prefixed", "bare"),
}
