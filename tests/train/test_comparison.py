import json
from statistics import mean, stdev

import pytest
import torch

from hcmi.train.comparison import compare, identities, refuse_different, short_names
from hcmi.train.comparison_tables import format_comparison, markdown_comparison
from hcmi.train.metrics import recall_curve, retrieval_metrics, retrieval_ranks

AT = (1, 2, 5, 10)


def result(seed, texts_per_video=(2, 1, 1, 2), post_processing=(), **changes):
    """What a complete result holds of scores drawn from the seed."""
    mapping = torch.tensor([video for video, count in enumerate(texts_per_video) for _ in range(count)])
    scores = torch.rand(len(mapping), len(texts_per_video), generator=torch.Generator().manual_seed(seed))
    ranks = retrieval_ranks(scores, mapping)
    processed = {}
    if "dsl" in post_processing:
        processed["dsl"] = {"temperature": 100.0, "note": "needs all queries", **retrieval_metrics(scores**2, mapping)}
    if "qb_norm" in post_processing:
        own = {"text_to_video": retrieval_metrics(scores, mapping)["text_to_video"]}
        processed["qb_norm"] = {"temperature": 20.0, "note": "needs a bank", "bank_texts": 9, **own}
    return {
        "benchmark": "msvd",
        "split": "test",
        "protocol": "official",
        "protocol_description": "every caption is a query",
        "expected": {"videos": [4, 4], "captions": None},
        "missing_videos": 0,
        "complete": True,
        "counts": {"videos": len(texts_per_video), "texts": len(mapping), "distinct_texts": len(mapping)},
        "model": f"runs/seed-{seed}/model",
        "seed": seed,
        "levels": {"combined": retrieval_metrics(scores, mapping)},
        "recall_curve": {"K": AT, **{name: recall_curve(own, AT) for name, own in ranks.items()}},
        "post_processing": processed,
    } | changes


def three(**options):
    return {f"seed-{seed}": result(seed, **options) for seed in range(3)}


def table(comparison, direction, post_processing="none"):
    (found,) = [
        t for t in comparison["tables"] if (t["direction"], t["post_processing"]) == (direction, post_processing)
    ]
    return found


@pytest.mark.parametrize("direction", ["text_to_video", "video_to_text_group", "video_to_text_sentence"])
def test_mean_and_sample_deviation_over_the_combined_levels(direction):
    results = three()
    found = table(compare(results), direction)
    for metric in ("R@1", "R@5", "R@10", "MdR", "MnR"):
        values = [own["levels"]["combined"][direction][metric] for own in results.values()]
        assert [row[metric] for row in found["rows"].values()] == values
        assert found["mean"][metric] == pytest.approx(mean(values))
        assert found["deviation"][metric] == pytest.approx(stdev(values))


def test_a_comparison_is_json_with_seeds_and_curves():
    results = three()
    comparison = json.loads(json.dumps(compare(results), allow_nan=False))
    assert [model["seed"] for model in comparison["models"]] == [0, 1, 2]
    assert [model["label"] for model in comparison["models"]] == ["seed-0", "seed-1", "seed-2"]
    assert comparison["recall_curves"]["seed-1"]["text_to_video"] == results["seed-1"]["recall_curve"]["text_to_video"]
    assert (comparison["benchmark"], comparison["protocol"], comparison["counts"]["texts"]) == ("msvd", "official", 6)


def test_one_text_a_video_has_one_video_to_text_table():
    found = [t["direction"] for t in compare(three(texts_per_video=(1, 1, 1)))["tables"]]
    assert found == ["text_to_video", "video_to_text_group"]
    # As many texts as videos, but not one each.
    assert len(compare(three(texts_per_video=(2, 0, 1)))["tables"]) == 3


def test_post_processed_numbers_have_tables_of_their_own_beside_the_plain_ones():
    results = three(post_processing=("dsl", "qb_norm"))
    comparison = compare(results)
    order = [(t["direction"], t["post_processing"]) for t in comparison["tables"]]
    assert order[:4] == [
        ("text_to_video", "none"),
        ("text_to_video", "dsl"),
        ("text_to_video", "qb_norm"),
        ("video_to_text_group", "none"),
    ]
    assert ("video_to_text_group", "qb_norm") not in order
    values = [own["post_processing"]["dsl"]["text_to_video"]["MnR"] for own in results.values()]
    assert table(comparison, "text_to_video", "dsl")["mean"]["MnR"] == pytest.approx(mean(values))
    text = format_comparison(comparison)
    assert "text -> video + dsl: 6 queries, 4 to rank" in text
    assert "dsl: temperature 100.0; needs all queries\nqb_norm: temperature 20.0, bank texts 9; needs a bank\n" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": "lsmdc"}, "the benchmark: msvd in seed-0, lsmdc in other"),
        ({"split": "validation"}, "the split: test in seed-0, validation in other"),
        ({"protocol": "mine"}, "the protocol: official in seed-0, mine in other"),
        ({"texts_per_video": (1, 2, 1)}, "the number of videos: 4 in seed-0, 3 in other"),
        ({"texts_per_video": (1, 2, 1, 1)}, "the number of texts: 6 in seed-0, 5 in other"),
        ({"post_processing": ("dsl",)}, "the post-processing: none in seed-0, dsl in other"),
    ],
)
def test_what_is_not_of_the_same_kind_is_not_averaged(changes, message):
    with pytest.raises(ValueError, match="cannot be compared") as error:
        compare({"seed-0": result(0), "other": result(1, **changes)})
    assert message in str(error.value)


