"""The command line: `hcmi <verb> …`. One module a verb in `hcmi.commands`, imported only when that verb is called."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from .freed_memory import keep_freed_memory

VERBS = {
    "data": "check a benchmark's files, or prepare its frames",
    "convert": "make a model of a pretrained CLIP or SigLIP",
    "train": "train a model on a benchmark",
    "eval": "measure a saved model on a split of a benchmark",
    "index": "make an index of videos, or add to one",
    "find": "find videos by text in a folder",
    "search": "search an index of videos",
    "explain": "draw why a video of an index answers a query",
    "demo": "search an index of videos on a web page",
    "info": "tell what an index holds",
    "remove": "remove videos from an index",
    "compact": "give back the space of what was removed from an index",
    "export": "write a model's encoders as ONNX files",
    "publish": "publish a model on the Hugging Face Hub",
}
"""Verb -> its line in the help. `hcmi.commands.<verb>` has `add_arguments(parser)` and `run(arguments) -> exit status`;
its docstring is the verb's own help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb.

    Returns:
        The exit status: the verb's own; 1 for an error, which is told in one line on stderr; 130 after Ctrl-C.
    """
    keep_freed_memory()
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(argv: list[str]) -> int:
    verb = next((word for word in argv if not word.startswith("-")), None)
    arguments = _parser(verb).parse_args(argv)
    try:
        return arguments.run(arguments)
    except BrokenPipeError:
        raise
    except Exception as error:
        if not _is_explained(error):
            raise
        if arguments.debug or os.environ.get("HCMI_DEBUG") == "1":
            traceback.print_exc()
        else:
            print(f"hcmi {verb}: error: {_one_line(error)}", file=sys.stderr)
        return 1


def _parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser of the whole command line, with the arguments of `verb` alone."""
    description = "Text-video retrieval by Hierarchical Cross-Modal Interaction."
    parser = argparse.ArgumentParser(prog="hcmi", description=description)
    parser.add_argument("--version", action="version", version=f"hcmi {version('hcmi')}")
    _add_debug(parser, default=False)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, help="`hcmi VERB --help` tells more")
    for name, line in VERBS.items():
        subparser = verbs.add_parser(name, help=line)
        if name == verb:
            module = import_module(f"hcmi.commands.{name}")
            subparser.description = module.__doc__
            subparser.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(subparser)
            # SUPPRESS: the default must not undo a --debug before the verb.
            _add_debug(subparser, default=argparse.SUPPRESS)
            subparser.set_defaults(run=module.run)
    return parser


def _add_debug(parser: argparse.ArgumentParser, default: bool | str) -> None:
    parser.add_argument(
        "--debug",
        action="store_true",
        default=default,
        help="show the traceback of an error (so does the environment variable HCMI_DEBUG=1)",
    )


def _is_explained(error: Exception) -> bool:
    """Whether the message alone tells what is wrong: bad input, a file, an impossible configuration."""
    # By name, because importing the Hub's client takes longer than most commands' help.
    configuration = any(kind.__name__ == "StrictDataclassError" for kind in type(error).__mro__)
    return configuration or isinstance(error, (ValueError, OSError))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
