"""Hits that a demo has shown, under names that nobody can guess: all that a client can ask for is one of them."""

import json
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

from hcmi.retrieval.index.search import Hit

MOST_HITS = 20_000
"""So many are remembered; those that were shown the longest ago are forgotten."""


@dataclass(frozen=True)
class ShownHit:
    """A hit, and the text that found it; None if an example video did."""

    hit: Hit
    query: str | None


class ShownHits:
    """The hits that were shown since the demo started. Threads may share it."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._hits: OrderedDict[str, ShownHit] = OrderedDict()

    def add(self, hit: Hit, query: str | None) -> str:
        """The name of a hit: the same one for the same window and query."""
        place = json.dumps([hit.video, hit.window.number, query])
        name = blake2b(place.encode(), key=self._key, digest_size=16).hexdigest()
        with self._lock:
            self._hits[name] = ShownHit(hit, query)
            self._hits.move_to_end(name)
            if len(self._hits) > MOST_HITS:
                self._hits.popitem(last=False)
        return name

    def get(self, name: str) -> ShownHit | None:
        """The hit of a name."""
        return self._hits.get(name)
