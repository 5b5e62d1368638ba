import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState, GradientState
from hub_client import point_client_at
from hub_server import serve_hub
from hub_state import TOKEN

from hcmi.cli import main
from hcmi.modeling_hcmi import HCMIModel
from hcmi.train import publishing, step
from hcmi.train.data.shape_stories import load_shape_stories, write_shape_stories
from hcmi.train.results import format_result, load_result

REPOSITORY = Path(__file__).parents[2]
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    sizes = {"train": 16, "validation": 4, "test": 4}
    return write_shape_stories(tmp_path_factory.mktemp("stories") / "data", sizes=sizes, workers=1, progress=False)


@pytest.fixture
def config(tmp_path, stories):
    """A YAML file with a run of two epochs of two steps; the model's configuration lies beside it."""
    model = {"projection_dim": 32, "max_frames": 4}
    model |= {"text_config": TOWER, "vision_config": TOWER | {"image_size": 16, "patch_size": 8}}
    (tmp_path / "tiny.json").write_text(json.dumps(model))
    fields = {"annotations": str(stories), "output": str(tmp_path / "run"), "model_config": "tiny.json"}
    fields |= {
        "vocabulary": 150,
        "epoch_over": "videos",
        "frames_per_video": 4,
        "candidate_frames": 4,
        "frame_store": "raw",
        "batch_size": 8,
        "epochs": 2,
        "cpu": True,
        "cpu_threads": 1,
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(fields | {"tracker": "none"}))
    # Accelerate keeps the settings of a process's first run.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return str(path)


def test_train_tells_what_it_found_and_where_it_is(config, tmp_path, capsys):
    assert main(["train", "--config", config, "--epochs", "1", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    result = load_result(tmp_path / "run" / "result.json")
    assert (result["seed"], result["training"]["steps"]) == (3, 2)
    assert format_result(result) in out
    for name in ("model", "result.json", "curves.png", "history.jsonl"):
        assert (tmp_path / "run" / name).exists() and str(tmp_path / "run" / name) in out
    assert "epoch 1/1: validation R@1 frame-word" in out
    last = err.replace("\r", "\n").split("training:")[-1]
    assert "100%" in last
    for shown in (
        "loss=",
        "frame-word=",
        "clip-phrase=",
        "video-sentence=",
        "marginal=",
        "mined-pairs=",
        "lr=",
        "videos/s=",
    ):
        assert shown in last


def test_the_help_explains_every_group(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for group in ("run", "data", "model", "optimisation", "evaluation"):
        assert f"\n{group}:\n" in out
    assert "--config YAML" in out and "accelerate launch train/run.py" in out


def test_ctrl_c_ends_with_130_and_the_command_that_goes_on(config, tmp_path, monkeypatch, capsys):
    real, calls = step.hcmi_objective, []

    def objective(*args):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(step, "hcmi_objective", objective)
    assert main(["train", "--config", config]) == 130
    out, err = capsys.readouterr()
    folder = tmp_path / "run" / "checkpoints" / "step-00000003"
    assert f"interrupted after step 3; this goes on from {folder}\n  hcmi train --config" in out
    assert "Traceback" not in out + err
    HCMIModel.from_pretrained(folder)
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_loss_that_is_no_number_is_one_line(config, stories, capsys):
    rates = ["--learning_rate", "1e30", "--tower_learning_rate", "1e30", "--warmup_share", "0"]
    assert main(["train", "--config", config, *rates]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("hcmi train: error: the loss is nan at step 2. Videos of this batch: train_000")
    assert sum(name in last for name in load_shape_stories(stories, "train")["video_id"]) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch_size", "17"], "batch_size (17) exceeds the number of training pairs (16)"),
        (["--epochs", "many"], "epochs must be of type int"),
        (["--benchmark", "kinetics"], "shape_stories"),
        (["--config_overrides", '{"projection_dim": -1}'], "projection_dim"),
        (["--freeze", "towers,hierarchy"], "nothing is left to train"),
        (["--model", "somewhere"], "give either `model`"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_impossible_wishes_are_one_line(config, words, message, capsys):
    assert main(["train", "--config", config, *words]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hcmi train: error:")]
    assert len(lines) == 1 and message in lines[0]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serve_hub() as server:
        point_client_at(server, tmp_path / "home", monkeypatch)
        yield server


PUSH = ["--epochs", "1", "--push_to_hub", "tester/run", "--private"]


def test_push_to_hub_publishes_the_run_and_keeps_no_token(config, hub, tmp_path, capsys):
    assert main(["train", "--config", config, *PUSH]) == 0
    out, err = capsys.readouterr()
    repository = hub.model("tester/run")
    assert f"published: {hub.address}/tester/run/commit/{repository.branches['main']}" in out
    assert repository.private and len(repository.commits) == 2, "one makes the repository, the other is the model"
    published = json.loads(hub.files("tester/run")["result.json"])
    assert published["levels"] == load_result(tmp_path / "run" / "result.json")["levels"]
    assert TOKEN not in out + err
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]


def test_what_cannot_be_published_is_told_before_the_training(config, hub, tmp_path, capsys):
    assert main(["train", "--config", config, "--push_to_hub", "somebody/run"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "somebody/run was not published: the token may not write there. Nothing was begun." in last
    assert not (tmp_path / "run").exists()


def test_a_failed_upload_leaves_the_run_and_the_command_that_publishes_it(config, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publishing, "RETRY_AFTER", ())
    hub.fail("POST", "/commit/", 503)
    assert main(["train", "--config", config, *PUSH]) == 1
    run = tmp_path / "run"
    assert f"To try again: hcmi publish {run} tester/run --private" in capsys.readouterr().err.splitlines()[-1]
    assert load_result(run / "result.json")["training"]["steps"] == 2
    assert main(["publish", str(run), "tester/run", "--private"]) == 0
    assert "model.safetensors" in hub.files("tester/run")


def test_the_script_runs_through_accelerate_launch(config, tmp_path):
    # From another folder, with an output that is meant from there.
    launch = [str(Path(sys.executable).parent / "accelerate"), "launch", "--cpu", "--num_processes", "1"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    words = ["--config", config, "--epochs", "1", "--output", "here", "--tracker", "tensorboard"]
    finished = subprocess.run(
        [*launch, str(REPOSITORY / "train" / "run.py"), *words],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "text -> video: 12 queries, 4 to rank" in finished.stdout
    assert load_result(tmp_path / "here" / "result.json")["training"]["steps"] == 2
    assert list((tmp_path / "here" / "tensorboard").iterdir())
