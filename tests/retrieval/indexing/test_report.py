from hcmi.retrieval.indexing.report import IndexReport, Update

FIRST = IndexReport(
    finished=True, videos=3, new=1, updates=[Update("old", "new", 3, 5, "ab")], unreadable={"a": "empty"}, seconds=2.0
)
SECOND = IndexReport(finished=True, videos=2, changed=1, unreadable={"b": "broken"}, removed=["c"], seconds=3.0)


def test_a_report_is_read_as_it_was_written(tmp_path):
    FIRST.save(tmp_path)
    assert IndexReport.load(tmp_path) == [FIRST]
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_where_nothing_was_written_there_is_none(tmp_path):
    assert IndexReport.load(tmp_path) == []


def test_reports_of_different_files_add_up():
    total = FIRST + SECOND
    assert (total.videos, total.encoded, total.removed, total.updates) == (5, 2, ["c"], FIRST.updates)
    assert total.unreadable == {"a": "empty", "b": "broken"}
    assert total.finished and total.seconds == 3.0  # side by side, not one after another
    assert not (FIRST + IndexReport(finished=False)).finished
