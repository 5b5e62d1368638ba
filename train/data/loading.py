"""Training pairs as batches on the device, read ahead by other processes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import skip_first_batches
from torch.utils.data import DataLoader, RandomSampler

from hcmi.processing import VideoReadError
from hcmi.train.cores import local_processes, usable_cores

from .joining import Batch, grouped, on_device
from .pairs import PairCollator, TrainingPairs
from .reader_watch import ReaderWatch
from .unreadable import UnreadableVideos
from .waiting import WaitClock

_MOST_READERS = 16
_PART = 8  # pairs
_PARTS_AHEAD = 2  # of each reader


def reader_count(device: torch.device, processes: int) -> int:
    """
    How many reader processes one training process has unless it is told.

    On the CPU none: training itself uses all cores. Beside an accelerator all cores but the one that drives it, up to
    16, shared among the machine's training processes.

    Args:
        device: that is trained on.
        processes: training processes on this machine.
    """
    return 0 if device.type == "cpu" else max(0, min(_MOST_READERS, usable_cores() // processes - 1))


def make_loader(
    pairs: TrainingPairs,
    collator: PairCollator,
    *,
    batch_size: int,
    num_workers: int = 0,
    pin_memory: bool = False,
    timeout: float = 300.0,
    part_size: int | None = None,
) -> DataLoader:
    """
    A `DataLoader` of an epoch's pairs in random order; `accelerator.prepare` takes it, in one process or several.

    Args:
        batch_size: pairs a batch, over all processes; the last pairs of an epoch that make no batch are left out.
        num_workers: reader processes, which live as long as the loader. They follow `pairs.begin_epoch`.
        pin_memory: for copies to CUDA that do not wait.
        timeout: seconds that a reader process may take for one video; 0: any time. Without readers there is no limit.
        part_size: deliver each batch in parts of so many pairs, a divisor of `batch_size`: readers share a batch, and
            little memory waits in each of them. Default: whole batches.
    """
    part_size = part_size or batch_size
    if len(pairs) < batch_size:
        raise ValueError(f"batch_size ({batch_size}) exceeds the number of training pairs ({len(pairs)})")
    if batch_size % part_size:
        raise ValueError(f"part_size ({part_size}) must divide batch_size ({batch_size})")
    # An own generator: how many loaders and readers there are must not move the run's random state.
    generator = torch.Generator()
    pairs.watch = ReaderWatch(num_workers, timeout)
    return DataLoader(
        pairs,
        batch_size=part_size,
        sampler=RandomSampler(pairs, num_samples=len(pairs) // batch_size * batch_size, generator=generator),
        collate_fn=collator,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=generator,
        prefetch_factor=_PARTS_AHEAD if num_workers else None,
        persistent_workers=num_workers > 0,
    )


class TrainingBatches:
    """
    The batches of a run, epoch by epoch: each process gets its share of every batch, on its device.

    The batches depend on the seeds and the number of processes, not on that of the readers.

    Args:
        accelerator: made with `split_batches=True, use_seedable_sampler=True`; its seed orders the pairs.
        pairs, collator, batch_size, timeout: as for `make_loader`.
        num_workers: reader processes of this process; `None`: `reader_count`.
        unreadable: what is done about videos that cannot be read.
        files: of the rows' videos, named where a reader process dies or takes too long.

    Attributes:
        clock: how long the run waits for data, in the current epoch or the last.
        num_workers: reader processes of this process.

    Raises:
        ValueError: a batch is larger than the data set, or cannot be shared out evenly to the processes.
    """

    def __init__(
        self,
        accelerator: Any,
        pairs: TrainingPairs,
        collator: PairCollator,
        unreadable: UnreadableVideos,
        *,
        batch_size: int,
        num_workers: int | None = None,
        timeout: float = 300.0,
        files: Sequence[str] | None = None,
    ) -> None:
        processes = accelerator.num_processes
        if batch_size % processes:
            raise ValueError(f"batch_size ({batch_size}) must be a multiple of the number of processes ({processes})")
        if num_workers is None:
            num_workers = reader_count(accelerator.device, local_processes(processes))
        self.accelerator = accelerator
        self.pairs = pairs
        self.unreadable = unreadable
        self.files = files
        self.num_workers = num_workers
        self.clock = WaitClock()
        self._padding = {"input_ids": collator.tokenizer.pad_token_id}
        share = batch_size // processes
        part = _part_size(share)
        self._parts = share // part
        loader = make_loader(
            pairs,
            collator,
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=accelerator.device.type == "cuda",
            timeout=timeout,
            part_size=part * processes,
        )
        # Parts stay on the host: they are copied where they belong in their batch.
        self._loader = accelerator.prepare_data_loader(loader, device_placement=False)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._loader) // self._parts

    @contextmanager
    def epoch(self, epoch: int, views: int = 1, skip: int = 0) -> Iterator[Iterator[Batch]]:
        """
        The batches of an epoch, to be gone through inside `with`: `PairCollator`'s tensors.

        Args:
            epoch: counted from 0; with the seeds it decides the order and what is drawn.
            views: of each video.
            skip: batches at the beginning that a run before this one has seen.

        Raises:
            VideoReadError: unreadable videos that are refused, or too many of them.
            ChildProcessError: a reader process died, or took too long for a video; it is named.
        """
        self.pairs.begin_epoch(epoch, views)
        self._loader.set_epoch(epoch)
        self.clock = WaitClock()
        loader = skip_first_batches(self._loader, skip * self._parts) if skip else self._loader
        assert self.pairs.watch is not None
        with self.pairs.watch.explained(self.unreadable.names, self.files):
            groups = grouped(self._readable(loader), self._parts)
            yield self.clock.over(on_device(groups, self._padding, self.accelerator.device))
            self.unreadable.share(self.accelerator)

    def _readable(self, parts: Iterable[dict[str, Any]]) -> Iterator[Batch]:
        for part in parts:
            met = part.pop("unreadable", ())
            self.unreadable.add(met)
            if not part:
                reasons = "; ".join(reason for _, reason in met)
                raise VideoReadError("no readable video was found in place of unreadable ones", reasons)
            yield part


def _part_size(share: int) -> int:
    """The smallest part, of about 8 pairs or more, that divides a process's share of a batch."""
    return next((size for size in range(_PART, share) if share % size == 0), share)
