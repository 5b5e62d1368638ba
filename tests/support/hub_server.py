"""
A small Hub on this machine: as much of its HTTP API as publishing, loading and reading data sets need, in memory.

Models and data sets, commits, branches and tags, LFS, private repositories and tokens. It refuses what the real one
refuses, with its status codes and `X-Error-Code`; cards are checked as far as their rules are documented.
"""

import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hub_routes import ROUTES
from hub_state import SILENT, TOKEN, USER, Hub, HubError, Repository


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Runs the server; yields its state."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection. An answer is JSON, or has been sent by the route itself (None)."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(address.query))
        self.body = self._read_body()
        if failure := next((f for f in self.hub.failures if f[0] == self.command and f[1] in address.path), None):
            self.hub.failures.remove(failure)
            if failure[2] == SILENT:
                self.hub.closing.wait(60)  # longer than any test means to wait
            if failure[2] in (0, SILENT):
                self.close_connection = True
                self.hub.requests.append((self.command, address.path, 0))
                return
            return self.send(failure[2], {"error": "made to fail"})
        try:
            for method, pattern, answer in ROUTES:
                if method == self.command.replace("HEAD", "GET") and (match := pattern.fullmatch(address.path)):
                    parts = {k: urllib.parse.unquote(v) for k, v in match.groupdict().items() if v is not None}
                    if (content := answer(self, **parts)) is not None:
                        self.send(200, content)
                    return None
            raise HubError(404, message="no such address")
        except HubError as error:
            headers = {"X-Error-Code": error.code} if error.code else {}
            self.send(error.status, {"error": error.message}, headers | {"X-Error-Message": error.message})

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def send(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        """Answers with JSON, or with bytes as they are."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.hub.requests.append((self.command, urllib.parse.urlsplit(self.path).path, status))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Keeps quiet."""

    def user(self) -> str | None:
        """Who asks; None: nobody who has logged in."""
        given = self.headers.get("Authorization")
        if given is not None and given != f"Bearer {TOKEN}":
            raise HubError(401, message="Invalid credentials in Authorization header")
        return USER if given else None

    def repository(self, kind: str, name: str, write: bool = False) -> Repository:
        """The repository, if the one who asks may know of it, or with `write`, change it."""
        user = self.user()
        found = self.hub.repositories.get(("dataset" if kind.startswith("dataset") else "model", name))
        if found is None or (found.private and user is None):
            raise HubError(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and not user:
            raise HubError(401, message="Invalid username or password.")
        if write and not name.startswith(f"{user}/"):
            raise HubError(403, message="You don't have the rights to change this repository.")
        return found
