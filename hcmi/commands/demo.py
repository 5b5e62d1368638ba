"""A web page that searches an index of videos: hits with thumbnails, a player that starts at the moment, and why.

hcmi demo my_index
hcmi demo my_index --space my_space      # instead, writes a folder to publish as a Space on the Hugging Face Hub

Needs the package gradio: pip install "hcmi[demo]". The page listens on this machine alone unless --host says otherwise,
serves only videos of the index, and asks nothing of other servers.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .new_folder import new_folder
from .numbers import not_negative

if TYPE_CHECKING:
    from hcmi.retrieval import VideoIndex


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("index", help="folder of the index; `hcmi index` makes one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=not_negative, default=7860, help="0 for any (default: %(default)s)")
    parser.add_argument("--device", help='such as "cpu" or "cuda:1" (default: an accelerator if there is one)')
    parser.add_argument(
        "--space", type=Path, metavar="FOLDER", help="serve nothing, but write this folder, which can be a Space"
    )


def run(arguments: argparse.Namespace) -> int:
    """
    Serves the page until Ctrl-C, or writes the folder.

    Raises:
        ValueError: gradio is missing, the index cannot be used, or the folder is in use.
        OSError: the address cannot be listened on.
    """
    if find_spec("gradio") is None:
        raise ValueError('gradio is not installed: pip install "hcmi[demo]"')
    # Loaded only now, because it takes seconds, which `--help` and a wrong argument need not wait for.
    from hcmi.retrieval import VideoIndex

    with VideoIndex.open(arguments.index, device=arguments.device) as index:
        if arguments.space:
            _write_space(index, arguments.space)
        else:
            from hcmi.retrieval.web.demo import serve

            serve(index, arguments.host, arguments.port)
    return 0


def _write_space(index: "VideoIndex", target: Path) -> None:
    from hcmi.retrieval.web.space import write_space

    with new_folder(target) as folder:
        count = write_space(index, folder, title=target.name)
    print(f"{target}: {count} videos; its README.md tells how to run and to publish it")
