"""A picture of a run: loss parts, mined positives, learning rate, and validation R@1 of every level."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hcmi.modeling_hcmi import LEVELS

_COLOURS = {
    "frame_word": "#4c78a8",
    "clip_phrase": "#f58518",
    "video_sentence": "#54a24b",
    "marginal": "#b279a2",
    "combined": "#222222",
}


def draw_curves(steps: list[dict[str, Any]], epochs: list[dict[str, Any]], path: Path, title: str) -> None:
    """
    Writes a PNG.

    Args:
        steps: records with `step`, `mined_pairs`, `learning_rate` and the parts of the loss.
        epochs: records with `step` and `recall_at_1`, per level and combined, in percent; none without validation.
        path: the file.
        title: above the picture.
    """
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    losses, mined, recall = figure.subplots(1, 3)
    at = [record["step"] for record in steps]
    for part in (*LEVELS, "marginal"):
        if any(part in record for record in steps):
            losses.plot(
                at, [record.get(part) for record in steps], color=_COLOURS[part], label=_name(part), linewidth=1.2
            )
    losses.set(title="loss", xlabel="step", yscale="log")
    losses.legend(frameon=False, fontsize=8)

    mined.plot(at, [record["mined_pairs"] for record in steps], color="#e45756", linewidth=1.2)
    mined.set(title="mined positive pairs a step", xlabel="step")
    mined.set_ylim(bottom=0)
    rates = mined.twinx()
    rates.plot(at, [record["learning_rate"] for record in steps], color="#bbbbbb", linewidth=1.0)
    rates.set_ylabel("learning rate", color="#999999")
    rates.tick_params(colors="#999999", labelsize=8)

    for level in (*LEVELS, "combined") if epochs else ():
        values = [record["recall_at_1"][level] for record in epochs]
        recall.plot(
            [r["step"] for r in epochs], values, color=_COLOURS[level], marker="o", markersize=3, label=_name(level)
        )
    recall.set(title="validation R@1, text → video (%)", xlabel="step", ylim=(0, 100))
    if epochs:
        recall.legend(frameon=False, fontsize=8)

    for axes in (losses, mined, recall):
        axes.grid(alpha=0.2)
        axes.spines["top"].set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)


def _name(part: str) -> str:
    return part.replace("_", "-")