def test_other_settings_of_post_processing_are_not_averaged():
    results = three(post_processing=("qb_norm",))
    results["seed-1"]["post_processing"]["qb_norm"]["bank_texts"] = 8
    with pytest.raises(ValueError, match="bank_texts of qb_norm: 9 in seed-0, 8 in seed-1"):
        compare(results)


def test_known_facts_are_compared_as_far_as_they_are_known():
    facts = {"the command line": {"split": "test"}, **identities({"a": result(0)})}
    refuse_different(facts)
    with pytest.raises(ValueError, match="validation in the command line, test in a"):
        refuse_different(facts | {"the command line": {"split": "validation"}})


def test_one_result_is_no_comparison():
    with pytest.raises(ValueError, match="two results"):
        compare({"seed-0": result(0)})


def test_a_result_of_another_version_is_refused_by_name():
    old = {key: value for key, value in result(0).items() if key != "recall_curve"}
    with pytest.raises(ValueError, match="seed-0 lacks recall_curve"):
        compare({"seed-0": old, "seed-1": result(1)})


def test_the_text_has_a_row_a_model_and_the_published_rows_apart():
    comparison = compare(three())
    text = format_comparison(comparison)
    assert text.isascii()
    measured, published = text.split("Published by the authors named, not measured here")
    assert "protocol official: every caption is a query" in measured and "4 videos, 6 texts" in measured
    for direction in ("text -> video:", "video -> text (group protocol):", "video -> text (sentence protocol):"):
        assert direction in measured
    rows = [line.split() for line in measured.splitlines()]
    first = table(comparison, "text_to_video")["rows"]["seed-0"]
    assert ["seed-0", "0", *(f"{first[m]:.1f}" for m in ("R@1", "R@5", "R@10", "MdR", "MnR"))] in [r[:7] for r in rows]
    means = [row for row in rows if row[:3] == ["mean", "+-", "deviation"]]
    assert len(means) == 3 and all(row.count("+-") == 6 for row in means)
    assert "HCMI" not in measured and "seed-0" not in published
    assert "58.2" in published and "DSL" in published and "arXiv:2204.03382; reported by its authors" in published


def test_published_numbers_are_of_the_test_split():
    assert compare(three())["published"]
    assert compare(three(split="validation"))["published"] == []
    text = format_comparison(compare(three(benchmark="shape_stories")))
    assert "Published" not in text


def test_every_source_of_the_published_rows_is_listed():
    comparison = compare(three())
    text = format_comparison(comparison)
    for entry in comparison["published"]:
        assert entry["source"] in text


def test_the_markdown_has_the_same_numbers_and_the_picture():
    comparison = compare(three(post_processing=("dsl",)))
    markdown = markdown_comparison(comparison, "curves.png")
    lines = markdown.splitlines()
    assert lines[0] == "# msvd, test split: 3 models" and "![R@K over K](curves.png)" in lines
    first = table(comparison, "text_to_video")["rows"]["seed-0"]
    assert any(line.startswith(f"| seed-0 | 0 | {first['R@1']:.1f} | {first['R@5']:.1f} |") for line in lines)
    assert markdown.index("| mean ± deviation |") < markdown.index("## Published by the authors named")
    for row in [line for line in lines if line.startswith("|")]:
        assert row.count("|") in (9, 11)


def test_an_incomplete_benchmark_is_told_loudly():
    comparison = compare(three(complete=False, missing_videos=2))
    for text in (format_comparison(comparison), markdown_comparison(comparison, "curves.png")):
        assert "NOT COMPLETE: 2 videos are missing; expected: videos [4, 4]" in text


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/seed-0/model", "runs/seed-1/model"], ["seed-0", "seed-1"]),
        (["runs/seed-0/model", "./runs/seed-1/result.json"], ["seed-0/model", "seed-1/result.json"]),
        (["a", "b"], ["a", "b"]),
        (["runs/a", "runs/a/model"], ["runs/a", "runs/a/model"]),
        (["x/1/y/2/z", "x/3/y/4/z"], ["1/y/2", "3/y/4"]),
        (["model"], ["model"]),
    ],
)
def test_names_without_what_all_paths_share(paths, names):
    assert short_names(paths) == names
