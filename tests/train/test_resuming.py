import json
import shutil
import warnings
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import checkpoints, differing, records, weights

from hcmi.modeling_hcmi import HCMIModel
from hcmi.processing import HCMIProcessor
from hcmi.train import loop
from hcmi.train.data.pairs import TrainingPairs
from hcmi.train.data.shape_stories import write_shape_stories
from hcmi.train.recording import Recorder

# Two epochs of three steps, with two records in each.
FIELDS = {"checkpoint_every": 1, "keep_checkpoints": 9, "epochs": 2, "epoch_over": "captions", "batch_size": 32}
ALL = [f"step-{step:08d}" for step in range(1, 7)]


class Died(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def short():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_RECORD_EVERY", 2)
        patch.setattr(loop, "draw_curves", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def train(run, dropout_config):
    """Output folder and fields to a finished run."""

    def start(output, **fields):
        return run(output, **{"model_config": str(dropout_config)} | FIELDS | fields)

    return start


@pytest.fixture
def dying(train, monkeypatch):
    """Output folder, step and fields to a run that ends right after that step, before anything of it is written."""

    def start(output, step, **fields):
        real = Recorder.add

        def add(self, objective):
            if self.progress.steps == step:
                raise Died
            real(self, objective)

        with monkeypatch.context() as patch, pytest.raises(Died):
            patch.setattr(Recorder, "add", add)
            train(output, **fields)

    return start


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """The run in one go."""
    return train(tmp_path_factory.mktemp("whole") / "run", tracker="tensorboard")


@pytest.fixture
def copy(whole, tmp_path):
    """The output folder of the run in one go, to be changed."""
    return Path(shutil.copytree(whole.model.parent, tmp_path / "copy"))


def same(outcome, whole):
    kinds = ("step", "epoch")
    recorded = [[records(each.history, kind) for kind in kinds] for each in (outcome, whole)]
    return recorded[0] == recorded[1] and not differing(weights(outcome.model), weights(whole.model))


def keep_until(output, step):
    """As if the run had died in the step after this one."""
    for name in ALL[step:]:
        shutil.rmtree(output / "checkpoints" / name)


def damage(folder, name="model.safetensors"):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


def test_a_run_that_dies_in_every_step_repeats_the_one_that_does_not(whole, train, dying, tmp_path):
    for step in range(1, 7):
        dying(tmp_path, step, keep_checkpoints=1)
        assert not step > 1 or checkpoints(tmp_path) == [f"step-{step - 1:08d}"]
    outcome = train(tmp_path, keep_checkpoints=1)
    assert same(outcome, whole)
    for key in ("levels", "counts"):
        assert outcome.result[key] == whole.result[key]
    for key in ("steps", "chosen_epoch", "validation_recall_at_1"):
        assert outcome.result["training"][key] == whole.result["training"][key]


def test_checkpoints_of_epochs_are_enough(whole, train, dying, tmp_path):
    dying(tmp_path, 5, checkpoint_every=0)
    assert checkpoints(tmp_path) == ["step-00000003"]
    assert same(train(tmp_path, checkpoint_every=0), whole)
    assert checkpoints(tmp_path) == ["step-00000003", "step-00000006"]


def test_what_is_tracked_twice_counts_once(whole, train, dying, tmp_path):
    dying(tmp_path, 5, checkpoint_every=2, tracker="tensorboard")
    train(tmp_path, tracker="tensorboard")
    seen = []
    for output in (tmp_path, whole.model.parent):
        events = EventAccumulator(str(output / "tensorboard"))
        events.Reload()
        seen.append([(event.step, event.value) for event in events.Scalars("training/loss")])
    assert seen[0] == seen[1] and [step for step, _ in seen[0]] == [2, 3, 4, 6]


def test_batches_that_are_done_are_not_read(copy, train, monkeypatch):
    keep_until(copy, 5)
    real, read = TrainingPairs.__getitem__, []
    monkeypatch.setattr(TrainingPairs, "__getitem__", lambda self, index: read.append(index) or real(self, index))
    train(copy)
    assert len(read) == 32


def test_a_finished_run_is_tested_again(whole, copy, train, monkeypatch):
    monkeypatch.setattr(loop._Training, "_take", lambda *_: pytest.fail("trained"))
    outcome = train(copy)
    assert same(outcome, whole) and outcome.result["levels"] == whole.result["levels"]
    assert outcome.result["training"]["seconds"] > 0


def test_a_checkpoint_is_a_model_too(copy):
    _, loading = HCMIModel.from_pretrained(copy / "checkpoints" / ALL[5], output_loading_info=True)
    assert not any(loading.values())
    chosen = json.loads((copy / "result.json").read_text())["training"]["chosen_epoch"]
    kept = HCMIModel.from_pretrained(copy / "checkpoints" / ALL[3 * chosen - 1])
    assert not differing(kept.state_dict(), weights(copy / "model"))
    assert HCMIProcessor.from_pretrained(copy / "checkpoints" / ALL[0]).frames_per_video == 4


@pytest.mark.parametrize("how", ["changed", "cut", "gone", "without manifest", "with half a manifest"])
def test_a_damaged_checkpoint_is_named_and_passed_over(whole, copy, train, how):
    keep_until(copy, 4)
    newest = copy / "checkpoints" / ALL[3]
    if how == "changed":
        damage(newest)
    elif how == "cut":
        (newest / "optimizer.bin").write_bytes((newest / "optimizer.bin").read_bytes()[:-1])
    elif how == "gone":
        (newest / "scheduler.bin").unlink()
    elif how == "without manifest":
        (newest / "manifest.json").unlink()
    else:
        (newest / "manifest.json").write_text((newest / "manifest.json").read_text()[:50])
    with pytest.warns(UserWarning, match="step-00000004 is damaged and passed over"):
        outcome = train(copy)
    assert same(outcome, whole)
    assert checkpoints(copy) == ALL


def test_half_written_ones_are_never_chosen_and_cleared_away(whole, copy, train, capsys):
    keep_until(copy, 2)
    shutil.copytree(copy / "checkpoints" / ALL[1], copy / "checkpoints" / ".step-00000003.part")
    (copy / "model").rename(copy / ".model.old")
    assert same(train(copy), whole)
    assert f"going on from {copy / 'checkpoints' / ALL[1]}: 2 of 6 steps" in capsys.readouterr().out
    assert checkpoints(copy) == ALL and not (copy / ".model.old").exists()


def test_from_a_checkpoint_by_name_what_came_after_it_goes(whole, copy, train, dying):
    dying(copy, 3, resume=str(copy / "checkpoints" / ALL[1]))
    assert checkpoints(copy) == ALL[:2]
    assert [record["step"] for record in records(copy / "history.jsonl", "step")] == [2]
    assert same(train(copy), whole)


def test_names_that_are_no_checkpoint_of_the_run(copy, train, tmp_path):
    elsewhere = shutil.copytree(copy / "checkpoints" / ALL[2], tmp_path / ALL[2])
    with pytest.raises(ValueError, match="is no checkpoint of this run; they are in"):
        train(copy, resume=str(elsewhere))
    with pytest.raises(ValueError, match=r"step-00000009 is damaged: .*No such file"):
        train(copy, resume=str(copy / "checkpoints" / "step-00000009"))
    damage(copy / "checkpoints" / ALL[2])
    with pytest.raises(ValueError, match=r"step-00000003 is damaged: model\.safetensors is not as it was written"):
        train(copy, resume=str(copy / "checkpoints" / ALL[2]))
    assert checkpoints(copy) == ALL


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 2e-3}, r"learning_rate \(was 0.001, is 0.002\)"),
        ({"seed": 1, "epochs": 3}, r"seed \(was 0, is 1\), epochs \(was 2, is 3\)"),
        ({"mixed_precision": "bf16"}, r"mixed_precision \(was 'no', is 'bf16'\)"),
        (
            {"config_overrides": {"label_denoising": False}},
            r"config_overrides \(was {}, is {'label_denois.*}\)",
        ),
    ],
)
def test_other_settings_are_another_run(copy, train, fields, message):
    with pytest.raises(ValueError, match=f"the settings are not those of the run in .*: {message}. Going on"):
        train(copy, **fields)
    assert checkpoints(copy) == ALL and (copy / "result.json").is_file()


