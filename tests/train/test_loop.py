import argparse
import json
import math

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import differing, records, steps, weights

from hcmi.cli import main
from hcmi.modeling_hcmi import LEVELS, HCMIModel
from hcmi.processing import HCMIProcessor
from hcmi.train import loop, run_evaluation
from hcmi.train.command_line import build_parser, from_namespace
from hcmi.train.data.benchmarks import protocols
from hcmi.train.data.shape_stories import load_shape_stories
from hcmi.train.loop import NonFiniteLossError
from hcmi.train.results import load_result


@pytest.fixture(scope="module")
def first(run, tmp_path_factory):
    """A finished run of two epochs of four steps."""
    return run(tmp_path_factory.mktemp("first") / "run", max_words=24, tracker="tensorboard")


def test_its_files_and_nothing_else(first):
    output = first.model.parent
    names = {"model", "result.json", "curves.png", "history.jsonl", "arguments.yaml", "tensorboard", "checkpoints"}
    assert {path.name for path in output.iterdir()} == names
    assert (first.model, first.result_file) == (output / "model", output / "result.json")
    assert (first.curves, first.history) == (output / "curves.png", output / "history.jsonl")
    with Image.open(first.curves) as image:
        image.verify()


def test_a_model_that_loads_whole_with_its_processor(first):
    model, loading = HCMIModel.from_pretrained(first.model, output_loading_info=True)
    assert not any(loading.values())
    assert first.result["training"]["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    processor = HCMIProcessor.from_pretrained(first.model)
    assert (processor.frames_per_video, processor.tokenizer.model_max_length) == (4, 24)


def test_a_result_with_all_that_its_numbers_depend_on(first):
    result = load_result(first.result_file)
    assert result == json.loads(json.dumps(first.result))
    assert (result["benchmark"], result["split"], result["seed"]) == ("shape_stories", "test", 0)
    assert (result["protocol"], result["post_processing"]) == (next(iter(protocols("shape_stories"))), {})
    assert result["counts"]["videos"] == 8 and result["counts"]["texts"] == 24
    assert result["frames"]["per_video"] == 4 and result["tokens"]["max_words"] == 24
    assert set(result["levels"]) == {*LEVELS, "combined"}
    for level in result["levels"].values():
        for direction in ("text_to_video", "video_to_text_group", "video_to_text_sentence"):
            assert {"R@1", "R@5", "R@10", "MdR", "MnR"} <= set(level[direction])
    assert result["versions"]["torch"] == torch.__version__ and result["dtype"] == "float32"
    assert result["seconds"]["total"] > 0 and result["training"]["seconds"] > 0
    assert result["model"] == str(first.model) and result["hardware"] and result["finished"]
    training = result["training"]
    assert (training["epochs"], training["steps"], training["processes"]) == (2, 8, 1)
    best = max(records(first.history, "epoch"), key=lambda record: record["recall_at_1"]["combined"])
    assert training["chosen_epoch"] == best["epoch"]
    assert training["validation_recall_at_1"] == best["recall_at_1"]["combined"]


def test_hcmi_eval_measures_the_same(first, stories, tmp_path):
    out = tmp_path / "eval.json"
    words = ["eval", str(first.model), "--annotations", str(stories), "--split", "test", "--out", str(out)]
    assert main([*words, "--device", "cpu", "--num-workers", "0"]) == 0
    again = load_result(out)
    for key in ("levels", "moments", "counts", "frames", "tokens", "protocol", "inference_weights", "dtype"):
        assert again[key] == first.result[key], key


def test_a_history_of_losses_and_validations(first):
    taken = steps(first)
    assert [record["step"] for record in taken] == [4, 8]
    for record in taken:
        parts = sum(record[level] for level in LEVELS) + record["marginal"]
        assert record["loss"] == pytest.approx(parts, rel=1e-5)
        assert record["mined_pairs"] > 0
    validations = records(first.history, "epoch")
    assert [(record["epoch"], record["step"]) for record in validations] == [(1, 4), (2, 8)]
    assert all(set(record["recall_at_1"]) == {*LEVELS, "combined"} for record in validations)


def test_the_same_in_tensorboard(first):
    events = EventAccumulator(str(first.model.parent / "tensorboard"))
    events.Reload()
    for part in ("loss", *LEVELS, "marginal", "mined_pairs"):
        scalars = [(event.step, event.value) for event in events.Scalars(f"training/{part}")]
        assert scalars == [(r["step"], pytest.approx(r[part], rel=1e-6)) for r in steps(first)]
    assert len(events.Scalars("learning_rate")) == 2
    validated = [(event.step, event.value) for event in events.Scalars("validation/recall_at_1/combined")]
    expected = [(r["step"], pytest.approx(r["recall_at_1"]["combined"])) for r in records(first.history, "epoch")]
    assert validated == expected


def test_arguments_that_repeat_it(first, run, tmp_path):
    config = str(first.model.parent / "arguments.yaml")
    parser = build_parser(argparse.ArgumentParser())
    arguments = from_namespace(parser.parse_args(["--config", config, "--output", str(tmp_path)]))
    again = run(**vars(arguments) | {"output": tmp_path})
    assert steps(again) == steps(first)
    assert not differing(weights(again.model), weights(first.model))
    assert again.result["levels"] == first.result["levels"]


def test_another_seed_is_another_run(first, run, models, batches, tmp_path):
    runs = [run(tmp_path / str(seed), seed=seed, epochs=1) for seed in (0, 1)]
    assert steps(runs[0]) != steps(runs[1])
    assert differing(models[0][1], models[1][1])
    assert batches[:4] != batches[4:]


def test_every_epoch_takes_each_video_once_in_an_order_of_its_own(run, batches, tmp_path):
    run(tmp_path, epochs=2)
    orders = [[row for rows, _ in batches[4 * epoch : 4 * epoch + 4] for row in rows] for epoch in range(2)]
    assert [sorted(order) for order in orders] == [list(range(32))] * 2
    assert orders[0] != orders[1] and orders[0] != sorted(orders[0])


def test_learning_rates_rise_and_fall_along_a_cosine(run, monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "_RECORD_EVERY", 1)
    outcome = run(tmp_path, epochs=2, warmup_share=0.25, learning_rate=4e-3, tower_learning_rate=1e-3)
    # The rate for the step after the recorded one: 2 of 8 steps rise.
    expected = [2e-3, 4e-3, *(2e-3 * (1 + math.cos(math.pi * done / 6)) for done in range(1, 7))]
    assert [record["learning_rate"] for record in steps(outcome)] == pytest.approx(expected)


@pytest.mark.parametrize(("recalls", "chosen"), [([10, 30, 20], 2), ([20, 20, 10], 1), ([0, 0, 5], 3)])
def test_the_best_epoch_on_validation_is_kept_and_tested_once(run, models, monkeypatch, tmp_path, recalls, chosen):
    calls = []
    real = run_evaluation.evaluate

    def evaluate(model, processor, dataset, **options):
        split = dataset["video_id"][0].split("_")[0]
        calls.append((split, {name: tensor.clone() for name, tensor in model.state_dict().items()}))
        measured = real(model, processor, dataset, **options)
        if split == "validation":
            measured["levels"]["combined"]["text_to_video"]["R@1"] = float(recalls[len(calls) - 1])
        return measured

    monkeypatch.setattr(run_evaluation, "evaluate", evaluate)
    outcome = run(tmp_path, epochs=3)
    assert [split for split, _ in calls] == ["validation"] * 3 + ["test"]
    kept = weights(outcome.model)
    assert not differing(kept, calls[chosen - 1][1]) and not differing(kept, calls[3][1])
    assert all(differing(kept, calls[epoch][1]) for epoch in range(3) if epoch != chosen - 1)
    assert outcome.result["training"]["chosen_epoch"] == chosen
    assert outcome.result["training"]["validation_recall_at_1"] == recalls[chosen - 1]


def test_the_last_epoch_is_kept_without_validation(run, models, monkeypatch, tmp_path):
    measured = []
    real = run_evaluation.evaluate
    monkeypatch.setattr(run_evaluation, "evaluate", lambda *a, **options: measured.append(a[2]) or real(*a, **options))
    outcome = run(tmp_path, epochs=2, choose="last")
    assert [dataset["video_id"][0].split("_")[0] for dataset in measured] == ["test"]
    assert not differing(weights(outcome.model), models[0][0].state_dict())
    training = outcome.result["training"]
    assert (training["chosen_epoch"], training["chosen_by"]) == (2, "fixed beforehand: the last")
    assert "validation_recall_at_1" not in training
    with Image.open(outcome.curves) as image:
        image.verify()


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_videos(run, batches, stories, tmp_path):
    with pytest.raises(NonFiniteLossError) as caught:
        # Every weight is 1e30 after the first step.
        run(tmp_path, learning_rate=1e30, tower_learning_rate=1e30, warmup_share=0)
    names = load_shape_stories(stories, "train")["video_id"]
    ids = ", ".join(names[row] for row in batches[1][0])
    assert len(batches) == 2 and "learning_rate" in str(caught.value)
    assert f"the loss is nan at step 2. Videos of this batch: {ids}." in str(caught.value)
