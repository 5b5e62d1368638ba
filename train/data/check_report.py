"""What `check_benchmark` found, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = 10


def format_check(report: Mapping[str, Any]) -> str:
    """The report of `check_benchmark` for people: at most ten missing videos a split, every unreadable one."""
    lines = [
        f"{report['benchmark']}, {report['protocol']}: {report['protocol_description']}",
        f"annotations: {report['annotations']}",
        f"videos: {report['files']:,} files in {report['videos']} and the folders below it",
    ]
    for split, checked in report["splits"].items():
        flaw = "" if checked["complete"] else "   NOT COMPLETE"
        if "error" in checked:
            lines += ["", f"{split}{flaw}", f"  {checked['error']}"]
            continue
        counts = [f"{_found(checked, kind)} {kind}" for kind in ("videos", "captions")]
        lines += ["", f"{split}: {', '.join(counts)}{flaw}", *(f"  {line}" for line in _details(checked))]
    lines += ["", "complete" if report["complete"] else "NOT COMPLETE"]
    return "\n".join(lines)


def _found(checked: Mapping[str, Any], kind: str) -> str:
    count, expected = checked[kind], checked["expected"][kind]
    if expected is None:
        return f"{count:,}"
    low, high = expected
    return f"{count:,} of {low:,}" if low == high else f"{count:,} of {low:,} to {high:,}"


def _details(checked: Mapping[str, Any]) -> list[str]:
    lines = []
    if names := checked["without_file"]:
        said = f"{checked['captions_without_video']:,} captions"
        lines.append(f"{len(names):,} videos, which {said} describe, have no file: {_some(names)}")
    if names := checked["without_caption"]:
        lines.append(f"{len(names):,} videos have no caption: {_some(names)}")
    if shared := checked["captions_of_several_videos"]:
        lines.append(f"{len(shared):,} captions belong to more than one video, {sum(shared.values()):,} times in all")
    if repeated := checked["captions_repeated_for_their_video"]:
        lines.append(f"{repeated:,} captions repeat another one of their own video")
    if decoded := checked.get("decoded"):
        meanings = {"unreadable": "cannot be read", "damaged": "are damaged: what can be read of them is used"}
        for kind, meaning in meanings.items():
            if found := decoded[kind]:
                lines.append(f"{len(found):,} of {decoded['videos']:,} videos {meaning}")
                lines += [f"  {video['video_id']} ({video['video']}): {video['reason']}" for video in found]
        if not decoded["unreadable"]:
            lines.append(f"all {decoded['videos']:,} videos can be read")
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
