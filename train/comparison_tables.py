"""A comparison of results as text for the terminal and as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .published import METRICS

_NAMES = {
    "text_to_video": "text → video",
    "video_to_text": "video → text",
    "video_to_text_group": "video → text (group protocol)",
    "video_to_text_sentence": "video → text (sentence protocol)",
}
_PUBLISHED = "Published by the authors named, not measured here"


@dataclass(frozen=True)
class _Section:
    """A table: its title, how many of its columns hold words, and its rows, the header first."""

    title: str
    words: int
    rows: list[list[str]]


def format_comparison(comparison: Mapping[str, Any]) -> str:
    """A readable table for each direction and post-processing, in ASCII, the published rows apart from the measured."""
    lines = _head(comparison)
    for section in _measured_sections(comparison):
        lines += ["", *_text_table(section)]
    if comparison["published"]:
        lines += ["", "", f"{_PUBLISHED}.", _how_to_compare(comparison)]
        for section in _published_sections(comparison["published"]):
            lines += ["", *_text_table(section)]
        lines += ["", *(f"  {source}" for source in _sources(comparison["published"]))]
    return "\n".join(lines).replace("→", "->").replace("±", "+-")


def markdown_comparison(comparison: Mapping[str, Any], picture: str) -> str:
    """The same as a Markdown document; `picture` is the path of the recall curves from it."""
    title, *head = _head(comparison)
    lines = [f"# {title}", "", "  \n".join(head), "", "## Measured", ""]
    for section in _measured_sections(comparison):
        lines += _markdown_table(section)
    lines += [f"![R@K over K]({picture})", ""]
    if comparison["published"]:
        lines += [f"## {_PUBLISHED}", "", _how_to_compare(comparison), ""]
        for section in _published_sections(comparison["published"]):
            lines += _markdown_table(section)
        lines += [f"- {source}" for source in _sources(comparison["published"])]
    return "\n".join(lines).rstrip() + "\n"


def _head(comparison: Mapping[str, Any]) -> list[str]:
    counts = comparison["counts"]
    lines = [
        f"{comparison['benchmark']}, {comparison['split']} split: {len(comparison['models'])} models",
        f"protocol {comparison['protocol']}: {comparison['protocol_description']}",
        f"{counts['videos']} videos, {counts['texts']} texts; combined levels",
    ]
    for name, settings in comparison["post_processing"].items():
        given = [f"{setting.replace('_', ' ')} {value}" for setting, value in settings.items() if setting != "note"]
        lines.append("; ".join([f"{name}: {', '.join(given)}", settings["note"]]))
    if not comparison["complete"]:
        expected = ", ".join(f"{name} {given}" for name, given in comparison["expected"].items() if given is not None)
        lines.append(f"NOT COMPLETE: {comparison['missing_videos']} videos are missing; expected: {expected or 'all'}")
    return lines


def _measured_sections(comparison: Mapping[str, Any]) -> Iterator[_Section]:
    seeds = {model["label"]: "-" if model["seed"] is None else str(model["seed"]) for model in comparison["models"]}
    for table in comparison["tables"]:
        title = _NAMES[table["direction"]]
        if table["post_processing"] != "none":
            title += f" + {table['post_processing']}"
        rows = [["model", "seed", *METRICS, "95 % of R@1"]]
        for label, row in table["rows"].items():
            low, high = row["R@1_95"]
            rows.append([label, seeds[label], *(f"{row[metric]:.1f}" for metric in METRICS), f"{low:.1f}-{high:.1f}"])
        spread = (f"{table['mean'][metric]:.1f} ± {table['deviation'][metric]:.1f}" for metric in METRICS)
        rows.append(["mean ± deviation", "", *spread, ""])
        yield _Section(f"{title}: {table['queries']} queries, {table['gallery']} to rank", 1, rows)


def _published_sections(published: Sequence[Mapping[str, Any]]) -> Iterator[_Section]:
    numbers = _source_numbers(published)
    for direction in ("text_to_video", "video_to_text"):
        rows = [["method", "backbone", "protocol", "post-processing", *METRICS, "source"]]
        for entry in published:
            if values := entry[direction]:
                words = (entry[name] for name in ("method", "backbone", "protocol", "post_processing"))
                cells = (f"{values[metric]:.1f}" if metric in values else "" for metric in METRICS)
                rows.append([*words, *cells, f"[{numbers[entry['source']]}]"])
        if len(rows) > 1:
            yield _Section(_NAMES[direction], 4, rows)


def _source_numbers(published: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {source: number for number, source in enumerate(dict.fromkeys(e["source"] for e in published), 1)}


def _sources(published: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"[{number}] {source}" for source, number in _source_numbers(published).items()]


def _how_to_compare(comparison: Mapping[str, Any]) -> str:
    return (
        f"Measured above: protocol {comparison['protocol']}. A number of another protocol, post-processing or backbone "
        "tells nothing about the methods."
    )


def _text_table(section: _Section) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*section.rows, strict=True)]
    lines = [section.title]
    for row in section.rows:
        words = [cell.ljust(width) for cell, width in zip(row[: section.words], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)][section.words :]
        lines.append("  " + "  ".join([*words, *numbers]).rstrip())
    return lines


def _markdown_table(section: _Section) -> list[str]:
    header, *rows = section.rows
    rule = ["---" if column < section.words else "---:" for column in range(len(header))]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, rule, *rows)]
    return [f"**{section.title}**", "", *lines, ""]
