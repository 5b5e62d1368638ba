"""What `train_step.py` tells of the ways that it has measured: their figures side by side, and what HCMI adds."""

from typing import Any

from steps import WAYS, Settings

_BREAKDOWN = [
    "video tower",
    "no gradient",
    "text tower",
    "hierarchy",
    "objective",
    "backward",
    "clipping",
    "optimizer",
    "other",
]
_BESIDE = {
    "samples_per_second": "samples/s",
    "at_their_speed": "at their speed",
    "share": "share of it",
    "share_without_optimizer": "no optimizer",
    "share_of_cpu_time": "by CPU time",
}


def compared(ways: dict[str, dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """The ways, the limit of the last one, and, where all ways were measured, what HCMI adds in time and in FLOPs."""
    clock = "cpu_seconds" if settings.on_cpu else "seconds"
    rate = max(way["matrix_flop_per_second"] for way in ways.values())
    last = list(ways)[-1]
    report = {"ways": ways, "clock": clock, "limit_of": last, "limit_seconds": ways[last]["flop"] / rate}
    if len(ways) < len(WAYS):
        return report
    bare, mean, one, whole = (ways[way] for way in WAYS)
    return report | {
        "head_and_objective": {
            "added": (one[clock] - mean[clock]) / mean[clock],
            "of_bare_towers": (one[clock] - mean[clock]) / bare[clock],
            "flop_added": (one["flop"] - mean["flop"]) / mean["flop"],
        },
        "second_view": {
            "added": (whole[clock] - one[clock]) / one[clock],
            "flop_added": (whole["flop"] - one["flop"]) / one["flop"],
        },
        "beside_bare_towers": {way: _beside(bare, ways[way], settings) for way in WAYS if way.startswith("HCMI")},
    }


def _beside(bare: dict[str, Any], way: dict[str, Any], settings: Settings) -> dict[str, float]:
    """Samples per second, beside those where the way's FLOPs go as fast as the forward and backward of the towers."""
    longer = way["flop"] / bare["flop"]
    without = 1 - sum(way["breakdown"].get(part, 0.0) for part in ("clipping", "optimizer"))
    figures = {
        "samples_per_second": settings.batch / way["seconds"],
        "at_their_speed": settings.batch / (bare["seconds"] * longer),
        "share": bare["seconds"] * longer / way["seconds"],
        "share_without_optimizer": bare["seconds"] * longer / (way["seconds"] * without),
    }
    # What other programs beside it disturb less.
    if settings.on_cpu:
        figures["share_of_cpu_time"] = bare["cpu_seconds"] * longer / way["cpu_seconds"]
    return figures


def table(report: dict[str, Any]) -> str:
    """For people."""
    lines = [*_figures(report), "", *_parts(report["ways"]), ""]
    if "beside_bare_towers" in report:
        lines += [*_additions(report), ""]
    settings = report["settings"]
    return "\n".join(
        [
            *lines,
            "{model}, {batch} pairs, {frames} frames of {image_size} pixels, {words} words, {dtype}, {attention} "
            "attention, chunks of {chunk_size}, {threads} threads, seed {seed}".format(**settings)
            + (", freed memory given back" if settings["give_back"] else ""),
            f"{report['hardware']}; " + ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
        ]
    )


def _figures(report: dict[str, Any]) -> list[str]:
    columns = ("step s", "CPU s", "samples/s", "TFLOP", "TFLOP/s", "of matrix rate", "peak GB")
    lines = [f"{'':18s}" + "".join(f"{column:>15s}" for column in columns)]
    for way, row in report["ways"].items():
        figures = [row["seconds"], row["cpu_seconds"], row["samples_per_second"], row["flop"] / 1e12]
        figures += [row["flop_per_second"] / 1e12]
        cells = [f"{figure:15.3f}" for figure in figures]
        cells += [f"{row['share_of_matrix_rate']:15.1%}", f"{row['gigabytes']:15.2f}"]
        lines.append(f"{way:18s}" + "".join(cells))
    way, limit = report["limit_of"], report["limit_seconds"]
    flop, samples = report["ways"][way]["flop"] / 1e12, report["settings"]["batch"] / limit
    cells = [f"{limit:15.3f}", " " * 15, f"{samples:15.3f}", f"{flop:15.3f}", f"{flop / limit:15.3f}"]
    return [*lines, f"{'limit of ' + way:18s}" + "".join(cells)]


def _parts(ways: dict[str, dict[str, Any]]) -> list[str]:
    parts = sorted({part for row in ways.values() for part in row["breakdown"]}, key=_BREAKDOWN.index)
    lines = ["the step by its parts, in milliseconds:", f"{'':18s}" + "".join(f"{part:>13s}" for part in parts)]
    for way, row in ways.items():
        taken = (row["breakdown"].get(part, 0.0) * row["seconds"] * 1000 for part in parts)
        lines.append(f"{way:18s}" + "".join(f"{milliseconds:13.1f}" for milliseconds in taken))
    return lines


def _additions(report: dict[str, Any]) -> list[str]:
    clock = "of time on the clock" if report["clock"] == "seconds" else "of processor time"
    head, second = report["head_and_objective"], report["second_view"]
    lines = [
        f"HCMI's head and objective add {head['added']:.1%} {clock} to mean-pooled CLIP ({head['of_bare_towers']:.1%} "
        f"of the bare towers'); their FLOPs are {head['flop_added']:.1%} of it",
        f"the second view adds {second['added']:.1%}; its FLOPs are {second['flop_added']:.1%}",
        "",
        "samples/s, and what they were if HCMI's FLOPs went as fast as the bare towers' forward and backward:",
    ]
    rows = report["beside_bare_towers"]
    columns = [name for name in _BESIDE if name in rows["HCMI"]]
    lines.append(f"{'':18s}" + "".join(f"{_BESIDE[name]:>16s}" for name in columns))
    for way, row in rows.items():
        cells = (f"{row[name]:16.1%}" if "share" in name else f"{row[name]:16.3f}" for name in columns)
        lines.append(f"{way:18s}" + "".join(cells))
    return lines