def test_what_changes_no_number_may_differ(whole, copy, train, stories, tmp_path):
    keep_until(copy, 4)
    moved = copy.rename(tmp_path / "moved")
    data = shutil.copytree(stories, tmp_path / "data")
    fields = {"annotations": str(data), "num_workers": 1, "tracker": "none", "checkpoint_every": 0}
    assert same(train(moved, **fields, keep_checkpoints=1, evaluation_batch_size=7), whole)
    assert checkpoints(moved) == ALL[5:]


def test_other_data_is_another_run(copy, train, tmp_path):
    sizes = {"train": 33, "validation": 8, "test": 8}
    data = write_shape_stories(tmp_path / "other", sizes=sizes, workers=1, progress=False)
    with pytest.raises(ValueError, match="the training videos, their order or their captions have changed"):
        train(copy, annotations=str(data))


def test_a_changed_file_of_the_models_configuration_is_another_run(copy, train, dropout_config, tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(dropout_config.read_text())
    train(tmp_path / "run", model_config=str(path))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"marginal_weight": 0.5}))
    with pytest.raises(ValueError, match=r"the model's configuration are not .*marginal_weight \(was 1.0, is 0.5\)"):
        train(tmp_path / "run", model_config=str(path))


def test_what_the_launcher_says_counts_and_is_in_the_command(train, dying, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    dying(tmp_path, 2)
    assert f"hcmi train --config {tmp_path / 'arguments.yaml'} --mixed_precision bf16\n" in capsys.readouterr().out
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    with pytest.raises(ValueError, match=r"mixed_precision \(was 'bf16', is 'no'\)"):
        train(tmp_path)


def test_none_refuses_a_folder_that_holds_a_run_and_takes_any_other(copy, train, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"holds a run .*arguments\.yaml.*resume: auto"):
        train(copy, resume="none")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "notes.txt").write_text("mine")
    train(tmp_path / "new", resume="none", epochs=1)
    assert (tmp_path / "new" / "notes.txt").read_text() == "mine"
    assert f"--config {tmp_path / 'new' / 'arguments.yaml'} --resume auto\n" in capsys.readouterr().out


def test_a_run_that_died_before_its_first_checkpoint_leaves_nothing_to_the_next(whole, train, dying, tmp_path):
    dying(tmp_path, 3, checkpoint_every=0, seed=3, tracker="tensorboard")
    assert records(tmp_path / "history.jsonl", "step") and not (tmp_path / "checkpoints").exists()
    assert same(train(tmp_path), whole)
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("left", ["model", "damaged checkpoints"])
def test_what_could_be_of_use_is_not_overwritten(copy, train, left):
    shutil.rmtree(copy / ("checkpoints" if left == "model" else "model"))
    (copy / "result.json").unlink()
    for folder in (copy / "checkpoints").glob("*"):
        damage(folder)
    with pytest.raises(ValueError, match="no whole checkpoint to go on from"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(copy)


def test_a_history_that_is_too_short_is_named(copy, train):
    (copy / "history.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"history.jsonl has 0 bytes, the run that goes on had written \d+"):
        train(copy)
