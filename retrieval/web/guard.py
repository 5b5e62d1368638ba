"""What a demo lets through: what its page needs, and nothing from anywhere else."""

import json
import re
from collections.abc import Sequence

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio also serves files by their paths, fetches others' for clients, and runs what the page never calls.
_NEEDED = re.compile(
    r"/(examples|hits/[0-9a-f]+/[a-z0-9.]+|config|theme\.css|favicon\.ico|manifest\.json|(assets|static)/.*|gradio_api/"
    r"(info|startup-events|queue/(join|data)|heartbeat/[^/]+|cancel|reset|theme\.css))?/?"
)

# Gradio makes its components' code from text, and sends its pages with code and styles inside.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; form-action 'self'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]", "::1")

_LONGEST_CALL = 2**16  # bytes


class Guard:
    """
    Passes on requests for the page's own addresses, with nothing but texts and numbers in its calls, and has browsers
    load nothing from other servers.

    Args:
        app: what is guarded.
        hosts: the names under which it may be called: a page elsewhere whose name is made to point here is not
            answered then. None for any.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] | None):
        self.app = TrustedHostMiddleware(app, hosts, www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            await send(message)

        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http" or not _NEEDED.fullmatch(scope["path"]):
            await PlainTextResponse("There is nothing here.", 404)(scope, receive, send_guarded)
        elif scope["path"].startswith("/gradio_api/queue/join"):
            await (await self._checked_call(scope, receive))(scope, receive, send_guarded)
        else:
            await self.app(scope, receive, send_guarded)

    async def _checked_call(self, scope: Scope, receive: Receive) -> ASGIApp:
        """
        The application, unless a call brings more than texts and numbers: Gradio would take a structure that looks like
        one of its files for one, and open the path in it or fetch its address.
        """
        body = b""
        async for chunk in Request(scope, receive).stream():
            body += chunk
            if len(body) > _LONGEST_CALL:
                return PlainTextResponse("This call is too long.", 413)
        if not _is_plain(body):
            return PlainTextResponse("A call has texts and numbers.", 400)

        read: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return read.pop() if read else await receive()

        async def app(scope: Scope, _: Receive, send: Send) -> None:
            await self.app(scope, replay, send)

        return app


def _is_plain(body: bytes) -> bool:
    try:
        data = json.loads(body)["data"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return isinstance(data, list) and all(value is None or isinstance(value, (str, int, float)) for value in data)
