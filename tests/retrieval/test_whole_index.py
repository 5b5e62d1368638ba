"""From a folder of files, long and broken ones among them, to the numbers of the evaluation."""

import json
import shutil
import statistics
from pathlib import Path

import datasets
import pytest
import torch
from demo_model import demo_model, demo_stories
from stitched_videos import stitch

from hcmi.modeling_hcmi import HCMIModel
from hcmi.processing import HCMIProcessor
from hcmi.retrieval import VideoIndex
from hcmi.retrieval.indexing.windows import WindowRule
from hcmi.train.evaluation import evaluate
from hcmi.train.span_metrics import temporal_iou

SHORT, LONG, BROKEN = 175, 15, 10
PARTS = 5  # of a long video
CAPTIONS = 100
LONGEST_WHOLE = 8.0  # seconds: longer than every story, shorter than every film


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return [json.loads(line) for line in (demo_stories() / "test.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def parts() -> dict[str, list[tuple[float, float]]]:
    """Film -> where each of its stories begins and ends, in seconds; filled with the folder."""
    return {}


@pytest.fixture(scope="module")
def folder(rows, parts, tmp_path_factory) -> Path:
    """200 files: stories of the built-in benchmark, films of five others each, and some that are no videos any more."""
    place = tmp_path_factory.mktemp("videos")
    files = [demo_stories() / row["video"] for row in rows]
    for file in files[:SHORT]:
        shutil.copyfile(file, place / file.name)
    for number in range(LONG):
        first = SHORT + number * PARTS
        film = place / f"film_{number}.mp4"
        parts[str(film)] = stitch([str(file) for file in files[first : first + PARTS]], film)
    for number in range(BROKEN):
        whole = files[-1 - number].read_bytes()
        (place / f"broken_{number}.mp4").write_bytes((b"", b"no video", whole[: len(whole) // 3])[number % 3])
    assert len(list(place.iterdir())) == SHORT + LONG + BROKEN
    return place


@pytest.fixture(scope="module", params=["int8", "float32"])
def index(request, folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / request.param
    with VideoIndex.create(path, demo_model(), precision=request.param, device="cpu") as made:
        report = made.add([folder], rule=WindowRule(seconds=4.0, whole_up_to=LONGEST_WHOLE), progress=False)
        assert report.new == SHORT + LONG and len(report.unreadable) == BROKEN
        assert {Path(path).name for path in report.unreadable} == {f"broken_{number}.mp4" for number in range(BROKEN)}
        yield made


@pytest.fixture(scope="module")
def measured(folder, rows, index):
    """The evaluator's figures: a gallery of the same windows, and the captions and events of the first stories."""
    of_file = {Path(row["video"]).name: row for row in rows[:CAPTIONS]}
    gallery = []
    for video in index:
        whole = len(index.windows(video.path)) == 1
        for window in index.windows(video.path):
            row = of_file.get(Path(video.path).name)
            gallery.append(
                {
                    "video_id": f"{Path(video.path).name} {window.number}",
                    "video": video.path,
                    "start": None if whole else window.start,
                    "end": None if whole else window.end,
                    "captions": row["captions"][:1] if row else [],
                    "events": [{**event, "phrases": event["phrases"][:1]} for event in row["events"]] if row else [],
                }
            )
    assert sum(entry["start"] is not None for entry in gallery) >= LONG * PARTS
    model, processor = HCMIModel.from_pretrained(demo_model()), HCMIProcessor.from_pretrained(demo_model())
    return evaluate(model, processor, datasets.Dataset.from_list(gallery), show_progress=False)


def test_the_index_finds_what_the_evaluation_finds(index, folder, rows, measured):
    first = {}
    for row in rows[:CAPTIONS]:
        hits = index.search(row["captions"][0], top_k=10).hits
        exact = index.search(row["captions"][0], top_k=10, exact=True).hits
        assert [hit.video for hit in hits] == [hit.video for hit in exact]
        first[row["video_id"]] = hits[0].video == str(folder / Path(row["video"]).name)
    recall = 100 * statistics.mean(first.values())
    expected = measured["levels"]["combined"]["text_to_video"]["R@1"]
    assert recall == pytest.approx(expected, abs=1e-6)
    assert recall > 30  # of some 250 windows, with a model of a short training; chance is below 1


def test_the_moments_are_those_of_the_evaluation(index, folder, rows, measured):
    spans, true = [], []
    for row in rows[:CAPTIONS]:
        video = str(folder / Path(row["video"]).name)
        for event in row["events"]:
            hits = index.search(event["phrases"][0], top_k=SHORT + LONG, exact=True).hits
            hit = next(hit for hit in hits if hit.video == video)
            spans.append((hit.start, hit.end))
            true.append((event["start"], event["end"]))
    found = 100 * temporal_iou(torch.tensor(spans).double(), torch.tensor(true).double()).mean().item()
    tolerance = 0.5 if index.shape.precision == "int8" else 1e-3
    assert found == pytest.approx(measured["moments"]["all"]["predicted"]["mIoU"], abs=tolerance)


def test_a_films_moment_lies_in_the_part_that_the_caption_tells(index, rows, parts):
    """Not by the evaluation, which knows no films."""
    inside = []
    for number, (film, spans) in enumerate(parts.items()):
        for row, (begin, end) in zip(rows[SHORT + number * PARTS :], spans, strict=False):
            hits = {hit.video: hit for hit in index.search(row["captions"][0], top_k=SHORT + LONG, exact=True).hits}
            inside.append(begin <= (hits[film].start + hits[film].end) / 2 <= end)
    assert len(inside) == LONG * PARTS and statistics.mean(inside) > 0.7  # by chance a fifth
