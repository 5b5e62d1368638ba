import errno
import shutil
from dataclasses import asdict

import killed_runs
import pytest
from accelerate import Accelerator
from training_runs import checkpoints, differing, records, weights

pytestmark = pytest.mark.usefixtures("no_picture")

FIELDS = {"checkpoint_every": 1, "epochs": 2}  # of four steps


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole") / "run", **FIELDS)


def same(history, model, whole):
    recorded = [[records(path, kind) for kind in ("step", "epoch")] for path in (history, whole.history)]
    return recorded[0] == recorded[1] and not differing(weights(model), weights(whole.model))


def test_a_full_disk_is_told_and_the_training_goes_on(whole, run, monkeypatch, tmp_path, capsys):
    real, seen = Accelerator.save_state, []

    def save_state(self, folder, **options):
        real(self, folder, **options)
        step = int(folder.split("-")[-1].split(".")[0])
        seen.append(checkpoints(tmp_path))
        if step in (3, 4, 5):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Accelerator, "save_state", save_state)
    outcome = run(tmp_path, **FIELDS)
    out = capsys.readouterr().out
    for step in (3, 4, 5):
        message = f"the checkpoint after step {step} could not be written: [Errno 28] No space left on device\n"
        assert out.count(message) == 1
    # The last good ones survive, beside what is being written.
    good = ["step-00000001", "step-00000002"]
    assert seen[2:6] == [[f".step-{step:08d}.part", *good] for step in (3, 4, 5, 6)]
    assert checkpoints(tmp_path) == ["step-00000007", "step-00000008"]
    assert same(outcome.history, outcome.model, whole)


def test_a_run_whose_model_finds_no_room_ends_and_goes_on_later(whole, run, arguments_for, tmp_path):
    fields = asdict(arguments_for(tmp_path, **FIELDS))
    assert killed_runs.finish(killed_runs.start(fields, killed_runs.fill_disk, 3, 100_000)) == 1
    log = (tmp_path / "log.txt").read_text()
    assert "the checkpoint after step 3 could not be written" in log
    assert "the checkpoint after step 4 could not be written" in log
    assert f"OSError: the model cannot be written to {tmp_path / 'model'}" in log
    assert checkpoints(tmp_path) == ["step-00000001", "step-00000002"]
    assert not (tmp_path / "model").exists() and not (tmp_path / ".model.new").exists()
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000001")
    outcome = run(tmp_path, **FIELDS)
    assert same(outcome.history, outcome.model, whole)
