"""Example videos that visitors send: under names that nobody can guess, until they were searched for."""

import secrets
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

LARGEST = 2**30
"""Bytes of an example."""

KEPT = 8
"""Examples that wait to be searched for; the oldest go first."""

_NAME = "x-file-name"
"""A header that a page of another server cannot send without being asked whether it may."""


class Example(NamedTuple):
    """A file, and what the visitor calls it."""

    path: Path
    name: str


class Examples:
    """Examples in a temporary folder."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hcmi-demo-")
        self._waiting: OrderedDict[str, Example] = OrderedDict()

    def close(self) -> None:
        """Removes the folder."""
        self._folder.cleanup()

    def routes(self) -> list[Route]:
        """`POST /examples`: the body is the file, the answer its name."""
        return [Route("/examples", self._receive, methods=["POST"])]

    def take(self, name: str) -> Example | None:
        """An example, which is the caller's from then on."""
        return self._waiting.pop(name, None)

    async def _receive(self, request: Request) -> Response:
        if _NAME not in request.headers:
            return PlainTextResponse("This is for the page alone.", 403)
        name = secrets.token_hex(16)
        path, size = Path(self._folder.name, name), 0
        try:
            async with await anyio.open_file(path, "wb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > LARGEST:
                        raise OSError(f"An example may have {LARGEST / 2**20:,.0f} MB; cut a shorter one.")
                    await file.write(chunk)
        except BaseException as error:
            path.unlink()
            if isinstance(error, OSError):
                return PlainTextResponse(str(error), 413)
            raise
        self._waiting[name] = Example(path, unquote(request.headers[_NAME]))
        if len(self._waiting) > KEPT:
            self._waiting.popitem(last=False)[1].path.unlink()
        return PlainTextResponse(name)
