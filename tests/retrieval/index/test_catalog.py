import sqlite3

import pytest

from hcmi.retrieval import VideoIndexError
from hcmi.retrieval.index.catalog import Catalog, FileState, Version
from hcmi.retrieval.index.window import Window

WINDOWS = [Window(0, 0.0, 2.5), Window(1, 2.5, 4.0)]


@pytest.fixture
def catalog(tmp_path):
    made = Catalog.create(tmp_path, {"model": "me/mine"})
    yield made
    made.close()


def test_a_file_its_windows_and_their_rows(catalog):
    state = FileState(7, 8, "digest", 4.0)
    catalog.begin_file("a.mp4", state, WINDOWS)
    assert catalog.find("a.mp4").file == state and catalog.find("b.mp4") is None
    assert catalog.version() == Version(1, 0) and catalog.planned("a.mp4", missing=True) == WINDOWS
    catalog.place(0, [("a.mp4", 1), ("a.mp4", 0)])
    assert catalog.version() == Version(1, 2) and catalog.planned("a.mp4", missing=True) == []
    assert catalog.locate([0, 1, 2]) == {0: ("a.mp4", WINDOWS[1]), 1: ("a.mp4", WINDOWS[0])}
    assert sorted(catalog.rows_of("a.mp4")) == [(0, 1), (1, 0)]
    assert catalog.facts()["model"] == "me/mine"


def test_a_transaction_that_fails_changes_nothing(catalog):
    catalog.begin_file("a.mp4", FileState(1, 1), WINDOWS)
    with pytest.raises(VideoIndexError, match=r"Window 0 of b\.mp4"):
        catalog.place(0, [("a.mp4", 0), ("b.mp4", 0)])
    assert catalog.version().rows == 0 and catalog.planned("a.mp4", missing=True) == WINDOWS
    assert catalog.counts() == {"videos": 0, "partial": 1, "unreadable": 0, "windows": 0}


def test_deleted_rows_are_dead_until_the_others_are_renumbered(catalog):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        catalog.begin_file(name, FileState(1, 1), WINDOWS)
    catalog.place(0, [(name, number) for number in (0, 1) for name in ("a.mp4", "b.mp4", "c.mp4")])
    assert catalog.delete(["b.mp4", "b.mp4"]) == 1 and sorted(catalog.dead_rows()) == [1, 4]
    catalog.renumber(2, [0, 2, 3, 5])
    assert catalog.version() == Version(2, 4) and catalog.dead_rows() == []
    names = [(path, window.number) for path, window in (catalog.locate(range(4))[row] for row in range(4))]
    assert names == [("a.mp4", 0), ("c.mp4", 0), ("a.mp4", 1), ("c.mp4", 1)]


def test_changes_are_noticed_whoever_makes_them(catalog, tmp_path):
    other = Catalog(tmp_path)
    seen = catalog.changes()
    assert catalog.changes() == seen
    other.begin_file("a.mp4", FileState(1, 1), WINDOWS)
    assert catalog.changes() != seen
    seen = catalog.changes()
    catalog.delete(["a.mp4"])
    assert catalog.changes() != seen
    other.close()


def test_a_catalogue_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(tmp_path), "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        Catalog.create(tmp_path, {})
    monkeypatch.undo()
    with pytest.raises(VideoIndexError, match="There is no index"):
        Catalog(tmp_path)
    Catalog.create(tmp_path, {}).close()


def test_a_full_disk_and_a_lock_are_told_apart(catalog, tmp_path, monkeypatch):
    with sqlite3.connect(catalog.path) as database:
        pages = database.execute("PRAGMA page_count").fetchone()[0]
    catalog._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OSError, match="disk is full"):
        catalog.begin_file("a.mp4", FileState(1, 1), [Window(n, n, n + 1) for n in range(2000)])
    assert catalog.find("a.mp4") is None
    catalog._database.execute("PRAGMA busy_timeout = 10")
    with sqlite3.connect(catalog.path) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(VideoIndexError, match="locked"):
            catalog.delete(["a.mp4"])
