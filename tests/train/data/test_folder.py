import csv
import hashlib
import json
import os
import random
from pathlib import Path

import pytest
from miniature_benchmarks import sentence, write_mp4

from hcmi.cli import main
from hcmi.processing.video_reading import read_frames
from hcmi.train.data.benchmark_info import SPLITS, benchmark_info
from hcmi.train.data.benchmarks import load_benchmark, read_annotations
from hcmi.train.data.checking import check_benchmark
from hcmi.train.data.folder import OwnVideos

CLIPS = os.environ.get("HCMI_CLIPS")

# Three videos of several captions, with a comma, a quotation mark and a line break; the splits by three of their names.
SAID = [
    ("deep/a.mp4", "a dog runs, then stops", "Train"),
    ("b.MOV", 'a man says "no"', "val"),
    ("deep/a.mp4", "a dog is running", "training"),
    ("c", "zwei Körbe\nund ein Ball", " TEST "),
    ("b.MOV", "someone refuses", "dev"),
]
RESULT = {
    "train": [("deep/a", ("a dog runs, then stops", "a dog is running"))],
    "validation": [("b", ('a man says "no"', "someone refuses"))],
    "test": [("c", ("zwei Körbe\nund ein Ball",))],
}


def write_table(path: Path, rows, columns=("video", "caption", "split"), delimiter=",", encoding="utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([columns, *rows])
    return path


def write(path: Path, contents: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(contents, encoding="utf-8")
    return path


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def read(annotations, split="train"):
    return [(found.video_id, found.captions) for found in read_annotations("folder", split, annotations)]


def read_all(annotations):
    return {split: read(annotations, split) for split in SPLITS}


@pytest.fixture
def load(tmp_path):
    def call(split="train", **place):
        return load_benchmark("folder", split, cache_dir=tmp_path / "cache", **place)

    return call


@pytest.mark.parametrize("file", ["file_name", "File", "VIDEO", "path", " video_id "])
@pytest.mark.parametrize("caption", ["caption", "Text", "sentence", "captions", "description"])
def test_columns_by_their_usual_names(tmp_path, file, caption):
    rows = [(7, *row) for row in SAID]
    table = write_table(tmp_path / "mine.csv", rows, ("number", file, caption, "Split"))
    assert read_all(table) == RESULT


@pytest.mark.parametrize(
    ("name", "delimiter", "encoding"),
    [("a.csv", ",", "utf-8-sig"), ("a.csv", ";", "latin-1"), ("a.TSV", "\t", "utf-8"), ("a.csv", "\t", "utf-8")],
)
def test_tables_as_programs_write_them(tmp_path, name, delimiter, encoding):
    assert read_all(write_table(tmp_path / name, SAID, delimiter=delimiter, encoding=encoding)) == RESULT


def test_json_in_its_forms(tmp_path):
    rows = [{"video": video, "caption": caption, "split": split} for video, caption, split in SAID]
    lists = [
        {"video": "deep/a.mp4", "captions": [SAID[0][1], f" {SAID[2][1]} "], "split": "train"},
        {"video": "b.MOV", "captions": [SAID[1][1], "", SAID[4][1]], "split": "val"},
        {"video": "c", "captions": SAID[3][1], "split": "test"},
    ]
    by_file = {row["video"]: {key: value for key, value in row.items() if key != "video"} for row in lists}
    for number, contents in enumerate((rows, lists, by_file)):
        assert read_all(write(tmp_path / f"{number}.json", json.dumps(contents))) == RESULT
    for number, contents in enumerate((rows, lists)):
        lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in contents)
        assert read_all(write(tmp_path / f"{number}.jsonl", lines + "\n")) == RESULT
    plain = write(tmp_path / "plain.json", json.dumps({"a.mp4": "one", "b.mp4": ["two", "three"], "c.mp4": ["four"]}))
    assert sorted(video for own in read_all(plain).values() for video in own) == [
        ("a", ("one",)),
        ("b", ("two", "three")),
        ("c", ("four",)),
    ]


@pytest.mark.parametrize("form", [json.dumps, repr])
def test_lists_inside_a_table(tmp_path, form):
    own = [("a.mp4", form(["it's one", "two"]), "train"), ("b.mp4", "[not a list", "train")]
    table = write_table(tmp_path / "a.csv", own[:1], ("video", "captions", "split"))
    assert read(table) == [("a", ("it's one", "two"))]
    table = write_table(tmp_path / "a.csv", own, ("video", "captions", "split"))
    with pytest.raises(ValueError, match=r"a.csv, line 3: captions begins as a list and is none"):
        read(table)
    assert read(write_table(tmp_path / "b.csv", own[1:])) == [("b", ("[not a list",))]


def test_stretches_of_a_file_are_videos_of_their_own(tmp_path):
    columns = ("video", "start", "end", "caption", "split")
    rows = [
        ("a.mp4", 0, 2.5, "begins", "train"),
        ("a.mp4", "2.5", "", "ends", "train"),
        ("a.mp4", " 0.0 ", 2.50, "starts", "train"),
        ("b.mp4", "", "", "whole", "train"),
    ]
    found = read_annotations("folder", "train", write_table(tmp_path / "a.csv", rows, columns))
    assert [(one.video_id, one.captions, one.start, one.end) for one in found] == [
        ("a_0_2.5", ("begins", "starts"), 0.0, 2.5),
        ("a_2.5_end", ("ends",), 2.5, None),
        ("b", ("whole",), None, None),
    ]


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("00:01", "", "start is '00:01'; it has to be a number of seconds"),
        ("-1", "", "start is '-1'"),
        ("", "nan", "end is 'nan'"),
        ("", "inf", "end is 'inf'"),
        ("3", "3", r"would end \(3 s\) before it starts \(3 s\)"),
        ("", "0", r"would end \(0 s\) before it starts \(0 s\)"),
    ],
)
def test_impossible_seconds_are_named(tmp_path, start, end, message):
    table = write_table(tmp_path / "a.csv", [("a.mp4", "a dog", start, end)], ("video", "caption", "start", "end"))
    with pytest.raises(ValueError, match=rf"a.csv, line 2: .*{message}"):
        read(table)


