"""
The Hub's client gives up on a server that takes its requests and says nothing.

huggingface_hub sets no limit for most of its requests, so that they can wait forever: asking what a name stands for,
and in every step of an upload. Limits that are set stay as they are.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

LIMITS = {"connect": 10.0, "read": 60.0, "write": 60.0, "pool": 60.0}
"""Seconds that a request waits at most: to be connected, for the next bytes of the answer, to send the next of its own,
and for a connection that others use."""

SILENCE = 90.0
"""Seconds without any answer after which a server counts as offline, for as long again: the client then takes what its
cache has, or says that it has nothing."""


def limit_waiting() -> None:
    """Every client that huggingface_hub makes from now on, in the way that it or the user has chosen, gives up."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    set_client_factory(partial(_limited_client, _http._GLOBAL_CLIENT_FACTORY, {}))


def _limited_client(make: Callable[[], Any], silent: dict[str, tuple[float, float]]) -> Any:
    """A client; `silent` has, by server, when the first and the last of its unanswered requests began and ended."""
    client = make()
    client.send = partial(_send, client.send, silent)
    return client


def _send(send: Callable[..., Any], silent: dict[str, tuple[float, float]], request: Any, **options: Any) -> Any:
    """
    The answer to a request.

    Raises:
        OfflineModeIsEnabled: the server has been silent for too long to be asked again.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    server, now = f"{request.url.scheme}://{request.url.netloc.decode()}", time.monotonic()
    first, last = silent.get(server, (now, now))
    if now - last >= SILENCE:
        first = now
    elif last - first >= SILENCE:
        raise OfflineModeIsEnabled(f"{server} has not answered for {last - first:.0f} seconds")
    given = request.extensions.get("timeout", {})
    limits = {kind: limit if given.get(kind) is None else given[kind] for kind, limit in LIMITS.items()}
    request.extensions = {**request.extensions, "timeout": limits}
    try:
        response = send(request, **options)
    except Exception as error:
        # By name, because versions of the client stand on different packages.
        if "TimeoutException" in {kind.__name__ for kind in type(error).__mro__}:
            silent[server] = first, time.monotonic()
        raise
    silent.pop(server, None)
    return response
