"""A picture of R@K over K: a line for each model, their mean, and a band of one deviation around it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

_TITLES = {"text_to_video": "text → video", "video_to_text_group": "video → text (group protocol)"}
_TICKS = (1, 2, 5, 10, 20, 50, 100)
_SUMMARISED = (1, 5, 10)
_MOST_COLOURS = 10
_MEAN = "#222222"


def draw_recall_curves(curves: Mapping[str, Mapping[str, Any]], path: Path, title: str) -> None:
    """
    Writes a PNG.

    Args:
        curves: label of each model, two at least, to its `recall_curve`: the numbers `K` and, for each direction, R@K
            in percent. Up to ten models have a colour and a name in the legend; of more, all look the same.
        path: the file.
        title: above the picture.
    """
    figure = Figure(figsize=(12.5, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    at = next(iter(curves.values()))["K"]
    for axes, (direction, name) in zip(panels, _TITLES.items(), strict=True):
        _draw_models(axes, at, {label: curve[direction] for label, curve in curves.items()})
        summary = _draw_mean(axes, at, np.array([curve[direction] for curve in curves.values()]))
        axes.set_title(f"{name}\n", fontsize=11)
        axes.text(0.5, 1.02, summary, transform=axes.transAxes, ha="center", fontsize=9, color=_MEAN)
        axes.set(xlabel="K", xscale="log", xlim=(at[0], at[-1]))
        axes.set_xticks([tick for tick in _TICKS if at[0] <= tick <= at[-1]])
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    values = [value for curve in curves.values() for direction in _TITLES for value in curve[direction]]
    low, high = min(values), max(values)
    margin = max(0.04 * (high - low), 1)
    panels[0].set(ylabel="R@K (%)", ylim=(max(low - margin, -1), min(high + margin, 101)))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=130)


def _draw_models(axes: Axes, at: list[int], recalls: Mapping[str, list[float]]) -> None:
    if len(recalls) <= _MOST_COLOURS:
        for colour, (label, recall) in enumerate(recalls.items()):
            axes.plot(at, recall, color=colormaps["tab10"](colour), label=label, linewidth=1.0)
        return
    for number, recall in enumerate(recalls.values()):
        label = None if number else f"{len(recalls)} models"
        axes.plot(at, recall, color="#4c78a8", label=label, linewidth=0.8, alpha=0.4)


def _draw_mean(axes: Axes, at: list[int], recalls: np.ndarray) -> str:
    """Mean and band of the (models, K) recalls; the recalls that the field reports, in words."""
    middle, spread = recalls.mean(axis=0), recalls.std(axis=0, ddof=1)
    axes.plot(at, middle, color=_MEAN, label="mean", linewidth=1.4, linestyle=(0, (5, 3)))
    band = (np.clip(middle - spread, 0, 100), np.clip(middle + spread, 0, 100))
    axes.fill_between(at, *band, color=_MEAN, alpha=0.15, linewidth=0, label="± deviation (sample)")
    shown = [(k, m, s) for k, m, s in zip(at, middle, spread, strict=True) if k in _SUMMARISED]
    return "     ".join(f"R@{k}  {m:.1f} ± {s:.1f}" for k, m, s in shown)
