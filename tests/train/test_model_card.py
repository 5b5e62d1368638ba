import re
from itertools import count
from pathlib import Path

import pytest
import yaml
from hub_cards import card_errors
from hub_client import point_client_at
from hub_server import serve_hub
from huggingface_hub import ModelCard, parse_eval_result_entries
from tiny_hcmi import tiny_config

from hcmi.train.model_card import evaluation_files, model_card
from hcmi.train.published import published_results

ROOT = Path(__file__).parents[2]
LEVELS = ("frame_word", "clip_phrase", "video_sentence", "combined")
DIRECTIONS = ("text_to_video", "video_to_text_group", "video_to_text_sentence")
ARGUMENTS = {"benchmark": "msrvtt", "annotations": "lists", "model": "openai/clip-vit-base-patch32", "epochs": 5}
ARGUMENTS |= {"batch_size": 128, "learning_rate": 1e-4, "freeze": [], "max_words": 32, "seed": 3}


def a_result(**fields) -> dict:
    """A result in which every number is another one."""
    number = count(1)

    def summary() -> dict:
        names = ("R@1", "R@5", "R@10", "MdR", "MnR")
        return {"queries": 1000, "gallery": 990, "R@1_95": [0.1, 99.9]} | {name: next(number) + 0.3 for name in names}

    result = {
        "benchmark": "msrvtt", "split": "test", "protocol": "1k-A-9k", "protocol_description": "one sentence a video",
        "expected": {"videos": None, "captions": None}, "missing_videos": 0, "complete": True, "seed": 3,
        "counts": {"videos": 1000, "texts": 1000, "distinct_texts": 995}, "frames": {"per_video": 12},
        "tokens": {"max_words": 32, "texts_cut": 7}, "post_processing": {},
        "levels": {level: {direction: summary() for direction in DIRECTIONS} for level in LEVELS},
        "seconds": {"total": 61.2}, "hardware": "a GPU of some kind", "dtype": "float32",
        "versions": {"torch": "2.13.0"},
        "finished": "2026-01-02T03:04:05+00:00",
        "training": {
            "videos": 8503, "held_out": 497, "chosen_epoch": 4, "chosen_by": "validation", "processes": 2,
            "seconds": 5400.0,
        },
    }  # fmt: skip
    return result | fields


def card_of(result, arguments=ARGUMENTS) -> ModelCard:
    return model_card("tester/tiny", tiny_config(), 123456, result, arguments)


