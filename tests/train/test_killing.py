import random
import signal
import time
from dataclasses import asdict

import killed_runs
import pytest
from training_runs import differing, records, weights

KILLS = 20


def same(output, other):
    """Whether two runs have left the same weights and history."""
    recorded = [[records(folder / "history.jsonl", kind) for kind in ("step", "epoch")] for folder in (output, other)]
    return recorded[0] == recorded[1] and not differing(weights(output / "model"), weights(other / "model"))


@pytest.fixture(scope="module")
def fields(arguments_for, dropout_config, tmp_path_factory):
    """Folder to the arguments of a run of three epochs of four steps."""

    def make(folder, **more):
        short = {"epochs": 3, "epoch_over": "captions", "batch_size": 24, "checkpoint_every": 2}
        return asdict(arguments_for(folder, model_config=str(dropout_config), **short | more))

    return make


@pytest.fixture(scope="module")
def whole(fields, tmp_path_factory):
    """The run in one go, and the seconds it takes."""
    output = tmp_path_factory.mktemp("whole") / "run"
    # The first process imports everything.
    assert killed_runs.finish(killed_runs.start(fields(output.with_name("first"), epochs=1))) == 0
    began = time.monotonic()
    assert killed_runs.finish(killed_runs.start(fields(output))) == 0
    return output, time.monotonic() - began


def test_runs_killed_at_random_times_end_as_if_nothing_had_been(whole, fields, tmp_path):
    expected, seconds = whole
    dice = random.Random(4)
    kills, finished, torn = 0, 0, 0
    while kills < KILLS:
        output = tmp_path / str(finished)
        if kills % 3 == 2:
            # In the middle of a checkpoint: from its first file on.
            process = killed_runs.start(fields(output), killed_runs.write_slowly, 0.1)
            while process.is_alive() and not list(output.glob("checkpoints/.step-*")):
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.3))
        else:
            process = killed_runs.start(fields(output))
            process.join(dice.uniform(0, 0.3 * seconds))
        process.kill()
        status = killed_runs.finish(process)
        assert status in (0, -signal.SIGKILL), (output / "log.txt").read_text()
        if status:
            kills += 1
            torn += bool(list(output.glob("checkpoints/.step-*")))
        else:
            assert same(output, expected)
            finished += 1
    output = tmp_path / str(finished)
    assert killed_runs.finish(killed_runs.start(fields(output))) == 0, (output / "log.txt").read_text()
    assert same(output, expected)
    assert torn > 0


def test_killed_while_it_writes(whole, fields, tmp_path):
    def killed_at(call, number):
        process = killed_runs.start(fields(tmp_path, epochs=3), killed_runs.die_at, call, number)
        assert killed_runs.finish(process) == -signal.SIGKILL
        return {path.name for folder in (tmp_path, tmp_path / "checkpoints") for path in folder.iterdir()}

    assert {".step-00000002.part"} == {name for name in killed_at("fsync", 5) if "step" in name}
    assert {".step-00000002.part"} == {name for name in killed_at("rename", 0) if "step" in name}
    # Steps 2 and 4 are written; the first model is about to get its name.
    left = killed_at("rename", 2)
    assert {"step-00000002", "step-00000004", ".model.new"} <= left and "model" not in left
    # Step 6 is written; the oldest is on its way out.
    assert {"step-00000002", "step-00000004", "step-00000006"} <= killed_at("rename", 2)
    expected, _ = whole
    assert killed_runs.finish(killed_runs.start(fields(tmp_path))) == 0, (tmp_path / "log.txt").read_text()
    assert same(tmp_path, expected)
