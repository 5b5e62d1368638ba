"""The real annotation files, in the folder that the environment variable HCMI_BENCHMARKS names: counts and order."""

import csv
import json
import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from hcmi.train.data.annotation import Annotation
from hcmi.train.data.benchmark_info import benchmark_info
from hcmi.train.data.benchmarks import load_benchmark, protocols, read_annotations

if "HCMI_BENCHMARKS" not in os.environ:
    pytest.skip("HCMI_BENCHMARKS names no folder with the real annotation files", allow_module_level=True)
ROOT = Path(os.environ["HCMI_BENCHMARKS"])

# (benchmark, protocol, split) -> videos, captions, first and last id.
CONTENTS = {
    ("msrvtt", "1k-A-9k", "train"): (9_000, None, "video0", "video9999"),
    ("msrvtt", "1k-A-7k", "train"): (7_010, None, "video0", "video9"),
    ("msrvtt", "1k-A-9k", "validation"): (497, 9_940, "video6513", "video7009"),
    ("msrvtt", "1k-A-9k", "test"): (1_000, 1_000, "video9770", "video9871"),
    ("msrvtt", "full", "train"): (6_513, None, "video0", "video6512"),
    ("msrvtt", "full", "validation"): (497, 9_940, "video6513", "video7009"),
    ("msrvtt", "full", "test"): (2_990, 59_800, "video7010", "video9999"),
    ("msvd", "official", "train"): (1_200, 48_774, "-4wsuPCjDBc_5_15", "bQJQGoJF7_k_145_153"),
    ("msvd", "official", "validation"): (100, 4_290, "bQJQGoJF7_k_162_169", "eyMYc-37Sk4_0_10"),
    ("msvd", "official", "test"): (670, 27_763, "eyhzdC936uk_15_27", "zzit5b_-ukg_5_20"),
    ("lsmdc", "challenge-1000", "validation"): (
        7_408,
        7_408,
        "3009_BATTLE_LOS_ANGELES_00.03.07.170-00.03.09.675",
        "1051_Harry_Potter_and_the_goblet_of_fire_02.23.28.734-02.23.33.829",
    ),
    ("lsmdc", "challenge-1000", "test"): (
        1_000,
        1_000,
        "3086_UGLY_TRUTH_00.23.23.000-00.23.28.886",
        "1034_Super_8_00.47.36.947-00.47.39.171",
    ),
    ("didemo", "paragraph", "train"): (
        8_392,
        8_392,
        "100233434@N08_9622921646_c39ac10ea3.mp4",
        "99996214@N00_5277035407_bb8738f945.3gp",
    ),
    ("didemo", "paragraph", "validation"): (
        1_065,
        1_065,
        "10175347@N00_4841555141_4eeb6a515a.avi",
        "98498050@N00_3568952835_817654f7fd.avi",
    ),
    ("didemo", "paragraph", "test"): (
        1_004,
        1_004,
        "10015567@N08_3655084291_d8b58466fa.mov",
        "97352149@N00_6143993297_5d524acf9d.mp4",
    ),
    ("activitynet", "val_1", "train"): (10_009, 10_009, "v_QOlSCBRmfWY", "v_nlkmPF8TBdQ"),
    ("activitynet", "val_1", "test"): (4_917, 4_917, "v_uqiMw7tQ1Cc", "v_5nOc03oiFvk"),
    ("activitynet", "val_2", "test"): (4_885, 4_885, "v_uqiMw7tQ1Cc", "v_xabaKyhx7cg"),
}


def read(name: str, split: str, protocol: str | None = None) -> list[Annotation]:
    return read_annotations(name, split, ROOT / name, protocol)


def by_id(found: list[Annotation]) -> dict[str, tuple[str, ...]]:
    return {annotation.video_id: annotation.captions for annotation in found}


@pytest.mark.parametrize("place", CONTENTS, ids=" ".join)
def test_counts_and_first_and_last_rows(place):
    name, protocol, split = place
    videos, captions, first, last = CONTENTS[place]
    found = read(name, split, protocol)
    assert len(found) == videos == len(by_id(found))
    assert (found[0].video_id, found[-1].video_id) == (first, last)
    assert all(annotation.captions and all(annotation.captions) for annotation in found)
    assert all(caption == caption.strip() for annotation in found for caption in annotation.captions)
    expected = protocols(name)[protocol].splits[split]
    assert expected.videos[0] <= videos <= expected.videos[1]
    if captions is not None:
        assert sum(len(annotation.captions) for annotation in found) == captions
        assert expected.captions[0] <= captions <= expected.captions[1]


