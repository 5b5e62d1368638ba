"""Reading a pickle that may come from anyone: lists, tuples, dictionaries and strings are built, nothing else.

Python's own unpickler calls whatever the file names. Here the file's opcodes are walked through by hand, and those that
could name, call or multiply anything are refused.
"""

import codecs
import io
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TEXT = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
# What Python 2 wrote for a string, and Python 3 for bytes.
_BYTES = ("STRING", "BINSTRING", "SHORT_BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8")
_PUT = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GET = ("GET", "BINGET", "LONG_BINGET")
_MOST_REPEATED = 2**27
_NAMES_CODE = (
    "GLOBAL",
    "STACK_GLOBAL",
    "INST",
    "OBJ",
    "NEWOBJ",
    "NEWOBJ_EX",
    "REDUCE",
    "BUILD",
    "EXT1",
    "EXT2",
    "EXT4",
)
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(path: Path) -> Any:
    """
    What a pickle file holds, as far as it is lists, tuples, dictionaries and strings.

    Strings of Python 2 and bytes become strings, read as UTF-8 or else as Latin-1.

    Raises:
        ValueError: the file is no pickle, holds something else, or uses one list, tuple or dictionary in two places or
            long strings in very many, which could make a small file endlessly large to read through.
    """
    try:
        return _Machine().run(path.read_bytes())
    except _RefusedError as error:
        raise ValueError(f"{path} is refused: {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no intact pickle file ({error}): fetch it anew") from error


class _RefusedError(Exception):
    """Says what the file wanted."""


class _Machine:
    """The stack machine that a pickle is a program of."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        # Where on the stack the groups of items begin that are not closed yet.
        self.marks: list[int] = []
        # By the number that the file gives, so that a large number takes no more room than a small one.
        self.memo: dict[int, Any] = {}
        # Characters of strings that the file holds once and uses again.
        self.repeated = 0

    def run(self, contents: bytes) -> Any:
        for name, argument in _opcodes(contents):
            if name == "STOP":
                (result,) = self.stack
                return result
            self.step(name, argument)
        raise ValueError("it ends too early")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _TEXT:
            stack.append(argument)
        elif name in _PUT:
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in _GET:
            self.push_again(self.memo[argument])
        elif name in _BYTES:
            stack.append(_text(argument))
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("APPEND", "APPENDS"):
            items = self.pop_items(1 if name == "APPEND" else None)
            self.top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.pop_items(2 if name == "SETITEM" else None)
            self.top(dict).update(_pairs(items))
        elif name in _SHORT_TUPLES:
            stack.append(tuple(self.pop_items(_SHORT_TUPLES[name])))
        elif name in ("TUPLE", "LIST"):
            items = self.pop_items(None)
            stack.append(tuple(items) if name == "TUPLE" else items)
        elif name == "DICT":
            stack.append(_pairs(self.pop_items(None)))
        elif name in _NAMES_CODE:
            raise _RefusedError(
                f"it names code to be called{self.called(name, argument)}; only lists and strings are read"
            )
        elif name not in ("PROTO", "FRAME"):
            raise _RefusedError(f"it holds something else than lists, tuples, dictionaries and strings ({name})")

    def push_again(self, value: Any) -> None:
        if not isinstance(value, str):
            raise _RefusedError("it uses one list, tuple or dictionary in two places")
        self.repeated += len(value)
        if self.repeated > _MOST_REPEATED:
            raise _RefusedError("it repeats more text than any captions do")
        self.stack.append(value)

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"items for a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def pop_items(self, count: int | None) -> list[Any]:
        """The last `count` items, or those after the last mark."""
        first = self.marks.pop() if count is None else len(self.stack) - count
        if first < (self.marks[-1] if self.marks else 0):
            raise ValueError("it takes more items than it has put")
        items = self.stack[first:]
        del self.stack[first:]
        return items

    def called(self, name: str, argument: Any) -> str:
        """The name of the code, where it is known."""
        parts = self.stack[-2:] if name == "STACK_GLOBAL" else str(argument or "").split(" ")
        return f", {'.'.join(map(str, parts))}"[:80] if all(parts) else ""


def _opcodes(contents: bytes) -> Iterator[tuple[str, Any]]:
    """Name and argument of every opcode."""
    stream = io.BytesIO(contents)
    while code := stream.read(1):
        opcode = _OPCODES[code.decode("latin-1")]
        if opcode.name == "STRING":  # pickletools reads only those in ASCII
            yield opcode.name, codecs.escape_decode(stream.readline().strip()[1:-1])[0]
        else:
            yield opcode.name, opcode.arg.reader(stream) if opcode.arg else None


def _pairs(items: list[Any]) -> dict[str, Any]:
    keys = items[::2]
    if not all(isinstance(key, str) for key in keys):
        raise _RefusedError("a key of a dictionary is no string")
    return dict(zip(keys, items[1::2], strict=True))


def _text(contents: str | bytes) -> str:
    """`pickletools` gives the bytes of old strings as Latin-1."""
    raw = contents.encode("latin-1") if isinstance(contents, str) else contents
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
