import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import checkpoints, records, steps

from hcmi.train import loop
from hcmi.train.results import load_result

REPOSITORY = Path(__file__).parents[2]
# The level that weighs nothing leaves parameters without gradient, for which data parallelism must not wait.
OVERRIDES = {"loss_weights": {"frame_word": 1.0, "clip_phrase": 0.0, "video_sentence": 1.0}}


@pytest.fixture
def start_two(arguments_for, tmp_path):
    """Output folder and fields to a run in two processes that has begun."""

    def start(output, **fields):
        arguments_for(output, **fields).save(tmp_path / "two.yaml")
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        return subprocess.Popen(
            [*launch, str(REPOSITORY / "train" / "run.py"), "--config", str(tmp_path / "two.yaml")],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


def test_two_processes_do_what_one_does(run, start_two, tmp_path):
    # One step an epoch, of 24 out of 32 videos: every step is recorded.
    fields = {"batch_size": 24, "epochs": 4, "config_overrides": OVERRIDES}
    process = start_two(tmp_path / "two", **fields)
    alone = run(tmp_path / "one", **fields)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("model:") == 1

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
    names = {"model", "result.json", "curves.png", "history.jsonl", "arguments.yaml", "checkpoints"}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names


def test_one_process_goes_on_with_two_and_two_with_one(run, start_two, monkeypatch, tmp_path):
    # One step an epoch once more, so that two processes record every step too.
    fields = {"batch_size": 24, "epochs": 12, "choose": "last", "config_overrides": OVERRIDES, "keep_checkpoints": 99}
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    alone = run(tmp_path / "one", **fields)
    output = Path(shutil.copytree(tmp_path / "one", tmp_path / "two"))
    for name in checkpoints(output)[3:]:
        shutil.rmtree(output / "checkpoints" / name)

    process = start_two(output, **fields)
    while process.poll() is None and "step-00000004" not in checkpoints(output):
        time.sleep(0.01)
    assert process.poll() is None, "\n".join(process.communicate())
    # As a terminal does it: to the launcher and to its processes, to which the launcher passes it on.
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode != 0, err
    assert f"going on from {output / 'checkpoints' / 'step-00000003'}: 3 of 12 steps\n" in out
    assert out.count("interrupted after step") == 1, out + err
    assert f"  torchrun --nproc_per_node 2 {REPOSITORY / 'train' / 'run.py'} --config {output}/arguments.yaml\n" in out
    done = len(records(output / "history.jsonl", "step"))
    assert 4 <= done < 12 and checkpoints(output)[-1] == f"step-{done:08d}"

    again = run(output, **fields)
    assert again.result["training"]["steps"] == 12
    for expected, record in zip(steps(alone), steps(again), strict=True):
        assert record == pytest.approx(expected, rel=1e-6, abs=1e-6)
