"""The hits of a search as HTML. Everything that comes from files or people is escaped."""

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from hcmi.modeling_hcmi import LEVELS
from hcmi.retrieval.index.search import Hit, SearchResult
from hcmi.retrieval.pictures.drawing import format_time
from hcmi.retrieval.pictures.explain_picture import LEVEL_NAMES

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


def render_results(result: SearchResult, name_of: Callable[[Hit], str], example: str | None = None) -> str:
    """
    A card for each hit.

    Args:
        name_of: the name under which the page asks for what belongs to a hit.
        example: what the example video is called; None for what a text has found.
    """
    if not result.hits:
        return render_message("The index has no videos yet: `hcmi index` adds some.")
    highest = {level: max(hit.level_scores[level] for hit in result.hits) for level in LEVELS}

    def share(hit: Hit, level: str) -> int:
        """How long a level's bar is, in percent of the best hit's."""
        return round(100 * max(hit.level_scores[level], 0.0) / max(highest[level], 1e-6))

    return _TEMPLATES.get_template("results.html").render(
        result=result,
        example=example,
        levels=LEVEL_NAMES,
        scored="all" if result.rescored == result.windows else f"{result.rescored:,}",
        milliseconds=1000 * sum(result.seconds.values()),
        name_of=name_of,
        file_name=lambda hit: Path(hit.video).name,
        folder_name=lambda hit: Path(hit.video).parent.name,
        moment=lambda hit: f"{format_time(hit.start)} – {format_time(hit.end)}",
        number="{:z.3f}".format,
        share=share,
    )


def render_message(text: str) -> str:
    """A sentence in the place of hits."""
    return _TEMPLATES.from_string('<p class="message" role="alert">{{ text }}</p>').render(text=text)