def test_ids_may_differ_from_the_files(tmp_path, load):
    rows = [("x/1.mp4", "one", "first", "train"), ("y/1.mp4", "two", "second", "train")]
    table = write_table(tmp_path / "a.csv", rows, ("file", "caption", "video_id", "split"))
    videos = touch(tmp_path / "videos", "x/1.mp4", "y/1.mp4")
    dataset = load(annotations=table, videos=videos)
    assert dataset["video_id"] == ["first", "second"]
    assert dataset["video"] == [str(videos / "x" / "1.mp4"), str(videos / "y" / "1.mp4")]
    with pytest.raises(ValueError, match=r"line 3: the file is y/1.mp4, but in .*line 2, .*the same video, x/1.mp4"):
        read(
            write_table(
                tmp_path / "b.csv", [(*row[:2], "same", "train") for row in rows], ("file", "text", "video_id", "split")
            )
        )


def test_a_video_in_two_splits_is_refused(tmp_path):
    table = write_table(tmp_path / "a.csv", [("a.mp4", "one", "train"), ("a.mp4", "two", "test")])
    with pytest.raises(ValueError, match=r"line 3: the split is test, but in .*line 2, .*the same video, train"):
        read(table)


def test_without_a_split_column_a_hash_divides(tmp_path):
    names = [f"folder/clip {number}" for number in range(200)]
    rows = [(f"{name}.mp4", "a dog") for name in names]
    found = read_all(write_table(tmp_path / "a.csv", rows, ("video", "caption")))
    for name in names:
        digit = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
        assert (name, ("a dog",)) in found[{0: "test", 1: "validation"}.get(digit, "train")]
    assert sum(map(len, found.values())) == 200 and 140 < len(found["train"]) < 180

    random.Random(0).shuffle(rows)
    more = [*rows, *((f"another {number}.mp4", "a cat") for number in range(100))]
    again = read_all(write_table(tmp_path / "b.csv", more, ("video", "caption")))
    assert all(set(found[split]) < set(again[split]) for split in SPLITS)


