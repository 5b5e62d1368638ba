import argparse
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import CLIPModel

from hcmi.cli import main
from hcmi.modeling_hcmi import LEVELS, HCMIModel
from hcmi.processing import HCMIProcessor, VideoReadError
from hcmi.train import loop
from hcmi.train.arguments import build_parser, from_namespace
from hcmi.train.data.benchmarks import protocols
from hcmi.train.data.shape_stories import load_shape_stories, write_shape_stories
from hcmi.train.loop import NonFiniteLossError
from hcmi.train.results import load_result

REPOSITORY = Path(__file__).parents[2]
HIERARCHY = ("video_hierarchy.", "text_hierarchy.")


def records(history, kind):
    """What a run recorded, without what depends on the machine."""
    dropped = ("kind", "videos_per_second", "seconds")
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    return [{key: line[key] for key in line if key not in dropped} for line in lines if line["kind"] == kind]


def steps(outcome):
    return records(outcome.history, "step")


def weights(folder):
    return HCMIModel.from_pretrained(folder).state_dict()


def differing(first, second):
    """Names of the weights that are not bit for bit the same."""
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


@pytest.fixture
def models(monkeypatch):
    """For every run, the model it trains and a copy of the weights it begins with."""
    seen = []
    real = loop.build

    def build(*args):
        model, processor = real(*args)
        seen.append((model, {name: tensor.clone() for name, tensor in model.state_dict().items()}))
        return model, processor

    monkeypatch.setattr(loop, "build", build)
    return seen


@pytest.fixture
def batches(monkeypatch):
    """For every step, the rows of its videos and whether it had a second view."""
    seen = []
    real = loop.hcmi_objective

    def objective(text, video, scale, config, second, rows):
        seen.append((rows.tolist(), second is not None))
        return real(text, video, scale, config, second, rows)

    monkeypatch.setattr(loop, "hcmi_objective", objective)
    return seen


@pytest.fixture(scope="module")
def first(run, tmp_path_factory):
    """A finished run of two epochs of four steps."""
    return run(tmp_path_factory.mktemp("first") / "run", max_words=24, tracker="tensorboard")


def test_its_files_and_nothing_else(first):
    output = first.model.parent
    names = {"model", "result.json", "curves.png", "history.jsonl", "arguments.yaml", "tensorboard"}
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


FRAMES = [
    {"candidate_frames": 0, "frame_store": "none"},
    {"candidate_frames": 8, "frame_store": "none"},
    {"candidate_frames": 8, "frame_store": "raw"},
]


@pytest.mark.parametrize("frames", FRAMES[::2])
def test_worker_processes_change_nothing(run, tmp_path, frames):
    alone, helped = (run(tmp_path / str(n), epochs=1, num_workers=n, **frames) for n in (0, 2))
    assert steps(alone) == steps(helped)
    assert alone.result["levels"] == helped.result["levels"]


def test_kept_frames_train_as_the_videos_do(run, tmp_path):
    decoded, raw, jpeg = (
        run(tmp_path / store, epochs=1, candidate_frames=8, frame_store=store, frame_folder=folder)
        for store, folder in (("none", None), ("raw", str(tmp_path / "frames")), ("jpeg", str(tmp_path / "frames")))
    )
    assert steps(raw) == steps(decoded)
    assert raw.result["levels"] == decoded.result["levels"]
    assert steps(jpeg) != steps(decoded)
    for record, expected in zip(steps(jpeg), steps(decoded), strict=True):
        assert record["loss"] == pytest.approx(expected["loss"], rel=0.02)


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


def test_a_batch_larger_than_the_split_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size \(33\) exceeds the number of training pairs \(32\)"):
        run(tmp_path / "run", batch_size=33)
    assert run(tmp_path / "whole", batch_size=32, epochs=1).result["training"]["steps"] == 1


@pytest.mark.parametrize("words", [2, 41])
def test_impossible_text_lengths_are_refused_before_anything_is_decoded(run, tmp_path, monkeypatch, words):
    monkeypatch.setattr(loop, "prepare_frames", lambda *_, **__: pytest.fail("decoded first"))
    with pytest.raises(ValueError, match=rf"max_words must lie in 3\.\.40 for this model, not {words}"):
        run(tmp_path, max_words=words)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("frames", FRAMES)
def test_an_unreadable_video_is_named(run, tmp_path, workers, frames):
    sizes = {"train": 9, "validation": 2, "test": 2}
    folder = write_shape_stories(tmp_path / "data", sizes=sizes, workers=1, progress=False)
    broken = load_shape_stories(folder, "train")[5]
    Path(broken["video"]).write_bytes(b"no video")
    options = {"annotations": str(folder), "num_workers": workers, "batch_size": 9} | frames
    with pytest.raises(VideoReadError, match=broken["video_id"]):
        run(tmp_path / "run", **options)