def rows_of(card: str, title: str) -> dict[str, list[str]]:
    """The rows of the table below a title, by their first cell."""
    lines = card[card.index(title) :].split("\n\n")[1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


@pytest.mark.parametrize(("direction", "title"), [*zip(DIRECTIONS, ("text →", "(group", "(sentence"), strict=True)])
def test_every_level_stands_in_every_direction(direction, title):
    result = a_result()
    text = card_of(result).text
    rows = rows_of(text, next(t for t in re.findall(r"\*\*.*to rank\*\*", text) if title in t))
    for level in LEVELS:
        values = result["levels"][level][direction]
        shown = [f"{values[name]:.1f}" for name in ("R@1", "R@5", "R@10", "MdR", "MnR")]
        assert rows[level.replace("_", "-")] == [shown[0], "0.1 to 99.9", *shown[1:]]


def test_the_card_says_what_a_reader_needs():
    text = card_of(a_result()).text
    headings = re.findall(r"^## (.*)", text, flags=re.MULTILINE)
    assert headings == [
        "The model", "The method", "Intended use, and limits", "Use", "Training", "Results", "Published numbers",
        "Hardware and time", "Licence", "Citation",
    ]  # fmt: skip
    for said in (
        "123,456 parameters", "protocol 1k-A-9k: one sentence a video", "1,000 videos, 1,000 texts",
        "12 frames a video",
        "8,503 videos (497 more were held out", "| learning rate | 0.0001 |", "model of epoch 4 was kept", "seed 3",
        "in 90.0 minutes (2 processes", "a GPU of some kind", "torch 2.13.0", "2204.03382", "@article{", "Apache-2.0",
    ):  # fmt: skip
        assert said in text, said
    assert "{{" not in text and "{%" not in text and "None" not in text


def test_published_numbers_stand_beside_with_their_sources():
    text = card_of(a_result()).text
    published = text[text.index("## Published numbers") : text.index("## Hardware")]
    for row in published_results("msrvtt"):
        assert row.source in published
        for value in (*row.text_to_video.values(), *row.video_to_text.values()):
            assert f" {value:.1f} " in published
    assert "none was measured here" in published
    own = card_of(a_result(benchmark="shape_stories"), ARGUMENTS | {"benchmark": "shape_stories"}).text
    assert "none was measured here" not in own and "knows no real videos" in own


def test_post_processing_has_rows_of_its_own():
    values = a_result()["levels"]["combined"]["text_to_video"] | {"R@1": 77.7}
    text = card_of(a_result(post_processing={"dsl": {"temperature": 100.0, "text_to_video": values}})).text
    assert rows_of(text, "**text →")["combined + DSL"][0] == "77.7"


def test_moments_are_shown_where_they_were_measured():
    spans = {"mIoU": 41.0, "R@1_IoU0.3": 42.0, "R@1_IoU0.5": 43.0}
    every = {"events": 20, **dict.fromkeys(("predicted", "whole_video", "random_span"), spans)}
    text = card_of(a_result(moments={"query": "the words", "all": every})).text
    assert rows_of(text, "**Moments**")["moment found"] == ["41.0", "42.0", "43.0"]
    assert "**Moments**" not in card_of(a_result()).text


def test_emissions_are_told_only_if_measured():
    measured = card_of(a_result(training=a_result()["training"] | {"co2_kg": 0.25}))
    assert "0.25 kg of CO₂" in measured.text
    assert measured.data.to_dict()["co2_eq_emissions"]["emissions"] == 250
    silent = card_of(a_result())
    assert "CO₂" not in silent.text and "co2_eq_emissions" not in silent.data.to_dict()


def test_what_is_not_the_whole_benchmark_goes_on_no_leaderboard():
    result = a_result(complete=False, missing_videos=12)
    card = card_of(result)
    assert "not of the whole benchmark** (12 videos are missing)" in card.text
    assert card.data.eval_results is None and evaluation_files(result, ARGUMENTS) == {}


def test_the_hubs_parsers_read_the_metadata():
    result = a_result()
    card = ModelCard(str(card_of(result)))
    data = card.data
    assert (data.license, data.library_name, data.model_name) == ("apache-2.0", "transformers", "tiny")
    assert data.base_model == "openai/clip-vit-base-patch32" and data.datasets == ["friedrichor/MSR-VTT"]
    found = {(own.task_type, own.metric_name): own for own in data.eval_results}
    assert len(found) == len(data.eval_results) == 10
    for task, direction in (("text-to-video", "text_to_video"), ("video-to-text", "video_to_text_group")):
        for metric in ("R@1", "R@5", "R@10", "MdR", "MnR"):
            own = found[f"{task}-retrieval", metric]
            assert own.metric_value == result["levels"]["combined"][direction][metric]
            assert (own.dataset_type, own.dataset_config, own.dataset_split) == (
                "friedrichor/MSR-VTT",
                "1k-A-9k",
                "test",
            )


@pytest.mark.parametrize("case", ["whole", "incomplete", "no result", "nothing"])
def test_the_hub_accepts_the_card(case, tmp_path, monkeypatch):
    result = {"whole": a_result(), "incomplete": a_result(complete=False)}.get(case)
    card = card_of(result, None if case == "nothing" else ARGUMENTS)
    assert card_errors(str(card), "model") == ([], [])
    assert "{{" not in card.text and "None" not in card.text
    with serve_hub() as hub:
        point_client_at(hub, tmp_path, monkeypatch)
        card.validate()
        assert hub.asked("POST", "/api/validate-yaml") == 1


def test_evaluation_files_name_data_sets_of_the_hub():
    ((path, content),) = evaluation_files(a_result(), ARGUMENTS).items()
    assert path == ".eval_results/msrvtt.yaml"
    entries = {entry.task_id: entry for entry in parse_eval_result_entries(yaml.safe_load(content))}
    assert len(entries) == 6 and {entry.dataset_id for entry in entries.values()} == {"friedrichor/MSR-VTT"}
    first = entries["text_to_video_recall_at_1"]
    assert first.value == a_result()["levels"]["combined"]["text_to_video"]["R@1"]
    assert "protocol 1k-A-9k" in first.notes and first.date == "2026-01-02T03:04:05+00:00"
    (copied,) = evaluation_files(a_result(), ARGUMENTS | {"annotations": "hf://somebody/copy"}).values()
    assert "id: somebody/copy" in copied
    for fields in ({"benchmark": "shape_stories"}, {"split": "validation"}):
        assert evaluation_files(a_result(**fields), ARGUMENTS) == {}


@pytest.mark.parametrize(
    ("model", "base", "said"),
    [
        ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32", "https://huggingface.co/openai/clip"),
        ("/home/somebody/clip", None, "a checkpoint that is not on the Hub"),
        (None, None, "random weights"),
    ],
)
def test_the_start_is_a_base_model_only_on_the_hub(model, base, said):
    card = card_of(a_result(), ARGUMENTS | {"model": model})
    assert card.data.base_model == base
    assert said in card.text and "somebody" not in card.text


def test_the_template_stands_at_the_top():
    assert (ROOT / "model_card.md").resolve() == ROOT / "train" / "model_card.md"
