import os
import signal
import threading

import pytest
from training_runs import checkpoints, differing, records, weights

from hcmi.modeling_hcmi import HCMIModel
from hcmi.processing import HCMIProcessor
from hcmi.train import checkpoints as checkpoints_module
from hcmi.train import loop, run_evaluation
from hcmi.train.interruption import Interruption
from hcmi.train.recording import Recorder

pytestmark = pytest.mark.usefixtures("no_picture")

FIELDS = {"checkpoint_every": 0}  # two epochs of four steps


class OneProcess:
    """Of an accelerator what an interruption asks it."""

    num_processes = 1
    triggered = False

    def set_trigger(self):
        self.triggered = True

    def check_trigger(self):
        return self.triggered


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole") / "run", **FIELDS)


@pytest.fixture
def ctrl_c_in(monkeypatch):
    """Step and number of times to a run in which Ctrl-C is pressed in the middle of that step."""

    def press(step, times=1):
        real = loop._Training._take

        def interrupted(self, batch, last):
            if self.progress.steps + 1 == step:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
            return real(self, batch, last)

        monkeypatch.setattr(loop._Training, "_take", interrupted)

    return press


@pytest.mark.parametrize("step", [1, 4, 6])
def test_ctrl_c_ends_the_step_and_leaves_what_goes_on(whole, run, ctrl_c_in, monkeypatch, tmp_path, capsys, step):
    ctrl_c_in(step, times=2)  # by the terminal, and by a launcher
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **FIELDS)
    newest = tmp_path / "checkpoints" / f"step-{step:08d}"
    out = capsys.readouterr().out
    assert f"interrupted after step {step}; this goes on from {newest}\n" in out
    assert out.endswith(f"  hcmi train --config {tmp_path / 'arguments.yaml'}\n")
    assert checkpoints(tmp_path)[-1] == newest.name
    assert HCMIModel.from_pretrained(newest) and HCMIProcessor.from_pretrained(newest).frames_per_video == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert (tmp_path / "model").exists() == (step > 4)

    monkeypatch.undo()
    outcome = run(tmp_path, **FIELDS)
    for kind in ("step", "epoch"):
        assert records(outcome.history, kind) == records(whole.history, kind)
    assert not differing(weights(outcome.model), weights(whole.model))


def test_the_third_ctrl_c_ends_the_run_at_once(run, ctrl_c_in, tmp_path, capsys):
    ctrl_c_in(1, times=3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **FIELDS)
    out = capsys.readouterr().out
    assert "interrupted after step 0; this goes on from the beginning: there is no checkpoint yet\n" in out
    assert not (tmp_path / "checkpoints").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_ctrl_c_does_not_disturb_the_writing(run, ctrl_c_in, monkeypatch, tmp_path):
    real = checkpoints_module._put_on_disk

    def put_on_disk(folder):
        os.kill(os.getpid(), signal.SIGINT)
        real(folder)

    ctrl_c_in(2)
    monkeypatch.setattr(checkpoints_module, "_put_on_disk", put_on_disk)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **FIELDS)
    assert checkpoints(tmp_path) == ["step-00000002"]


def test_ctrl_c_in_a_validation_goes_on_there(whole, run, monkeypatch, tmp_path):
    real, calls = run_evaluation.evaluate, []

    def evaluate(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_evaluation, "evaluate", evaluate)
        run(tmp_path, **FIELDS)
    assert checkpoints(tmp_path) == ["step-00000004", "step-00000008"]
    assert not differing(weights(tmp_path / "model"), weights(tmp_path / "checkpoints" / "step-00000004"))
    monkeypatch.setattr(loop._Training, "_take", lambda *_: pytest.fail("trained"))
    outcome = run(tmp_path, **FIELDS)
    assert records(outcome.history, "epoch") == records(whole.history, "epoch")
    assert not differing(weights(outcome.model), weights(whole.model))


def test_a_step_that_fails_after_ctrl_c_is_an_interruption(run, monkeypatch, tmp_path):
    def add(*_):
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("DataLoader worker is killed by signal")

    monkeypatch.setattr(Recorder, "add", add)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **FIELDS)


def test_an_error_without_ctrl_c_stays_what_it_is():
    with pytest.raises(RuntimeError, match="broken"), Interruption(OneProcess()) as interruption:
        assert not interruption.requested()
        raise RuntimeError("broken")


def test_it_listens_in_the_main_thread_and_to_nobody_elses_signals():
    with Interruption(OneProcess()) as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested()
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        with Interruption(OneProcess()) as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert seen and not interruption.requested()
    finally:
        signal.signal(signal.SIGINT, before)

    def elsewhere():
        with Interruption(OneProcess()) as interruption:
            seen.append(interruption.requested())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [1, False]


@pytest.mark.parametrize("processes", [1, 2])
def test_one_process_leaves_at_once_what_changes_nothing_and_several_end_it_together(processes):
    accelerator, ended = OneProcess(), []
    accelerator.num_processes = processes
    try:
        with Interruption(accelerator) as interruption, interruption.at_once():
            os.kill(os.getpid(), signal.SIGINT)
            ended.append(interruption.requested())
    except KeyboardInterrupt:
        ended.append("at once")
    assert ended == ["at once" if processes == 1 else True]
