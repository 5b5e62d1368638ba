"""What a small Hub for tests holds: repositories with commits of files, and the requests it was asked."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

USER, TOKEN = "tester", "hf_" + "TestOnlyNotASecret" * 2
SILENT = -1
LARGE = (".safetensors", ".bin", ".png", ".mp4", ".parquet")


class HubError(Exception):
    """What a request is answered with instead: a status, the code that clients look at, and a text."""

    def __init__(self, status: int, code: str = "", message: str = ""):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message or code


@dataclass(frozen=True)
class File:
    """A file of a commit: its hash as git or as LFS gives it; `Hub.blobs` has the content."""

    oid: str
    size: int
    lfs: bool


@dataclass
class Repository:
    """Commits, each a mapping from path to file, and what points at them."""

    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str:
        """The commit that a branch, tag or commit names."""
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        if commit not in self.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def commit(self, branch: str, files: Mapping[str, File]) -> str:
        """Puts a new commit with exactly these files on the branch."""
        history = f"{len(self.commits)} {self.branches.get(branch)} {sorted(files.items())}"
        commit = hashlib.sha1(history.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit


@dataclass
class Hub:
    """The server's state, and what a test may look at or change.

    Attributes:
        address: to be the client's `HF_ENDPOINT`.
        repositories: by kind ("model" or "dataset") and name.
        blobs: contents by hash.
        requests: method, path and status of every request answered so far.
        failures: what goes wrong next, see `fail`.
        closing: set when the server ends.
    """

    address: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    failures: list[tuple[str, str, int]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def fail(self, method: str, path: str, status: int, times: int = 1) -> None:
        """The next requests whose path has `path` in it get this status; 0 hangs up without an answer, and `SILENT`
        keeps the connection and never says anything."""
        self.failures += [(method, path, status)] * times

    def model(self, name: str) -> Repository:
        """A model's repository."""
        return self.repositories["model", name]

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """All files of a model."""
        repository = self.model(name)
        return {path: self.blobs[f.oid] for path, f in repository.commits[repository.resolve(revision)].items()}

    def put(self, name: str, files: Mapping[str, bytes], private: bool = False) -> None:
        """Makes a model's repository with these files, as if somebody else had published it."""
        repository = self.repositories["model", name] = Repository(private)
        repository.commit("main", {path: self.store(c, path.endswith(LARGE)) for path, c in files.items()})

    def store(self, content: bytes, lfs: bool) -> File:
        """Keeps a content under its hash."""
        oid = hashlib.sha256(content).hexdigest() if lfs else git_hash(content)
        self.blobs[oid] = content
        return File(oid, len(content), lfs)

    def asked(self, method: str, path: str) -> int:
        """How many requests there were whose path has `path` in it."""
        return sum(method == asked and path in where for asked, where, _ in self.requests)


def git_hash(content: bytes) -> str:
    """As git names a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
