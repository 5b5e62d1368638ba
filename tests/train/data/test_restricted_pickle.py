import os
import pickle
import struct
import subprocess
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcmi.train.data import restricted_pickle
from hcmi.train.data.restricted_pickle import read_pickle

CAPTIONS = {"-a_1_2": [["a", "man", "sings"], ["ein", "Löwe", "brüllt"]], "b": [[], ["a"] * 2000], "c" * 300: []}


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Plain:
    """Pickles by name, with a state."""

    def __init__(self) -> None:
        self.a = 1


def read(folder: Path, contents: bytes) -> Any:
    path = folder / "some.pkl"
    path.write_bytes(contents)
    return read_pickle(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_captions_come_back_in_every_protocol(tmp_path, protocol):
    assert read(tmp_path, pickle.dumps(CAPTIONS, protocol)) == CAPTIONS
    tuples = [(), ("a",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", ("d",))]
    assert read(tmp_path, pickle.dumps(tuples, protocol)) == tuples


def test_strings_of_python_2_and_bytes_become_strings(tmp_path):
    # {'-a_1_2': [['caf\xc3\xa9'], ['caf\xe9']]} as cPickle of Python 2 writes it, in protocols 0 and 2.
    text = b"(dp1\nS'-a_1_2'\np2\n(lp3\n(lp4\nS'caf\\xc3\\xa9'\np5\naa(lp6\nS'caf\\xe9'\np7\naas."
    binary = b"\x80\x02}q\x01U\x06-a_1_2q\x02]q\x03(]q\x04U\x05caf\xc3\xa9q\x05a]q\x06U\x04caf\xe9q\x07aes."
    for contents in (text, binary, pickle.dumps({"-a_1_2": [["café".encode()], ["café".encode("latin-1")]]}, 4)):
        assert read(tmp_path, contents) == {"-a_1_2": [["café"], ["café"]]}


values = st.recursive(
    st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def strings(value: Any) -> Any:
    if isinstance(value, bytes):
        return restricted_pickle._text(value)
    if isinstance(value, dict):
        return {key: strings(own) for key, own in value.items()}
    return type(value)(map(strings, value)) if isinstance(value, list | tuple) else value


@given(values, st.sampled_from([3, 4, 5]))
def test_anything_of_lists_and_strings_comes_back(tmp_path_factory, value, protocol):
    # A copy, because pickle notes equal objects that are one and the same only once.
    contents = pickle.dumps(pickle.loads(pickle.dumps(value)), protocol)
    assert read(tmp_path_factory.getbasetemp(), contents) == strings(value)


HOSTILE = {
    "os.system": Calls(os.system, "touch hacked"),
    "eval": Calls(eval, "open('hacked', 'w')"),
    "exec": Calls(exec, "open('hacked', 'w')"),
    "Popen": Calls(subprocess.Popen, ["touch", "hacked"]),
    "getattr": Calls(getattr, "text", "upper"),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_called(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    contents = pickle.dumps({"clip": [HOSTILE[name]]}, protocol)
    named = name.removeprefix("os.")
    with pytest.raises(ValueError, match=rf"some.pkl is refused: it names code to be called, \S+\.{named};"):
        read(tmp_path, contents)
    assert not Path("hacked").exists()
    pickle.loads(pickle.dumps(HOSTILE["eval"], protocol))  # would have worked
    assert Path("hacked").exists()


@pytest.mark.parametrize(
    "contents",
    [
        b"cos\nsystem\n.",
        b"(S'touch hacked'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch hacked'\no.",
        b"\x82\x01.",
        b"\x80\x02]b.",
        b"\x8c\x02os\x8c\x06system\x93.",
        pickle.dumps(Plain()),
        pickle.dumps(OrderedDict(a=[])),
        pickle.dumps(defaultdict(list, a=[])),
    ],
)
def test_no_code_is_named(tmp_path, contents):
    with pytest.raises(ValueError, match="is refused: it names code to be called"):
        read(tmp_path, contents)


@pytest.mark.parametrize("value", [1, 2**70, 1.5, None, True, {1, 2}, frozenset("a"), bytearray(b"a")])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_other_things_are_refused(tmp_path, value, protocol):
    with pytest.raises(ValueError, match="is refused"):
        read(tmp_path, pickle.dumps([value], protocol))


def test_keys_are_strings(tmp_path):
    with pytest.raises(ValueError, match="a key of a dictionary is no string"):
        read(tmp_path, pickle.dumps({("a", "b"): []}))


def test_small_files_stay_small(tmp_path):
    laughs = ["ha"] * 10
    for _ in range(12):
        laughs = [laughs] * 10
    circle: list[Any] = []
    circle.append(circle)
    for value in (laughs, circle):
        with pytest.raises(ValueError, match="uses one list, tuple or dictionary in two places"):
            read(tmp_path, pickle.dumps(value))
    with pytest.raises(ValueError, match=r"refused: it holds something else .*\(DUP\)"):
        read(tmp_path, b"]" + b"2" * 10 + b"t.")
    # Claims of lengths and numbers of slots that are not there.
    for contents in (b"\x8d" + struct.pack("<Q", 2**62) + b"a.", b"X\xff\xff\xff\x7fa."):
        with pytest.raises(ValueError, match="no intact pickle file"):
            read(tmp_path, contents)
    assert read(tmp_path, b"]r\xff\xff\xff\xff.") == []
    assert read(tmp_path, b"\x95" + b"\xff" * 8 + b"].") == []
    long = "x" * 2**20
    assert len(read(tmp_path, pickle.dumps([long] * 100))) == 100
    with pytest.raises(ValueError, match="repeats more text"):
        read(tmp_path, pickle.dumps([long] * 200))


def test_deeply_nested_files_do_not_crash(tmp_path):
    depth = 200_000
    value = read(tmp_path, b"(" * depth + b"l" * depth + b".")
    assert isinstance(value, list)
    with pytest.raises(ValueError, match="key of a dictionary is no string"):
        read(tmp_path, b"}" + b"(" * depth + b"t" * depth + b"]s.")


@given(st.data())
def test_damaged_files_give_the_one_error(tmp_path_factory, data):
    contents = bytearray(pickle.dumps(CAPTIONS, data.draw(st.sampled_from([0, 2, 4]))))
    for _ in range(data.draw(st.integers(1, 4))):
        contents[data.draw(st.integers(0, min(len(contents), 150) - 1))] = data.draw(st.integers(0, 255))
    del contents[data.draw(st.integers(1, len(contents))) :]
    try:
        read(tmp_path_factory.getbasetemp(), bytes(contents))
    except ValueError as error:
        assert "some.pkl is" in str(error)


@given(st.binary(max_size=60))
def test_noise_gives_the_one_error(tmp_path_factory, contents):
    try:
        read(tmp_path_factory.getbasetemp(), contents)
    except ValueError as error:
        assert "some.pkl is" in str(error)