@pytest.mark.parametrize(("recalls", "chosen"), [([10, 30, 20], 2), ([20, 20, 10], 1), ([0, 0, 5], 3)])
def test_the_best_epoch_on_validation_is_kept_and_tested_once(run, models, monkeypatch, tmp_path, recalls, chosen):
    calls = []
    real = loop.evaluate

    def evaluate(model, processor, dataset, **options):
        split = dataset["video_id"][0].split("_")[0]
        calls.append((split, {name: tensor.clone() for name, tensor in model.state_dict().items()}))
        measured = real(model, processor, dataset, **options)
        if split == "validation":
            measured["levels"]["combined"]["text_to_video"]["R@1"] = float(recalls[len(calls) - 1])
        return measured

    monkeypatch.setattr(loop, "evaluate", evaluate)
    outcome = run(tmp_path, epochs=3)
    assert [split for split, _ in calls] == ["validation"] * 3 + ["test"]
    kept = weights(outcome.model)
    assert not differing(kept, calls[chosen - 1][1]) and not differing(kept, calls[3][1])
    assert all(differing(kept, calls[epoch][1]) for epoch in range(3) if epoch != chosen - 1)
    assert outcome.result["training"]["chosen_epoch"] == chosen
    assert outcome.result["training"]["validation_recall_at_1"] == recalls[chosen - 1]


def test_the_last_epoch_is_kept_without_validation(run, models, monkeypatch, tmp_path):
    measured = []
    real = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *a, **options: measured.append(a[2]) or real(*a, **options))
    outcome = run(tmp_path, epochs=2, choose="last")
    assert [dataset["video_id"][0].split("_")[0] for dataset in measured] == ["test"]
    assert not differing(weights(outcome.model), models[0][0].state_dict())
    training = outcome.result["training"]
    assert (training["chosen_epoch"], training["chosen_by"]) == (2, "fixed beforehand: the last")
    assert "validation_recall_at_1" not in training
    with Image.open(outcome.curves) as image:
        image.verify()


@pytest.mark.parametrize(("choose", "videos", "held_out"), [("validation", 24, 8), ("last", 32, 0)])
def test_videos_that_choose_the_model_do_not_train_it(run, batches, monkeypatch, tmp_path, choose, videos, held_out):
    # As in MSR-VTT, whose official validation videos lie inside the training lists of 1k-A.
    real = loop.load_benchmark

    def load_benchmark(name, split, **places):
        if split != "validation":
            return real(name, split, **places)
        return real(name, "train", **places).select(range(3, 32, 4))

    monkeypatch.setattr(loop, "load_benchmark", load_benchmark)
    outcome = run(tmp_path, epochs=1, choose=choose)
    assert (outcome.result["training"]["videos"], outcome.result["training"]["held_out"]) == (videos, held_out)
    assert sorted(row for rows, _ in batches for row in rows) == list(range(videos))


