"""A web page that searches an index: hits with thumbnails, a player that starts at the moment, and why it was found."""

import ipaddress
import socket
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gradio
import uvicorn
from fastapi import FastAPI
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from hcmi.retrieval.index.video_index import VideoIndex

from .examples import Examples
from .guard import LOCAL_HOSTS, Guard
from .hits import ShownHits
from .media import HitMedia
from .results import render_message, render_results

TITLE = "Find videos"

COUNTS = (4, 8, 16, 32, 64)
"""Of hits, to choose from."""

MOST_LETTERS = 1000
"""Of a query."""

_FILES = Path(__file__).parent
_FONT, _MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # nothing is fetched for them
_ABOUT = '<p class="about">Say what they show, or choose a video that they are like.</p>'
_CLOSE_PLAYER = "(query, count) => { hcmi.close(); return [query, count]; }"
_SEND_EXAMPLE = "async (_, count) => [await hcmi.sendExample(), count]"


class Demo:
    """
    What the page asks for.

    Args:
        index: open; any number of threads may search it.
    """

    def __init__(self, index: VideoIndex):
        self.index = index
        self.shown, self.examples = ShownHits(), Examples()
        # A tokenizer cannot be used by two threads at a time.
        self.asking = threading.Lock()

    def search_text(self, query: str, top_k: int) -> str:
        """The hits of a text as HTML, or what is wrong with it."""
        if len(query) > MOST_LETTERS:
            return render_message(f"The query has {len(query)} letters, at most {MOST_LETTERS} are read.")
        try:
            with self.asking:
                result = self.index.search(query, top_k=top_k)
        except (ValueError, OSError) as error:
            return render_message(str(error))
        return render_results(result, partial(self.shown.add, query=query))

    def search_example(self, name: str, top_k: int) -> Any:
        """The same for an example video, under the name it has been given here; what was shown for none."""
        if not name:
            return gradio.skip()
        example = self.examples.take(name)
        if example is None:
            return render_message("The example was not kept: choose it again.")
        try:
            result = self.index.search(video=example.path, top_k=top_k)
        except (ValueError, OSError) as error:
            return render_message(str(error).replace(str(example.path), example.name))
        finally:
            example.path.unlink()
        return render_results(result, partial(self.shown.add, query=None), example=example.name)


def build_app(index: VideoIndex, hosts: Sequence[str] | None = LOCAL_HOSTS) -> ASGIApp:
    """
    The web application.

    Args:
        index: open.
        hosts: names under which it may be called; None for any.
    """
    demo = Demo(index)
    media = HitMedia(index, demo.shown, demo.asking)
    routes: list[BaseRoute] = [*media.routes(), *demo.examples.routes()]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        # The end of the process does not do it: SIGTERM ends it at once after this.
        media.clips.close()
        demo.examples.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, routes=routes, lifespan=lifespan)
    gradio.mount_gradio_app(
        app,
        _page(demo),
        "/",
        theme=gradio.themes.Base(primary_hue="orange", neutral_hue="slate", font=_FONT, font_mono=_MONO),
        css_paths=_FILES / "page.css",
        head=f"<script>{(_FILES / 'page.js').read_text(encoding='utf-8')}</script>",
        footer_links=[],
        show_error=False,
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
    )
    return Guard(app, hosts)


def _page(demo: Demo) -> gradio.Blocks:
    with gradio.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gradio.HTML(f"<h1>{TITLE}</h1>{_ABOUT}", padding=False)
        with gradio.Row(elem_id="ask"):
            query = gradio.Textbox(
                placeholder="a dog jumps into a pool",
                show_label=False,
                container=False,
                max_lines=1,
                scale=8,
                min_width=240,
                elem_id="query",
            )
            search = gradio.Button("Search", variant="primary", scale=1, min_width=110)
            example = gradio.Button("Search by video", scale=1, min_width=180, elem_id="example")
            counts = [(f"{count} videos", count) for count in COUNTS]
            top_k = gradio.Dropdown(
                counts, value=8, show_label=False, container=False, filterable=False, min_width=120, elem_id="count"
            )
        gradio.HTML((_FILES / "player.html").read_text(encoding="utf-8"), padding=False)
        results = gradio.HTML(padding=False, elem_id="results")
        chosen = gradio.Textbox(visible=False)
        how: dict[str, Any] = {"outputs": results, "show_progress": "minimal"}
        for asked in (query.submit, search.click):
            asked(demo.search_text, [query, top_k], js=_CLOSE_PLAYER, concurrency_limit=None, **how)
        example.click(demo.search_example, [chosen, top_k], js=_SEND_EXAMPLE, concurrency_limit=2, **how)
    return page


def serve(index: VideoIndex, host: str = "127.0.0.1", port: int = 7860) -> None:
    """
    Serves the page until the process is interrupted.

    Args:
        index: open.
        host: the address to listen on. On any but this machine's own, whoever reaches it may search and watch.
        port: 0 for any that is free.

    Raises:
        OSError: the address cannot be listened on.
        VideoIndexError: the index is damaged, or its model is another one.
    """
    with _listen(host, port) as listening:
        index.search("a video")  # so that whoever comes first does not wait for the model, or meets a damaged index
        number, port = listening.getsockname()[:2]
        local = ipaddress.ip_address(number).is_loopback
        app = build_app(index, LOCAL_HOSTS if local else None)
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}  (Ctrl-C ends it)", flush=True)
        if not local:
            print(
                "warning: everybody who reaches this address can search the index and watch its videos; "
                "there is no password.",
                file=sys.stderr,
            )
        # Pages keep a connection open for as long as they are: ending does not wait for them.
        uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run([listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(f"Cannot listen on port {port} of {host}: {error.strerror}. --port takes another.") from error
