"""Weights & Biases: a module that stands in for the package, and the package itself without a server."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from accelerate import tracking as accelerate_tracking
from accelerate.utils import LoggerType

from hcmi.modeling_hcmi import LEVELS
from hcmi.train import tracking
from hcmi.train.recording import Recorder

pytestmark = pytest.mark.usefixtures("no_picture")

# Two epochs of four steps, with a record, a validation and a checkpoint at the end of each.
FIELDS = {"tracker": "wandb", "checkpoint_every": 0}


class Died(Exception):
    pass


class Run:
    """What `wandb.init` returns: keeps what it is told."""

    def __init__(self, options):
        self.options = options
        self.axes = []
        self.rows = []
        self.finished = False

    def define_metric(self, name, step_metric):
        self.axes.append((name, step_metric))

    def log(self, values, step=None):
        assert step is None
        self.rows.append(values)

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """Stands in for the package; its runs are in `runs`."""
    module = ModuleType("wandb")
    module.Error = type("Error", (Exception,), {})
    module.runs = []
    module.init = lambda **options: module.runs.append(Run(options)) or module.runs[-1]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(tracking, "is_wandb_available", lambda: True)
    monkeypatch.setattr(accelerate_tracking, "_available_trackers", [LoggerType.WANDB])
    for name in ("WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    return module


@pytest.fixture
def dying(run, monkeypatch):
    """Output folder to a run that dies in its sixth step."""

    def start(output):
        real = Recorder.add

        def add(self, objective):
            if self.progress.steps == 6:
                raise Died
            real(self, objective)

        with monkeypatch.context() as patch, pytest.raises(Died):
            patch.setattr(Recorder, "add", add)
            run(output, **FIELDS)

    return start


def expected_rows(history: Path) -> list[dict[str, float]]:
    """What a run with this history tells a tracker."""
    rows = []
    for record in (json.loads(line) for line in history.read_text().splitlines()):
        kind, step = record.pop("kind"), record.pop("step")
        if kind == "step":
            others = {name: record.pop(name) for name in ("learning_rate", "videos_per_second", "waiting_for_data")}
            assert set(record) == {"loss", *LEVELS, "marginal", "mined_pairs"}
            rows.append({f"training/{part}": value for part, value in record.items()} | others | {"step": step})
        else:
            recall = {f"validation/recall_at_1/{level}": r for level, r in record["recall_at_1"].items()}
            assert len(recall) == 4
            rows.append(recall | {"step": step})
    return rows


def test_it_is_told_what_the_history_is(run, wandb, tmp_path):
    outcome = run(tmp_path / "mine", **FIELDS)
    (told,) = wandb.runs
    assert told.rows == expected_rows(outcome.history) and len(told.rows) == 4
    assert told.axes == [("*", "step")] and told.finished
    assert told.options["project"] == "hcmi" and told.options["name"] == "mine"
    assert (told.options["resume"], told.options["dir"]) == ("allow", str(tmp_path / "mine"))
    assert told.options["config"]["batch_size"] == 8 and told.options["config"]["epochs"] == 2
    assert told.options["id"] == (tmp_path / "mine" / "wandb_id.txt").read_text()


def test_a_run_that_goes_on_does_so_in_the_same_run(run, dying, wandb, tmp_path):
    dying(tmp_path / "mine")
    outcome = run(tmp_path / "mine", **FIELDS)
    first, second = wandb.runs
    assert first.options["id"] == second.options["id"] and second.options["resume"] == "allow"
    # The checkpoint is that of an epoch's end, whose validation comes after it.
    assert [row["step"] for row in first.rows] == [4, 4] and first.rows[1] == second.rows[0]
    assert first.rows[:1] + second.rows == expected_rows(outcome.history)
    run(tmp_path / "other", epochs=1, **FIELDS)
    assert wandb.runs[2].options["id"] != first.options["id"]


def test_a_run_that_begins_again_is_another(run, wandb, tmp_path):
    (tmp_path / "wandb_id.txt").write_text("of a run that died before its first checkpoint")
    run(tmp_path, epochs=1, **FIELDS)
    assert len(wandb.runs[0].options["id"]) == 32
    with pytest.raises(ValueError, match=r"holds a run .*wandb_id\.txt"):
        run(tmp_path, epochs=1, resume="none", **FIELDS)


def test_project_and_name_may_come_from_its_own_variables(run, wandb, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_PROJECT", "retrieval")
    monkeypatch.setenv("WANDB_NAME", "first try")
    run(tmp_path, epochs=1, **FIELDS)
    assert (wandb.runs[0].options["project"], wandb.runs[0].options["name"]) == ("retrieval", "first try")


def test_without_the_package_nothing_begins(run, monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "is_wandb_available", lambda: False)
    with pytest.raises(ValueError, match=r'tracker wandb needs .* pip install "hcmi\[wandb\]"'):
        run(tmp_path / "run", **FIELDS)
    assert not (tmp_path / "run").exists()


def test_who_is_not_logged_in_is_told_what_to_do(run, wandb, monkeypatch, tmp_path):
    def init(**_):
        raise wandb.Error("No API key configured.")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(ValueError, match=r"No API key configured\. Log in with `wandb login`, .*WANDB_MODE=offline"):
        run(tmp_path, **FIELDS)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_offline_the_package_itself_keeps_both_parts_of_a_run(run, dying, monkeypatch, tmp_path):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr(accelerate_tracking, "_available_trackers", [LoggerType.WANDB])
    dying(tmp_path)
    wandb.teardown()  # as the end of the process does, which waits until everything is written
    outcome = run(tmp_path, **FIELDS)
    wandb.teardown()
    own = (tmp_path / "wandb_id.txt").read_text()
    parts = sorted((tmp_path / "wandb").glob(f"offline-run-*-{own}/run-{own}.wandb"))
    assert len(parts) == 2
    first, second = map(offline_rows, parts)
    expected = expected_rows(outcome.history)
    told = zip(first[:1] + second, expected, strict=True)
    assert [{name: row[name] for name in row_told} for row, row_told in told] == expected


def offline_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a history in a file of W&B: records of protocol buffers in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, block = path.read_bytes(), 32768
    rows, at, record = [], 7, b""  # after the file's own header
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            parsed = Record.FromString(record)
            items = parsed.history.item
            if items:
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
            record = b""
    return rows