@pytest.mark.parametrize("count", [3, 4, 7])
@pytest.mark.parametrize("prefix", ["a", "b", "c", "d"])
def test_every_split_gets_a_video(tmp_path, count, prefix):
    rows = [(f"{prefix}{number}.mp4", "a dog") for number in range(count)]
    sizes = []
    for order in (rows, rows[::-1]):
        found = read_all(write_table(tmp_path / "a.csv", order, ("video", "caption")))
        sizes.append({split: sorted(own) for split, own in found.items()})
        assert all(found.values()) and sum(map(len, found.values())) == count
    assert sizes[0] == sizes[1]


def test_two_videos_cannot_be_divided(tmp_path):
    with pytest.raises(ValueError, match="three videos are the least"):
        read(write_table(tmp_path / "a.csv", [("a", "one"), ("b", "two")], ("video", "caption")))


def test_stretches_of_one_file_stay_in_one_split(tmp_path):
    rows = [(f"film{film}.mp4", second, second + 1, "a scene") for film in range(12) for second in range(5)]
    found = read_all(write_table(tmp_path / "a.csv", rows, ("video", "start", "end", "caption")))
    films = {split: {video_id.partition("_")[0] for video_id, _ in own} for split, own in found.items()}
    assert sum(map(len, films.values())) == 12 and sum(map(len, found.values())) == 60


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.csv", "clip,words\na,b\n", r"has the columns 'clip', 'words', and none for the video's file: .*file_name"),
        (
            "a.csv",
            "video,words\na,b\n",
            r"columns 'video', 'words', and none for the caption: .*caption, captions, text",
        ),
        ("a.csv", "video,caption,text\na,b,c\n", "caption and text may both be the caption"),
        ("a.csv", "video,caption,Caption\na,b,c\n", "several columns called 'caption'"),
        (
            "a.csv",
            "video,caption\na.mp4,a dog, then a cat\n",
            "line 2: not as many values .*a comma in it needs quotes",
        ),
        ("a.csv", "video,caption\na.mp4\n", "line 2: not as many values"),
        ("a.csv", 'video,caption\na.mp4,"a "dog"\n', "a.csv, in the row after line 1: .*quotes in quotes are doubled"),
        ("a.csv", "video,caption\n ,a dog\n", "line 2: video is ' '; it has to name the video"),
        ("a.csv", "video,caption,split\na,b,later\n", "line 2: split is 'later'; it has to be one of train, training;"),
        ("a.csv", "video,caption,split\na,b,\n", "line 2: split is ''"),
        ("a.csv", "video,caption\n", "has no rows"),
        ("a.csv", "", "has no rows"),
        ("a.txt", "a dog", "is none of .csv, .tsv, .json, .jsonl"),
        ("a.json", "{", "a.json is no JSON"),
        ("a.json", '"a"', "holds neither a list nor an object"),
        ("a.json", '["a"]', r'entry 0 is no object: an entry is to look like \{"video"'),
        ("a.json", '{"a.mp4": 3}', "a.mp4: captions is '3'; it has to be a text or a list of texts"),
        ("a.json", '[{"video": "a", "caption": ["b", 1]}]', "entry 0: caption is"),
        ("a.jsonl", '{"video": "a", "caption": "b"}\n{', "line 2 is no JSON"),
        ("a.jsonl", "[]", "line 1 is no object"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_way_out(tmp_path, name, contents, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / name, contents))


