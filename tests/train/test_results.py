import json
import math

import pytest
import torch

from hcmi.train.data.benchmark_info import BenchmarkInfo
from hcmi.train.metrics import retrieval_metrics
from hcmi.train.post_processing import post_processed_metrics
from hcmi.train.results import complete_result, format_result, hardware, load_result, save_result, versions


def measured(texts_per_video=(2, 1, 1), moments=True, ties=False, post_processing=()):
    mapping = torch.tensor([video for video, count in enumerate(texts_per_video) for _ in range(count)])
    scores = torch.nn.functional.one_hot(mapping, len(texts_per_video)).double()
    if ties:
        scores[0] = 1
    spans = {"mIoU": 41.25, "R@1_IoU0.3": 60.0, "R@1_IoU0.5": 30.0}
    group = {
        "events": 5,
        "videos": 3,
        "predicted": spans,
        "answering_clip": spans,
        "whole_video": spans,
        "random_span": spans,
    }
    result = {
        "counts": {"videos": len(texts_per_video), "texts": len(mapping), "distinct_texts": len(mapping)},
        "frames": {"per_video": 12, "videos_with_fewer": 0},
        "tokens": {"max_words": 32, "texts_cut": 1, "share_cut": 25.0},
        "levels": {level: retrieval_metrics(scores, mapping) for level in ("video_sentence", "combined")},
        "inference_weights": {"video_sentence": 1.0},
        "post_processing": post_processed_metrics(scores, mapping, post_processing, [scores]),
        "seconds": {"videos": 1.0, "texts": 0.5, "scores": 0.25, "total": 1.75},
    }
    if "qb_norm" in post_processing:
        result["post_processing"]["qb_norm"]["bank_texts"] = len(scores)
    return result | ({"moments": {"query": "its words", "all": group}} if moments else {})


def complete(info=None, **options):
    found = measured(**options)
    here = {"videos": found["counts"]["videos"], "captions": found["counts"]["texts"]} | (info or {})
    return complete_result(
        found,
        model="folder/model",
        info=BenchmarkInfo("shape_stories", "test", "all", "every caption is a query", **here),
        seed=3,
        device="cpu",
        dtype=torch.float32,
    )


def test_a_complete_result_says_what_the_rules_ask_for():
    result = complete()
    assert {"benchmark", "split", "protocol", "counts", "frames", "tokens", "seed", "levels", "post_processing"} <= set(
        result
    )
    assert {"versions", "seconds", "hardware", "model", "moments", "inference_weights"} <= set(result)
    assert (result["seed"], result["dtype"]) == (3, "float32")
    assert (result["benchmark"], result["split"], result["protocol"]) == ("shape_stories", "test", "all")
    assert result["protocol_description"] == "every caption is a query"
    assert (result["expected"], result["missing_videos"]) == ({"videos": None, "captions": None}, 0)
    assert result["complete"] is True
    assert {"python", "hcmi", "torch", "transformers"} <= set(versions())
    assert "cores" in hardware("cpu")


@pytest.mark.parametrize(
    ("info", "is_complete"),
    [
        ({"expected_videos": (3, 3), "expected_captions": (4, 4)}, True),
        ({"expected_videos": (2, 5)}, True),
        ({"expected_videos": (4, 4)}, False),
        ({"expected_captions": (5, 6)}, False),
        ({"missing": 1}, False),
        # The data set was whole, what was measured is a part of it.
        ({"videos": 4}, False),
        ({"captions": 5}, False),
    ],
)
def test_a_result_of_a_part_says_so(info, is_complete):
    result = complete(info)
    assert result["complete"] is is_complete
    assert ("NOT THE WHOLE BENCHMARK" in format_result(result)) is not is_complete


def test_the_table_shows_what_was_expected_beside_what_was_found():
    text = format_result(complete({"expected_videos": (4, 5), "expected_captions": (6, 6), "missing": 2}))
    assert "3 videos (expected: 4-5) of 12 frames; 4 texts (expected: 6) of at most" in text
    assert "*** NOT THE WHOLE BENCHMARK: 2 videos are missing." in text
    assert "*** NOT THE WHOLE BENCHMARK: the counts differ." in format_result(complete({"expected_videos": (9, 9)}))


def test_a_result_survives_its_file(tmp_path):
    result = complete({"expected_videos": (3, 3)}, post_processing=["dsl", "qb_norm"])
    path = save_result(result, tmp_path / "new" / "result.json")
    assert load_result(path) == result
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = save_result(complete(), tmp_path / "result.json")
    before = path.read_bytes()
    with pytest.raises(ValueError):
        save_result({"levels": math.nan}, path)

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_result(complete(moments=False), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("content", ["no json", json.dumps([1]), json.dumps({"a": 1})])
def test_what_is_no_result_is_refused(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json is no result file"):
        load_result(path)


def test_the_table_shows_protocol_counts_levels_directions_and_moments():
    text = format_result(complete())
    for part in (
        "shape_stories, test split, folder/model",
        "protocol all: every caption is a query",
        "post-processing: none",
        "3 videos of 12 frames; 4 texts of at most 32 tokens, 1 cut (25.0 %)",
        "text -> video: 4 queries, 3 to rank",
        "video -> text (group protocol): 3 queries, 3 to rank",
        "video -> text (sentence protocol): 3 queries, 4 to rank",
        "R@1 IoU0.5",
        "moment found",
        "answering clip",
        "whole video",
        "random span",
    ):
        assert part in text
    assert text.isascii()
    combined = next(line for line in text.splitlines() if line.strip().startswith("combined"))
    assert combined.split()[:7] == ["combined", "100.0", "100.0", "100.0", "100.0", "1.0", "1.0"]
    assert next(line for line in text.splitlines() if "R@50" in line).split()[:5] == [
        "level",
        "R@1",
        "R@5",
        "R@10",
        "R@50",
    ]
    assert "with ties" not in text


def test_the_table_says_what_ties_leave_open():
    text = format_result(complete(ties=True, moments=False))
    assert "R@1 with ties" in text and "75.0-100.0" in text
    assert "moments" not in text


def test_post_processed_numbers_stand_beside_the_plain_ones_with_their_temperature():
    text = format_result(complete(post_processing=["dsl", "qb_norm"]))
    assert "post-processing: DSL (temperature 100), QB-Norm (temperature 20, a bank of 4 texts)" in text
    tables = text.split("\n\n")
    levels = [[line.split("  ")[1] for line in table.splitlines()[2:]] for table in tables[1:4]]
    plain = ["video_sentence", "combined"]
    assert levels == [[*plain, "combined + DSL", "combined + QB-Norm"], *[[*plain, "combined + DSL"]] * 2]
    assert "DSL: every test query" in tables[4] and "QB-Norm: text to video only" in tables[4]
    assert text.isascii()


def test_one_text_a_video_needs_one_video_to_text_table():
    assert format_result(complete(texts_per_video=(1, 1, 1))).count("video -> text") == 1
    # As many texts as videos, but not one each.
    assert format_result(complete(texts_per_video=(2, 0, 1))).count("video -> text") == 2
