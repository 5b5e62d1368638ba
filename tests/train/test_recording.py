import torch
from tqdm.auto import tqdm

from hcmi.modeling_hcmi import LEVELS, HCMIObjective
from hcmi.train.history import History
from hcmi.train.recording import Recorder
from hcmi.train.resuming import Progress


class Tracker:
    def __init__(self):
        self.told = []

    def log(self, values, step):
        self.told.append((step, values))


def objective(value):
    parts = {name: torch.tensor(value) for name in ("loss", *LEVELS, "mined_pairs")}
    return HCMIObjective(**parts)


def recorder(tmp_path, monkeypatch, now):
    """A recorder of two pairs a step, whose clock is the list's only item."""
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    history = History(tmp_path / "history.jsonl")
    return Recorder(Tracker(), history, Progress(), tqdm(disable=True), 2)


def test_means_and_speed_go_to_the_history_and_to_the_tracker(tmp_path, monkeypatch):
    now = [100.0]
    own = recorder(tmp_path, monkeypatch, now)
    for value in (1.0, 2.0, 6.0):
        own.progress.steps += 1
        own.add(objective(value))
    now[0] += 2.0
    own.record(1e-3, 0.25)
    means = dict.fromkeys(("loss", *LEVELS, "mined_pairs"), 3.0)
    others = {"learning_rate": 1e-3, "videos_per_second": 3.0, "waiting_for_data": 0.25}
    assert own.history.records == [{"kind": "step", "step": 3} | means | others]
    assert own.tracker.told == [(3, {f"training/{part}": mean for part, mean in means.items()} | others)]
    assert (own.progress.sums, own.progress.count) == ({}, 0)


def test_every_record_begins_anew(tmp_path, monkeypatch):
    now = [0.0]
    own = recorder(tmp_path, monkeypatch, now)
    for value in (1.0, 5.0):
        now[0] += 100.0  # a validation, which is no training
        own.start_clock()
        own.add(objective(value))
        now[0] += value
        own.record(1e-3, 0.0)
    recorded = [(record["loss"], record["videos_per_second"]) for record in own.history.records]
    assert recorded == [(1.0, 2.0), (5.0, 0.4)]


def test_sums_of_a_run_before_count_but_not_its_time(tmp_path, monkeypatch):
    now = [0.0]
    own = recorder(tmp_path, monkeypatch, now)
    own.progress.sums, own.progress.count = {"loss": 10.0, "mined_pairs": 0.0}, 4
    own.add(HCMIObjective(loss=torch.tensor(5.0), mined_pairs=torch.tensor(5.0)))
    now[0] += 1.0
    own.record(1e-3, 0.0)
    (record,) = own.history.records
    assert (record["loss"], record["mined_pairs"], record["videos_per_second"]) == (3.0, 1.0, 2.0)


def test_a_validation_of_every_level(tmp_path, monkeypatch, capsys):
    own = recorder(tmp_path, monkeypatch, [0.0])
    own.progress.steps = 7
    recall = dict(zip((*LEVELS, "combined"), (10.0, 20.0, 30.0, 40.0), strict=True))
    levels = {level: {"text_to_video": {"R@1": value}} for level, value in recall.items()}
    assert own.validated(1, 5, {"levels": levels, "seconds": {"total": 2.0}}) == recall
    (record,) = own.history.of_kind("epoch")
    assert (record["epoch"], record["step"], record["recall_at_1"]) == (2, 7, recall)
    assert own.tracker.told == [(7, {f"validation/recall_at_1/{level}": value for level, value in recall.items()})]
    shown = "epoch 2/5: validation R@1 frame-word 10.0, clip-phrase 20.0, video-sentence 30.0, combined 40.0"
    assert shown in capsys.readouterr().out


def test_a_line_tells_what_a_run_waits_for(tmp_path, monkeypatch, capsys):
    recorder(tmp_path, monkeypatch, [0.0]).waited(0, 3, 0.125)
    assert "epoch 1/3: 12 % of the time waiting for data, 88 % for the steps" in capsys.readouterr().out


def test_other_processes_than_the_main_one_tell_nothing(monkeypatch, capsys):
    own = Recorder(None, None, Progress(), tqdm(disable=True), 2)
    own.add(objective(1.0))
    own.record(1e-3, 0.5)
    own.waited(0, 1, 0.5)
    assert own.progress.count == 0 and not capsys.readouterr().out