def test_a_split_that_nobody_named_is_refused(tmp_path, load):
    table = write_table(tmp_path / "a.csv", [("a.mp4", "one", "train"), ("b.mp4", "two", "test")])
    touch(tmp_path, "a.mp4", "b.mp4")
    assert len(load(annotations=table)) == 1
    with pytest.raises(ValueError, match=r"a.csv: no row .*validation, only to test, train: .*--choose last"):
        load("validation", annotations=table)
    report = check_benchmark("folder", annotations=tmp_path)
    assert [report["splits"][split]["complete"] for split in SPLITS] == [True, False, True]


@pytest.mark.parametrize("named", ["file", "folder", "videos"])
def test_the_table_and_the_videos_in_one_folder(tmp_path, load, named):
    touch(tmp_path, "deep/a.mp4", "b.MOV", "c.webm")
    table = write_table(tmp_path / "captions.csv", SAID)
    place = {"file": {"annotations": table}, "folder": {"annotations": tmp_path}, "videos": {"videos": tmp_path}}
    for split, own in RESULT.items():
        dataset = load(split, **place[named])
        assert [(row["video_id"], tuple(row["captions"])) for row in dataset] == own
        info = benchmark_info(dataset)
        assert (info.benchmark, info.protocol, info.split, info.complete) == ("folder", "own", split, True)
        assert dataset.info.config_name == "own"
    assert dataset["video"] == [str(tmp_path / "c.webm")]
    streamed = load_benchmark("folder", "test", **place[named], streaming=True)
    assert list(streamed) == list(dataset)


def test_paths_in_the_table(tmp_path, load):
    videos = touch(tmp_path / "videos", "x/1.mp4", "y/1.mp4", "2.mp4", "3.mp4", "4.mp4")
    files = {
        "./x\\1.mp4": "x/1.mp4",
        str(videos / "y" / "1.mp4"): "y/1.mp4",
        "../videos/2.mp4": "2.mp4",
        "videos/3.mp4": "3.mp4",
        "/another/machine/4.mp4": "4.mp4",
    }
    table = write_table(tmp_path / "lists" / "a.csv", [(file, "a dog", "train") for file in files])
    dataset = load(annotations=table, videos=videos)
    assert dataset["video"] == [str(videos / name) for name in files.values()]


@pytest.mark.parametrize("files", [["z/1.mp4"], ["/far/x/1.mp4", "/far/y/1.mp4"]])
def test_no_video_is_taken_for_another(tmp_path, load, files):
    touch(tmp_path / "videos", "y/1.mp4")
    table = write_table(tmp_path / "a.csv", [(file, "a dog", "train") for file in files])
    with pytest.raises(ValueError, match=rf"{len(files)} of {len(files)} videos have no file among the 1 files"):
        load(annotations=table, videos=tmp_path / "videos")


def test_missing_videos_and_captions_are_checked_as_elsewhere(tmp_path, load):
    touch(tmp_path, "a.mp4", "b.mp4")
    rows = [("a.mp4", "one", "train"), ("b.mp4", " ", "train"), ("gone.mp4", "three", "train")]
    table = write_table(tmp_path / "a.csv", rows)
    with pytest.raises(
        ValueError, match=r"have no caption in .*: b; 1 of 3 videos have no file .*: gone.*--allow-miss"
    ):
        load(annotations=table)
    info = benchmark_info(load(annotations=table, allow_missing=True))
    assert (info.videos, info.missing, info.complete) == (1, 2, False)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_videofolder_with_one_metadata_file(tmp_path, load, form):
    touch(tmp_path, "1.mp4", "more/1.mp4", "2.mp4")
    rows = [("1.mp4", "one"), ("more/1.mp4", "two"), ("2.mp4", "three")]
    if form == "csv":
        write_table(tmp_path / "metadata.csv", rows, ("file_name", "text"))
    else:
        lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
        write(tmp_path / "metadata.jsonl", "\n".join(lines))
    touch(tmp_path, "notes.json")
    found = {row["video_id"]: row["video"] for split in SPLITS for row in load(split, videos=tmp_path)}
    assert found == {name.removesuffix(".mp4"): str(tmp_path / name) for name, _ in rows}


