"""Calls to a demo as its page makes them."""

import json
from typing import Any


def ask(client: Any, name: str, *values: Any) -> str:
    """
    What a search of the page gives.

    Args:
        client: of httpx or Starlette.
        name: `"search_text"` or `"search_example"`.
        values: what is searched for.
    """
    functions = client.get("/config").json()["dependencies"]
    number = next(function["id"] for function in functions if function["api_name"] == name)
    call = {"data": [*values, 8], "fn_index": number, "session_hash": "s"}
    assert client.post("/gradio_api/queue/join", json=call).status_code == 200
    html = None
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "s"}) as lines:
        for line in lines.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line else {}
            if message.get("msg") == "process_completed":
                assert message["success"]
                html = message["output"]["data"][0]
    return html


def names_in(html: str) -> list[str]:
    """The names of all hits on the page, in their order."""
    return [part.split('"')[0] for part in html.split('data-hit="')[1:]]
