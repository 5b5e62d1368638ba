import multiprocessing
import os
import time

import pytest
from torch.utils.data import DataLoader, Dataset

from hcmi.train.data.reader_watch import ReaderWatch

NAMES = ["sea", "hill", "town", "wood"]


class Rows(Dataset):
    """Reads each row with the given function, watched, and gives what that returned."""

    def __init__(self, watch, read):
        self.watch = watch
        self.read = read

    def __len__(self):
        return len(NAMES)

    def __getitem__(self, row):
        with self.watch.reading(row):
            return self.read(row)


def read_all(watch, read, collate=list, workers=2):
    with watch.explained(NAMES):
        return list(DataLoader(Rows(watch, read), num_workers=workers, collate_fn=collate))


def fails_at(bad, fail):
    return lambda row: fail() if row == bad else row


@pytest.mark.parametrize("workers", [0, 2])
def test_a_watched_source_gives_what_it_gives(workers):
    assert read_all(ReaderWatch(workers, 60), lambda row: row * row, workers=workers) == [[0], [1], [4], [9]]


def test_the_row_that_a_dead_reader_was_at_is_told():
    with pytest.raises(ChildProcessError, match=r"'town' \(row 2\) ended: .* memory"):
        read_all(ReaderWatch(2, 60), fails_at(2, lambda: os._exit(3)))


def test_its_file_is_told_too():
    watch, files = ReaderWatch(1, 60), [f"/videos/{name}.mp4" for name in NAMES]
    with pytest.raises(ChildProcessError, match=r"'town' \(row 2, file /videos/town\.mp4\) ended"):  # noqa: SIM117
        with watch.explained(NAMES, files):
            list(DataLoader(Rows(watch, fails_at(2, lambda: os._exit(3))), num_workers=1))


def test_a_connection_may_break_before_its_reader_has_ended():
    def read(row):
        if row == 2:
            time.sleep(0.3)
            os._exit(3)
        return row

    watch = ReaderWatch(1, 60)
    batches = iter(DataLoader(Rows(watch, read), num_workers=1))  # which lives on, or would end its reader by itself
    with pytest.raises(ChildProcessError, match=r"'town' \(row 2\) ended"), watch.explained(NAMES):
        assert [int(next(batches)) for _ in range(2)] == [0, 1]
        raise ConnectionResetError
    assert not multiprocessing.active_children()


def test_a_reader_that_takes_too_long_is_ended():
    with pytest.raises(ChildProcessError, match=r"'hill' \(row 1\) was not read within 0.3 seconds"):
        read_all(ReaderWatch(2, 0.3), fails_at(1, lambda: time.sleep(600)))


def test_the_limit_is_for_one_video():
    def read(row):
        time.sleep(0.4)
        return row

    assert len(read_all(ReaderWatch(1, 1.2), read, workers=1)) == 4


def test_no_limit():
    watch = ReaderWatch(1, 0)
    assert read_all(watch, lambda row: time.sleep(0.05) or row, workers=1) == [[0], [1], [2], [3]]


def test_a_reader_that_ends_between_two_videos_accuses_none():
    with pytest.raises(ChildProcessError, match="between two videos: DataLoader worker") as error:
        read_all(ReaderWatch(1, 60), lambda row: row, collate=lambda rows: os._exit(3), workers=1)
    assert not any(name in str(error.value) for name in NAMES)


@pytest.mark.parametrize("kind", [RuntimeError, FileNotFoundError, KeyError])
def test_other_errors_are_left_as_they_are(kind):
    def fail():
        raise kind("something else")

    with pytest.raises(kind, match="something else"):
        read_all(ReaderWatch(2, 60), fails_at(2, fail))
    with pytest.raises(kind, match="something else"), ReaderWatch(2, 60).explained(NAMES):
        fail()


def test_what_is_read_without_reader_processes_is_not_noted():
    watch = ReaderWatch(2, 0.1)
    with watch.reading(3):
        time.sleep(0.2)
        assert not watch._notes.any()


def test_a_failed_row_is_noted_no_more():
    watch = ReaderWatch(1, 60)
    with pytest.raises(ValueError, match="broken"):
        read_all(watch, fails_at(0, lambda: int("broken")), workers=1)
    assert watch._notes[0, 1] != 1  # it may be at the next already


def test_after_an_error_no_reader_is_left():
    watch = ReaderWatch(2, 60)
    with pytest.raises(KeyboardInterrupt), watch.explained(NAMES):
        loader = DataLoader(Rows(watch, int), num_workers=2, collate_fn=list, persistent_workers=True)
        for _ in loader:
            pass
        assert len(multiprocessing.active_children()) == 2
        raise KeyboardInterrupt
    for process in multiprocessing.active_children():
        process.join(30)
        assert process.exitcode == 0