def test_a_videofolder_with_a_metadata_file_for_each_split(tmp_path, load):
    for folder, text in (("train", "one"), ("valid", "two"), ("test", "three")):
        touch(tmp_path / folder, "1.mp4")
        write_table(tmp_path / folder / "metadata.csv", [("1.mp4", text)], ("file_name", "text"))
    for split, folder, text in (("train", "train", "one"), ("validation", "valid", "two"), ("test", "test", "three")):
        (row,) = load(split, videos=tmp_path)
        assert (row["video_id"], row["captions"]) == (f"{folder}/1", [text])
        assert row["video"] == str(tmp_path / folder / "1.mp4")
    (tmp_path / "test").rename(tmp_path / "later")
    with pytest.raises(ValueError, match=r"later/metadata.csv, line 2: no split, while other rows have one"):
        load(videos=tmp_path)


def test_which_table_is_meant(tmp_path, load):
    touch(tmp_path, "a.mp4")
    with pytest.raises(ValueError, match=r"has no table of captions: name one file .*metadata.csv beside the videos"):
        load(videos=tmp_path)
    for name in ("x.csv", "y.jsonl"):
        write(tmp_path / name, "video,caption\n")
    with pytest.raises(ValueError, match=r"has x.csv, y.jsonl: name one file .*--annotations"):
        load(videos=tmp_path)
    for name in ("metadata.csv", "metadata.json"):
        write(tmp_path / name, "video,caption\n")
    with pytest.raises(ValueError, match="has 2 files called metadata: keep one"):
        load(videos=tmp_path)
    with pytest.raises(ValueError, match=r"name the folder of the videos \(videos\), and the file with their captions"):
        OwnVideos(split="train")
    with pytest.raises(ValueError, match="no copy of folder on the Hub"):
        load(annotations="hf://someone/captions", videos=tmp_path)
    with pytest.raises(ValueError, match=r"there is no folder .*absent.csv"):
        load(annotations=tmp_path / "absent.csv", videos=tmp_path)


def test_the_check_command_reads_the_videos(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    for number in range(3):
        write_mp4(tmp_path / "videos" / f"{number}.mp4", number)
    rows = [(f"{number}.mp4", sentence(number)) for number in range(3)]
    table = write_table(tmp_path / "captions.csv", rows, ("video", "caption"))
    place = ["folder", "--annotations", str(table), "--videos", str(tmp_path / "videos"), "--num-workers", "1"]
    assert main(["data", "check", *place, "--decode", "--frames", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("folder, own: own videos") and "test: 1 videos, 1 captions" in out


@pytest.mark.skipif(not CLIPS, reason="HCMI_CLIPS names no folder of real clips")
def test_real_clips(tmp_path, load):
    said = json.loads((Path(CLIPS) / "captions.json").read_text())
    rows = [(file, caption) for file, entry in said.items() for caption in entry["captions"]]
    table = write_table(tmp_path / "captions.csv", rows, ("video", "caption"))
    loaded = [row for split in SPLITS for row in load(split, annotations=table, videos=CLIPS)]
    assert {os.path.basename(row["video"]): len(row["captions"]) for row in loaded} == {
        file: len(entry["captions"]) for file, entry in said.items()
    }
    for row in loaded[:4]:
        assert len(read_frames(row["video"], lambda start, end: [start, (start + end) / 2]).frames) == 2
    # The file that lies beside the clips is one of the forms as it is.
    own = {
        split: {one.video_id for one in read_annotations("folder", split, CLIPS)} for split in ("train", "validation")
    }
    for file, entry in said.items():
        assert file.rpartition(".")[0] in own[entry["split"]]
