"""What a training run does about videos that cannot be read: it refuses them, or goes on without a few."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from accelerate.utils import gather_object
from tqdm.auto import tqdm

from hcmi.processing import VideoReadError

POLICIES = ("refuse", "skip")


class Unreadable(NamedTuple):
    """A row whose video could not be read, and why."""

    row: int
    reason: str


class UnreadableVideos:
    """
    The videos that a run met and could not read.

    Args:
        names: of the rows' videos.
        policy: "refuse" raises at the first; "skip" tells each once and goes on.
        most: with "skip", how many different videos may be unreadable before the run ends.

    Attributes:
        found: name -> reason, in the order in which they were met. Put a saved one back here to go on with a run.
    """

    def __init__(self, names: Sequence[str], policy: str = "refuse", most: int = 10) -> None:
        self.names = names
        self.policy = policy
        self.most = most
        self.found: dict[str, str] = {}

    def add(self, met: Iterable[Unreadable]) -> None:
        """
        Raises:
            VideoReadError: the policy refuses such videos, or there are too many; all of them are named.
        """
        for row, reason in met:
            name = str(self.names[row])
            if self.policy == "refuse":
                raise VideoReadError(f"video {name!r} (row {row})", reason)
            if name not in self.found:
                self.found[name] = reason
                tqdm.write(f"skipped video {name!r}, another takes its place: {reason}")
        self._check()

    def share(self, accelerator: Any) -> None:
        """
        Tells all processes what each of them met. All have to call.

        Raises:
            VideoReadError: as for `add`, in every process.
        """
        if accelerator.num_processes > 1:
            everywhere: list[Mapping[str, str]] = gather_object([self.found])
            self.found = {name: reason for found in everywhere for name, reason in found.items()}
        self._check()

    def summary(self) -> dict[str, Any]:
        """For the result file: the policy, the number of videos, and each with its reason."""
        videos = [{"video": name, "reason": reason} for name, reason in self.found.items()]
        return {"policy": self.policy, "count": len(videos), "videos": videos}

    def _check(self) -> None:
        if len(self.found) > self.most:
            listed = "; ".join(f"{name!r}: {reason}" for name, reason in self.found.items())
            raise VideoReadError(
                f"{len(self.found)} videos cannot be read, and max_unreadable allows {self.most}", listed
            )
