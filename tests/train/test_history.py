import json

import pytest

from hcmi.train.history import History


def test_every_record_is_a_line_on_the_disk_at_once(tmp_path):
    path = tmp_path / "new" / "history.jsonl"
    history = History(path)
    assert path.read_text() == ""
    history.add("step", step=1, loss=2.5)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"kind": "step", "step": 1, "loss": 2.5}]
    history.add("epoch", epoch=1, recall_at_1={"combined": 10.0})
    assert [json.loads(line) for line in path.read_text().splitlines()] == history.records


def test_records_are_told_apart_by_kind_and_keep_their_order(tmp_path):
    history = History(tmp_path / "history.jsonl")
    for step in range(3):
        history.add("step", step=step)
        history.add("epoch", epoch=step)
    assert [record["step"] for record in history.of_kind("step")] == [0, 1, 2]
    assert [record["epoch"] for record in history.of_kind("epoch")] == [0, 1, 2]
    assert history.of_kind("other") == []


def test_an_older_file_is_replaced(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("old\n")
    History(path).add("step", step=1)
    assert path.read_text() == '{"kind": "step", "step": 1}\n'


def test_what_came_after_a_length_is_cut_off(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    assert history.secure() == 0
    history.add("step", step=1, name="grün")
    length = history.secure()
    history.add("step", step=2)
    with path.open("a") as file:
        file.write('{"kind": "st')  # killed in the middle of a line
    again = History(path, length)
    assert again.records == [{"kind": "step", "step": 1, "name": "grün"}]
    again.add("step", step=3)
    assert [json.loads(line) for line in path.read_text().splitlines()] == again.records
    assert History(path, again.secure()).records == again.records


def test_a_file_that_has_lost_records_is_refused(tmp_path):
    path = tmp_path / "history.jsonl"
    with pytest.raises(ValueError, match=r"history\.jsonl has 0 bytes, the run that goes on had written 9"):
        History(path, 9)
