import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pool_jobs import note, note_or_fail

from hcmi.train.data import worker_pool
from hcmi.train.data.worker_pool import run_jobs

SUPPORT = Path(__file__).parents[2] / "support"
WAITING = f"""
import sys; sys.path.insert(0, {str(SUPPORT)!r})
from hcmi.train.data import worker_pool
from pool_jobs import note_and_wait
worker_pool._START_SECONDS = 0
worker_pool.run_jobs(note_and_wait, sys.argv[1], ["a", "b"], num_workers=2, finished=print)
"""


@pytest.fixture(autouse=True)
def processes_at_once(monkeypatch):
    monkeypatch.setattr(worker_pool, "_START_SECONDS", 0)


@pytest.fixture
def waiting(tmp_path):
    """A process, the leader of a group, whose two workers do not come to an end; and their ids."""
    program = [sys.executable, "-c", WAITING, str(tmp_path)]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process, [int(wait_for(tmp_path / name)) for name in "ab"]
        finally:
            process.kill()


def wait_for(path):
    """The contents of a file, when it has some."""
    return until(lambda: path.read_text() if path.exists() else "")


def until(true):
    for _ in range(600):
        if value := true():
            return value
        time.sleep(0.1)
    pytest.fail("waited for a minute")


def is_alive(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_job_is_done_once_in_processes(tmp_path):
    names, done, ticks = [f"job {k}" for k in range(9)], [], []
    run_jobs(note, str(tmp_path), names, num_workers=2, finished=done.append, meanwhile=lambda: ticks.append(1))
    assert sorted(done) == names == sorted(file.name for file in tmp_path.iterdir())
    assert str(os.getpid()) not in {file.read_text() for file in tmp_path.iterdir()} and ticks


@pytest.mark.parametrize(("workers", "jobs", "seconds"), [(1, 5, 0), (2, 1, 0), (2, 0, 0), (2, 5, 600)])
def test_little_work_is_done_here(tmp_path, monkeypatch, workers, jobs, seconds):
    monkeypatch.setattr(worker_pool, "_START_SECONDS", seconds)
    names, done, ticks = [str(k) for k in range(jobs)], [], []
    run_jobs(note, str(tmp_path), names, num_workers=workers, finished=done.append, meanwhile=lambda: ticks.append(1))
    assert done == names and len(ticks) == jobs
    assert {file.read_text() for file in tmp_path.iterdir()} <= {str(os.getpid())}


def test_the_caller_keeps_its_threads(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    counts = []
    try:
        run_jobs(note, str(tmp_path), "ab", num_workers=1, finished=lambda _: counts.append(torch.get_num_threads()))
        assert counts == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_arrives_as_it_is_after_what_is_under_way(tmp_path, workers):
    names = ["first", "bad", *(f"later {k}" for k in range(50))]
    with pytest.raises(PermissionError) as error:
        run_jobs(note_or_fail, str(tmp_path), names, num_workers=workers, finished=lambda _: None)
    assert (error.value.filename, error.value.strerror) == ("bad.mp4", "not yours")
    assert (tmp_path / "first").exists() and len(list(tmp_path.iterdir())) <= 4


def test_a_worker_that_dies_is_told(tmp_path):
    with pytest.raises(ChildProcessError, match="too little memory"):
        run_jobs(note_or_fail, str(tmp_path), ["dead", "a", "b"], num_workers=2, finished=lambda _: None)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_parent(waiting):
    process, workers = waiting
    assert all(map(is_alive, workers))
    process.kill()
    until(lambda: not any(map(is_alive, workers)))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_ctrl_c_ends_everything_at_once(waiting):
    process, workers = waiting
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and not any(map(is_alive, workers))
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
