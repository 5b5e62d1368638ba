import pytest

from hcmi.train.data.annotation_files import (
    AnnotationFolder,
    read_csv,
    read_json,
    read_lines,
    read_strings,
    read_tab_separated,
)


def test_the_first_pattern_wins_then_the_least_nested_file(tmp_path):
    for name in ("deep/er/a.json", "deep/my_a_2.json", "other/B.CSV"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder = AnnotationFolder(tmp_path)
    assert folder.find("a.json", "*a*.json") == tmp_path / "deep/er/a.json"
    assert folder.find("*a*.json") == tmp_path / "deep/my_a_2.json"
    assert folder.find("b.csv") == tmp_path / "other/B.CSV"
    assert folder.find_if_there("c.csv") is None


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path} and the folders below it have no a.json or \*b\*.csv$"):
        AnnotationFolder(tmp_path).find("a.json", "*b*.csv")
    with pytest.raises(ValueError, match="there is no folder"):
        AnnotationFolder(tmp_path / "absent")


def test_files_that_may_both_be_meant_are_refused(tmp_path):
    for name in ("x/a.json", "y/a.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"x/a.json and .*y/a.json may both be a.json"):
        AnnotationFolder(tmp_path).find("a.json")


@pytest.mark.parametrize("contents", [b"", b"<html>404</html>", b'{"a": [', b"\xff\xfe", b"[" * 100_000])
def test_broken_json_is_named(tmp_path, contents):
    (tmp_path / "a.json").write_bytes(contents)
    with pytest.raises(ValueError, match=r"a.json is no JSON file .*: fetch it anew"):
        read_json(tmp_path / "a.json", dict)


def test_json_of_another_kind_is_named(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    assert read_json(tmp_path / "a.json", list) == [1]
    with pytest.raises(ValueError, match=r"a.json holds a list, not a dict"):
        read_json(tmp_path / "a.json", dict)


def test_fields_are_checked(tmp_path):
    assert read_strings(tmp_path, {"a": "1", "b": "2", "c": 3}, "b", "a") == ("2", "1")
    for entry in ({"a": "1"}, {"a": "1", "b": None}, {"a": "1", "b": ["2"]}, "text", ["a", "b"]):
        with pytest.raises(ValueError, match=rf"{tmp_path} has an entry without a, b"):
            read_strings(tmp_path, entry, "a", "b")


def test_csv_with_quotes_a_byte_order_mark_and_windows_line_ends(tmp_path):
    (tmp_path / "a.csv").write_bytes('\ufeffkey,said\r\n1,"a, ""b"" – c"\r\n2,d\r\n'.encode())
    assert read_csv(tmp_path / "a.csv", ("said", "key")) == [('a, "b" – c', "1"), ("d", "2")]


def test_csv_without_a_column_or_with_a_short_row_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("key,said\n1,x\n2\n")
    with pytest.raises(ValueError, match=r"a.csv has no column video_id, only key, said"):
        read_csv(tmp_path / "a.csv", ("key", "video_id"))
    with pytest.raises(ValueError, match=r"a.csv, line 3: a row without key, said"):
        read_csv(tmp_path / "a.csv", ("key", "said"))


def test_lists_lose_blanks_and_comments(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"# by hand\r\n\r\n -a_1_2 \r\nb\x85c\n")
    assert read_lines(tmp_path / "a.txt") == ["-a_1_2", "b\x85c"]


def test_tab_separated_rows_keep_quotes_and_are_counted(tmp_path):
    (tmp_path / "a.csv").write_bytes('x\t"He said \' no\r\n\ny\tcaf\xe9 "\n'.encode("latin-1"))
    assert read_tab_separated(tmp_path / "a.csv", 2) == [["x", "\"He said ' no"], ["y", 'café "']]
    with pytest.raises(ValueError, match=r"a.csv, line 1: 2 fields between tabs instead of 6"):
        read_tab_separated(tmp_path / "a.csv", 6)
