import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from reader_jobs import work

from hcmi.retrieval.indexing.reader_pool import ReaderPool

SUPPORT = Path(__file__).parents[1] / "support"
PROGRAM = "from reader_jobs import run_and_wait\nif __name__ == '__main__':\n    run_and_wait({folder!r})\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def pool(folder):
    with ReaderPool(work, str(folder), 2) as pool:
        yield pool


def outcomes(pool: ReaderPool) -> dict[tuple, list]:
    """What every job has given: its pieces, and at the end None or why it has failed."""
    given = defaultdict(list)
    for outcome in pool:
        assert given[outcome.job][-1:] != [None]
        given[outcome.job].append(outcome.failure if outcome.finished else outcome.value)
    return given


def test_jobs_give_their_pieces_in_order(pool):
    pool.submit([("count", number) for number in range(6)], 60.0)
    assert outcomes(pool) == {("count", number): [*range(number), None] for number in range(6)}
    assert outcomes(pool) == {}


def test_without_processes_the_same_is_given(folder):
    with ReaderPool(work, str(folder), 0) as pool:
        pool.submit([("count", 3), ("raise", 0)], 60.0)
        given = outcomes(pool)
    assert given == {("count", 3): [0, 1, 2, None], ("raise", 0): ["first", "OSError: [Errno 5] Input/output error"]}


def test_a_job_that_fails_dies_or_hangs_costs_itself_alone(pool):
    bad = [(what, 0) for what in ("raise", "die", "exit", "hang")]
    pool.submit(bad, 2.0)
    pool.submit([("count", number) for number in range(5)], 60.0)
    given = outcomes(pool)
    for number in range(5):
        assert given.pop(("count", number)) == [*range(number), None]
    assert {job: pieces[0] for job, pieces in given.items()} == dict.fromkeys(bad, "first")
    reasons = {what: pieces[1] for (what, _), pieces in given.items()}
    assert reasons["raise"] == "OSError: [Errno 5] Input/output error"
    assert reasons["die"].startswith("the process that read it ended, by SIGSEGV: a broken file can do that")
    assert "with status 7" in reasons["exit"]
    assert reasons["hang"] == "it was not read within 2 s"


def test_work_may_ask_for_more_time(pool):
    pool.submit([("slow", 2)], 1.0)
    assert outcomes(pool) == {("slow", 2): ["slow", None]}


def test_pieces_that_wait_to_be_taken_are_in_time(pool):
    pool.submit([("count", 3)], 1.0)
    given = []
    for outcome in pool:
        given.append(outcome.failure or outcome.value)
        time.sleep(1.2)
    assert given == [0, 1, 2, None]


def test_a_process_holds_no_more_than_one_piece(pool, folder):
    pool.submit([("large", 8)], 60.0)
    taken = 0
    for outcome in pool:
        if not outcome.finished:
            assert (outcome.value == taken).all() and len(outcome.value) == 8 * 2**20
            time.sleep(0.3)
            taken += 1
            assert len(list(folder.glob("large-*"))) <= taken + 1
    assert taken == 3


def test_jobs_can_go_first_and_be_taken_back(folder):
    with ReaderPool(work, str(folder), 0) as pool:
        pool.submit([("count", 1), ("count", 2)], 60.0)
        pool.submit([("count", 3), ("count", 4), ("count", 5)], 60.0, first=True)
        pool.drop(lambda job: job == ("count", 4))
        assert list(outcomes(pool)) == [("count", 3), ("count", 5), ("count", 1), ("count", 2)]


def started(folder: Path) -> tuple[subprocess.Popen, list[int]]:
    """A program whose two reader processes are at work; it, and their numbers."""
    (folder / "program.py").write_text(PROGRAM.format(folder=str(folder)))
    paths = os.pathsep.join([str(SUPPORT), *sys.path])
    program = subprocess.Popen(
        [sys.executable, str(folder / "program.py")],
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(notes := [path.name for path in folder.iterdir() if path.name.isdigit()]) < 2:
        assert program.poll() is None
        time.sleep(0.05)
    return program, list(map(int, notes))


def gone(process: int) -> bool:
    """Whether a process is no more within some seconds; a zombie is none."""
    for _ in range(200):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(process, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_processes_end_with_the_one_that_is_killed(tmp_path):
    program, readers = started(tmp_path)
    program.kill()
    program.communicate()
    assert all(map(gone, readers))


def test_ctrl_c_ends_all_and_only_one_speaks(tmp_path):
    program, readers = started(tmp_path)
    for reader in readers:
        os.kill(reader, signal.SIGINT)
    time.sleep(0.5)
    assert all(Path(f"/proc/{reader}").exists() for reader in readers)  # they do not hear it
    os.killpg(program.pid, signal.SIGINT)
    _, told = program.communicate(timeout=60)
    assert told.count("Traceback") == 1 and told.rstrip().endswith("KeyboardInterrupt")
    assert all(map(gone, readers))


def test_a_program_that_starts_itself_again_is_told(tmp_path):
    (tmp_path / "program.py").write_text("from reader_jobs import run_and_wait\nrun_and_wait('.')\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
    program = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert program.returncode == 1
    assert '`if __name__ == "__main__":`' in program.stderr.splitlines()[-1]
