"""One process's share of indexing: read in other processes, encoded in batches, committed batch by batch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hcmi.retrieval.index.video_index import VideoIndex

from .file_changes import FileChanges
from .progress import IndexProgress
from .reader_pool import ReaderPool
from .reader_process import Outcome
from .reading_jobs import Damage, Frames, HashJob, Plan, ReadJob, do_job, seconds_to_open
from .report import IndexReport, Update
from .window_encoding import Place, WindowEncoder
from .windows import WindowRule


@dataclass(frozen=True)
class IndexOptions:
    """
    How files are indexed.

    Args:
        rule: how videos are cut into windows. Those that are in the index already stay as they are.
        batch_size: windows that the model takes at a time.
        num_workers: processes that read; default: one for each core that this process may use. 0 reads here, which is
            not safe from files that crash or hang the decoder.
        hash: also tell files by their content, for which all that is new is read once more: what has only another time
            or name is not encoded again. It takes files that were indexed with `hash`.
        retry: read again what could not be read and has not changed since.
        progress: show a progress bar.
        reader_timeout: seconds that opening a file may take, and decoding more than the video lasts.
    """

    rule: WindowRule = WindowRule()
    batch_size: int = 8
    num_workers: int | None = None
    hash: bool = False
    retry: bool = False
    progress: bool = True
    reader_timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` has to be at least 1, got {self.batch_size}.")
        if self.num_workers is not None and self.num_workers < 0:
            raise ValueError(f"`num_workers` has to be 0 or more, got {self.num_workers}.")
        if not self.reader_timeout > 0:
            raise ValueError(f"`reader_timeout` has to be more than 0 seconds, got {self.reader_timeout}.")

    @property
    def processes(self) -> int:
        """Processes that read."""
        if self.num_workers is not None:
            return self.num_workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class IndexingRun:
    """The work on a share of files."""

    def __init__(
        self, index: VideoIndex, known: VideoIndex, changes: FileChanges, report: IndexReport, options: IndexOptions
    ):
        self.index, self.known = index, known
        self.changes, self.report, self.options = changes, report, options
        self.states = changes.states
        self.threads = max(1, options.processes // len(self.states))
        self.plans: dict[str, Plan] = {}  # of files that the index does not know yet
        self.planned: dict[str, int] = {}  # windows of the files that are begun
        self.missing: dict[str, int] = {}  # and how many of them are not committed yet
        self.digests: dict[str, str] = {}
        self.encoder = WindowEncoder(index, options.batch_size, self.begin_files, self.committed)
        self.pool = ReaderPool(do_job, (index.processor, options.rule), options.processes)
        self.progress = IndexProgress([state.size for state in self.states.values()], options.progress)

    def run(self) -> None:
        with self.pool, self.progress:
            self.submit()
            try:
                for outcome in self.pool:
                    self.take(outcome)
                self.encoder.flush()
            except KeyboardInterrupt:
                self.encoder.finish()
                raise

    def submit(self) -> None:
        for path in self.changes.unfinished:
            windows = self.index.windows(path, missing=True)
            self.planned[path] = self.missing[path] = len(windows)
            self.pool.submit([ReadJob(path, tuple(windows))], self.seconds(path))
        for path in self.changes.changed | self.changes.new:
            job = HashJob(path) if self.options.hash else ReadJob(path, threads=self.threads)
            self.pool.submit([job], self.seconds(path))

    def seconds(self, path: str) -> float:
        return seconds_to_open(self.states[path].size, self.options.reader_timeout)

    def take(self, outcome: Outcome) -> None:
        path, value = outcome.job.path, outcome.value
        if path in self.report.unreadable:
            return  # another piece of it has failed
        if outcome.failure is not None:
            self.give_up(path, outcome.failure)
        elif isinstance(value, str):
            self.recognise(path, value)
        elif isinstance(value, Plan):
            self.plan(outcome.job, value)
        elif isinstance(value, Frames):
            self.encoder.add(path, value.windows, value.arrays)
        elif isinstance(value, Damage):
            self.report.damaged[path] = value.reason

    def recognise(self, path: str, digest: str) -> None:
        """Reads a file whose content is new."""
        state = self.states[path] = replace(self.states[path], digest=digest)
        old = self.same_content(path, digest)
        if old is None:
            self.pool.submit([ReadJob(path, threads=self.threads)], self.seconds(path), first=True)
            return
        if old == path or not os.path.lexists(old):
            self.report.updates.append(Update(old, path, state.size, state.mtime_ns, digest))
        else:
            self.report.copies[path] = old
        self.progress.advance(state.size, files=1)

    def same_content(self, path: str, digest: str) -> str | None:
        """The file of this content that the index has, or this run reads."""
        if path in self.changes.changed:
            known = self.known.get(path)
            return path if known.file.digest == digest and known.state == "indexed" else None
        if digest in self.digests:
            return self.digests[digest]
        twin = self.known.find_digest(digest)
        old = twin.path if twin is not None and twin.state == "indexed" else None
        self.digests[digest] = old if old is not None and os.path.lexists(old) else path
        return old

    def plan(self, job: ReadJob, plan: Plan) -> None:
        if job.windows is None:
            self.plans[job.path] = plan
            self.planned[job.path] = self.missing[job.path] = len(plan.windows)
        later = [ReadJob(job.path, tuple(windows)) for windows in plan.later]
        self.pool.submit(later, self.seconds(job.path), first=True)

    def begin_files(self, places: Sequence[Place]) -> None:
        """Notes the files whose first windows are there, which takes no time of its own together with these."""
        for path in self.plans.keys() & {path for path, _ in places}:
            plan = self.plans.pop(path)
            self.index.begin_file(path, replace(self.states[path], duration=plan.duration), plan.windows)

    def committed(self, places: Sequence[Place]) -> None:
        self.report.windows += len(places)
        size, files = 0.0, 0
        for path, _ in places:
            size += self.states[path].size / self.planned[path]
            self.missing[path] -= 1
            if self.missing[path] == 0:
                files += 1
                self.report.new += path in self.changes.new
                self.report.changed += path in self.changes.changed
                self.report.continued += path in self.changes.unfinished
        self.progress.advance(size, files=files, windows=len(places))

    def give_up(self, path: str, reason: str) -> None:
        self.encoder.flush()  # its windows must not arrive after it is forgotten
        self.plans.pop(path, None)
        self.pool.drop(lambda job: job.path == path)
        self.index.mark_unreadable(path, self.states[path], reason)
        self.report.unreadable[path] = reason
        self.progress.advance(self.states[path].size, files=1)