def test_ctrl_c_in_a_step_leaves_the_model_as_it_stands(run, models, monkeypatch, tmp_path):
    real, calls = loop.hcmi_objective, []

    def objective(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(loop, "hcmi_objective", objective)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    model, initial = models[0]
    saved = weights(tmp_path / "interrupted")
    assert not differing(saved, model.state_dict())
    # The first step of the warm-up has rate 0; the second one moved what has a gradient.
    assert len(differing(saved, initial)) > len(initial) / 2
    assert HCMIProcessor.from_pretrained(tmp_path / "interrupted").frames_per_video == 4
    assert not (tmp_path / "model").exists()


def test_ctrl_c_in_a_validation_keeps_the_best_model_too(run, models, monkeypatch, tmp_path):
    real, calls = loop.evaluate, []

    def evaluate(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(loop, "evaluate", evaluate)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert not differing(weights(tmp_path / "interrupted"), models[0][0].state_dict())
    assert differing(weights(tmp_path / "model"), weights(tmp_path / "interrupted"))


def test_another_ctrl_c_does_not_disturb_the_saving(run, models, monkeypatch, tmp_path):
    def objective(*_):
        raise KeyboardInterrupt

    def save_model(*args):
        os.kill(os.getpid(), signal.SIGINT)
        real(*args)

    real = loop.save_model
    monkeypatch.setattr(loop, "hcmi_objective", objective)
    monkeypatch.setattr(loop, "save_model", save_model)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not differing(weights(tmp_path / "interrupted"), models[0][0].state_dict())


def test_training_goes_on_from_an_interrupted_model(first, run, models, tmp_path):
    outcome = run(tmp_path, model=str(first.model), model_config=None, epochs=1, max_words=24)
    assert not differing(models[0][1], weights(first.model))
    assert differing(weights(outcome.model), weights(first.model))


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_videos(run, batches, stories, tmp_path):
    with pytest.raises(NonFiniteLossError) as caught:
        # Every weight is 1e30 after the first step.
        run(tmp_path, learning_rate=1e30, tower_learning_rate=1e30, warmup_share=0)
    names = load_shape_stories(stories, "train")["video_id"]
    ids = ", ".join(names[row] for row in batches[1][0])
    assert len(batches) == 2 and "learning_rate" in str(caught.value)
    assert f"the loss is nan at step 2. Videos of this batch: {ids}." in str(caught.value)
    assert not (tmp_path / "interrupted").exists()


def test_label_denoising_off_takes_one_view(run, batches, tmp_path):
    outcome = run(tmp_path, epochs=1, config_overrides={"label_denoising": False})
    assert not any(second for _, second in batches)
    assert all(record["mined_pairs"] == 0 for record in steps(outcome))
    assert not HCMIModel.from_pretrained(outcome.model).config.label_denoising


@pytest.mark.parametrize(("start", "expected"), [(0.0, [True] * 3), (0.5, [False, False, True])])
def test_label_denoising_begins_when_it_should(run, batches, tmp_path, start, expected):
    outcome = run(tmp_path, epochs=3, batch_size=32, denoising_start=start)
    assert [second for _, second in batches] == expected
    assert [record["mined_pairs"] > 0 for record in steps(outcome)] == expected


def test_parts_that_weigh_nothing_are_left_out(run, tmp_path):
    levels = {"frame_word": 1.0, "clip_phrase": 0.0, "video_sentence": 0.0}
    overrides = {"loss_weights": levels, "inference_weights": levels, "marginal_weight": 0.0}
    outcome = run(tmp_path, epochs=1, config_overrides=overrides)
    assert all(record["loss"] == pytest.approx(record["frame_word"], rel=1e-6) for record in steps(outcome))
    assert all(set(record) == {"step", "loss", "frame_word", "mined_pairs", "learning_rate"}
               for record in steps(outcome))  # fmt: skip
    measured = outcome.result["levels"]
    assert measured["combined"]["text_to_video"] == measured["frame_word"]["text_to_video"]


@pytest.mark.parametrize(("part", "frozen"), [("towers", False), ("hierarchy", True)])
def test_frozen_parts_stay_bit_for_bit(run, models, tmp_path, part, frozen):
    outcome = run(tmp_path, epochs=1, freeze=[part])
    changed = differing(weights(outcome.model), models[0][1])
    assert changed and all(name.startswith(HIERARCHY) != frozen for name in changed)


def test_each_part_has_its_own_rate(run, models, tmp_path):
    outcome = run(tmp_path, epochs=1, tower_learning_rate=0.0)
    changed = differing(weights(outcome.model), models[0][1])
    assert changed and all(name.startswith(HIERARCHY) for name in changed)


def test_bf16_trains_weights_that_stay_float32(run, tmp_path):
    full, half = (run(tmp_path / name, epochs=1, mixed_precision=name) for name in ("no", "bf16"))
    assert steps(half)[0]["loss"] == pytest.approx(steps(full)[0]["loss"], rel=0.05)
    assert steps(half) != steps(full)
    assert {tensor.dtype for tensor in weights(half.model).values()} == {torch.float32}
    assert half.result["dtype"] == "float32"


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_gradient_checkpointing_changes_nothing_but_memory(run, tmp_path):
    plain, spared = (run(tmp_path / str(on), epochs=1, gradient_checkpointing=on) for on in (False, True))
    for expected, record in zip(steps(plain), steps(spared), strict=True):
        assert record == pytest.approx(expected, rel=1e-5)


def test_a_clip_checkpoint_becomes_a_model_of_all_levels(run, models, clip_folder, tmp_path):
    outcome = run(tmp_path, epochs=1, model=str(clip_folder), model_config=None)
    clip = CLIPModel.from_pretrained(clip_folder).state_dict()
    assert all(torch.equal(models[0][1][name], weight) for name, weight in clip.items())
    model = HCMIModel.from_pretrained(outcome.model)
    assert model.config.inference_weights == outcome.result["inference_weights"] == dict.fromkeys(LEVELS, 1.0)
    assert differing(model.state_dict(), models[0][1])


def test_two_processes_do_what_one_does(run, arguments_for, tmp_path):
    # One step an epoch, of 24 out of 32 videos: every step is recorded. The level that weighs nothing leaves parameters
    # without gradient, for which data parallelism must not wait.
    overrides = {"loss_weights": {"frame_word": 1.0, "clip_phrase": 0.0, "video_sentence": 1.0}}
    fields = {"batch_size": 24, "epochs": 4, "config_overrides": overrides}
    alone = run(tmp_path / "one", **fields)
    arguments_for(tmp_path / "two", **fields).save(tmp_path / "two.yaml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    finished = subprocess.run(
        [*launch, str(REPOSITORY / "train" / "run.py"), "--config", str(tmp_path / "two.yaml")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("model:") == 1

    shared = records(tmp_path / "two" / "history.jsonl", "step")
    assert [record["step"] for record in shared] == [1, 2, 3, 4]
    assert any(record["mined_pairs"] > 0 for record in shared)
    for expected, record in zip(steps(alone), shared, strict=True):
        assert record == pytest.approx(expected, rel=0, abs=1e-5)

    result = load_result(tmp_path / "two" / "result.json")
    assert result["training"]["processes"] == 2
    for key in ("levels", "moments", "counts", "frames", "tokens", "seed", "protocol", "inference_weights"):
        assert result[key] == alone.result[key], key
    assert result["training"]["chosen_epoch"] == alone.result["training"]["chosen_epoch"]
    names = {"model", "result.json", "curves.png", "history.jsonl", "arguments.yaml"}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names
