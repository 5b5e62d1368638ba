import argparse
from dataclasses import dataclass, fields

import pytest

from hcmi.train.options import add_options, checked, option, read_fields


@dataclass
class Options:
    colour: str | None = option("look", "of the line", None, choices=("red", "blue"))
    marks: list = option("look", "on the line", ["dot"], choices=("dot", "cross"), may_differ=True)
    width: float = option("look", "100 % is one", 1.0, least=0, below=2)
    count: int | None = option("number", "of lines", None, least=1)
    bold: bool = option("number", "or thin", False)


ENTRIES = {entry.name: entry for entry in fields(Options)}


@pytest.mark.parametrize(
    ("name", "given", "held"),
    [
        ("colour", "none", None),
        ("colour", "blue", "blue"),
        ("marks", "dot,cross", ["dot", "cross"]),
        ("marks", "", []),
        ("width", 1, 1.0),
        ("width", "5e-1", 0.5),
        ("count", "3", 3),
        ("count", None, None),
    ],
)
def test_a_value_becomes_what_the_field_holds(name, given, held):
    value = checked(ENTRIES[name], given)
    assert value == held and type(value) is type(held)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("colour", "green", "colour must be one of red, blue, not 'green'"),
        ("marks", "dot,star", "marks must be one of dot, cross, not 'star'"),
        ("marks", None, "marks needs a value"),
        ("width", 2, "width must be at least 0 and less than 2, not 2.0"),
        ("width", float("nan"), "width must be at least 0 and less than 2, not nan"),
        ("count", 0, "count must be at least 1, not 0"),
        ("count", True, "count must be of type int, got True"),
        ("count", "three", "count must be of type int, got 'three'"),
    ],
)
def test_what_it_cannot_hold_is_refused(name, given, message):
    with pytest.raises(ValueError, match=message):
        checked(ENTRIES[name], given)


def test_a_default_that_can_change_is_each_ones_own():
    Options().marks.append("cross")
    assert Options().marks == ["dot"]


def test_the_help_has_groups_defaults_and_remarks():
    parser = argparse.ArgumentParser()
    add_options(parser, fields(Options))
    text = " ".join(parser.format_help().split())
    assert "look: --colour {red,blue} of the line (default: None)" in text
    assert "on the line (default: ['dot']; may differ when a run is resumed)" in text
    assert "--width X 100 % is one (default: 1.0) number: --count N of lines (default: None)" in text
    assert vars(parser.parse_args(["--width", "3"])) == {"width": "3"}


@pytest.mark.parametrize(
    ("words", "held"), [(["--bold"], True), (["--bold", "true"], True), (["--bold", "FALSE"], False)]
)
def test_a_switch_can_stand_alone(words, held):
    parser = argparse.ArgumentParser()
    add_options(parser, fields(Options))
    namespace = parser.parse_args([*words, "--count", "3"])
    assert checked(ENTRIES["bold"], namespace.bold) is held and namespace.count == "3"


def test_a_file_is_read_as_it_stands(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("width: 5e-1\nmarks: [dot]\n")
    assert read_fields(path, ENTRIES.keys()) == {"width": "5e-1", "marks": ["dot"]}
    path.write_text("widht: 1\n")
    with pytest.raises(
        ValueError, match=r"options\.yaml: unknown fields widht; known are bold, colour, count, marks, width"
    ):
        read_fields(path, ENTRIES.keys())