@pytest.mark.parametrize("name", ["msrvtt", "msvd", "lsmdc", "didemo", "activitynet"])
def test_a_whole_test_split_is_built(name, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    found = read(name, "test")
    for annotation in found:
        (videos / f"{annotation.file_names[-1]}.mp4").touch()
    dataset = load_benchmark(name, "test", annotations=ROOT / name, videos=videos, cache_dir=tmp_path / "cache")
    assert benchmark_info(dataset).complete
    assert by_id(found) == {row["video_id"]: tuple(row["captions"]) for row in dataset}
    assert {Path(video).stem for video in dataset["video"]} == {annotation.file_names[-1] for annotation in found}


def test_msrvtt_without_all_its_captions_is_refused(tmp_path):
    for annotation in read("msrvtt", "train"):
        (tmp_path / f"{annotation.video_id}.mp4").touch()
    place = {"annotations": ROOT / "msrvtt", "videos": tmp_path, "cache_dir": tmp_path / "cache"}
    with pytest.raises(ValueError, match=r"captions, expected 180,000.*--allow-missing"):
        load_benchmark("msrvtt", "train", **place)
    info = benchmark_info(load_benchmark("msrvtt", "train", **place, allow_missing=True))
    assert (info.videos, info.missing, info.complete) == (9_000, 0, False)


def test_msrvtt_lists_lie_as_the_protocols_say():
    test, full_test = by_id(read("msrvtt", "test")), by_id(read("msrvtt", "test", "full"))
    nine, seven = by_id(read("msrvtt", "train")), by_id(read("msrvtt", "train", "1k-A-7k"))
    validation = by_id(read("msrvtt", "validation"))
    assert set(test) < set(full_test) and not set(test) & set(nine)
    assert set(validation) < set(seven) < set(nine) and len(nine | test) == 10_000
    assert set(seven) == set(by_id(read("msrvtt", "train", "full"))) | set(validation)
    repeated = [count for count in Counter(test.values()).values() if count > 1]
    assert (len(repeated), sum(repeated)) == (4, 9)
    assert all(len(captions) == 20 for captions in (full_test | validation).values())
    with open(ROOT / "msrvtt" / "MSRVTT_JSFUSION_test.csv", newline="") as rows:
        assert list(test.items()) == [(row["video_id"], (row["sentence"].strip(),)) for row in csv.DictReader(rows)]


def test_msrvtt_captions_follow_their_videos():
    contents = json.loads((ROOT / "msrvtt" / "MSRVTT_data.partial.json").read_text())
    said = defaultdict(list)
    for entry in contents["sentences"]:
        said[entry["video_id"]].append(entry["caption"].strip())
    for split, protocol in (("train", "1k-A-9k"), ("validation", "full"), ("test", "full")):
        assert all(captions == tuple(said[video]) for video, captions in by_id(read("msrvtt", split, protocol)).items())
    splits = {entry["video_id"]: entry["split"] for entry in contents["videos"]}
    for split, own in (("train", "train"), ("validation", "validate"), ("test", "test")):
        assert [v for v, name in splits.items() if name == own] == list(by_id(read("msrvtt", split, "full")))


def test_msvd_formats_say_the_same(tmp_path):
    folder = tmp_path / "msvd"
    folder.mkdir()
    for path in (ROOT / "msvd").iterdir():
        if path.name != "captions_msvd.json":
            (folder / path.name).symlink_to(path)
    test = read("msvd", "test")
    stated = json.loads((ROOT / "msvd" / "captions_msvd.json").read_text())
    assert by_id(test) == {annotation.video_id: tuple(stated[annotation.video_id]) for annotation in test}
    assert read_annotations("msvd", "test", folder) == test
    (folder / "raw-captions.pkl").unlink()
    lines = [f"{clip} {caption}" for clip, own in stated.items() for caption in own]
    (folder / "AllVideoDescriptions.txt").write_text("\n".join(["# all", *lines]))
    assert read_annotations("msvd", "test", folder) == test
    owners = defaultdict(set)
    for annotation in test:
        for caption in annotation.captions:
            owners[caption].add(annotation.video_id)
    assert len(owners) == 22_285 and sum(len(videos) > 1 for videos in owners.values()) == 961
    assert [annotation.file_names[1] for annotation in test] == [f"vid{number}" for number in range(1301, 1971)]


def test_didemo_paragraphs_have_the_descriptions_in_the_order_of_the_file():
    for split, file in (("train", "didemo_train_data.no_times.json"), ("test", "test_data.json")):
        entries = json.loads((ROOT / "didemo" / file).read_text())
        found = by_id(read("didemo", split))
        said = {
            video: [e["description"].strip() for e in entries if e["video"] == video] for video in list(found)[::97]
        }
        assert {video: found[video] for video in said} == {video: (" ".join(own),) for video, own in said.items()}


def test_activitynet_paragraphs_and_their_lengths():
    for protocol in ("val_1", "val_2"):
        entries = json.loads((ROOT / "activitynet" / f"{protocol}.json").read_text())
        found = by_id(read("activitynet", "test", protocol))
        assert list(found) == list(entries)
        for video_id, entry in entries.items():
            assert found[video_id] == (" ".join(sentence.strip() for sentence in entry["sentences"]),)
    words = [len(captions[0].split()) for captions in by_id(read("activitynet", "test", "val_1")).values()]
    assert round(100 * sum(count > 62 for count in words) / len(words), 1) == 19.5


def test_activitynet_ids_without_captions_are_as_documented():
    for part, ids, split, count in (("val_1", "train_ids", "train", 15), ("val_1", "val_ids", "test", 9)):
        listed = json.loads((ROOT / "activitynet" / f"{ids}.json").read_text())
        assert len(set(listed) - set(by_id(read("activitynet", split, part)))) == count


def test_lsmdc_sentences_follow_their_clips():
    found = read("lsmdc", "test")
    lines = (ROOT / "lsmdc" / "LSMDC16_challenge_1000_publictect.csv").read_text().splitlines()
    assert [(a.video_id, *a.captions) for a in found] == [
        (fields[0], fields[5].strip()) for fields in (line.split("\t") for line in lines)
    ]
    assert all(annotation.file_names[0].endswith("/" + annotation.video_id) for annotation in found)
    assert found[0].file_names[0].startswith("3086_UGLY_TRUTH/3086_UGLY_TRUTH_00.23")
