"""What each worker is at, so that a recording at which workers die again and again is left out, and its row says so.

A worker notes what it begins and what it has ended. What a dead worker has begun and not ended may have killed it; what
was at work beside it is innocent. So a suspect is tried again where nothing else runs beside it, and only what goes on
killing then is given up. Knows keys (a recording's id, or one with a passage behind it) and workers; no Ray, no stages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from pipeline.processes import started

DEATHS = 3  # the first may hit bystanders, the second be chance: a machine that was taken away, a killer at random


@dataclass(frozen=True)
class Worker:
    """A process, anywhere."""

    node: str
    pid: int
    started: str  # tells it from a later process of the same id


class Attempts(Protocol):
    """What a worker tells, and asks, of what it does."""

    def deaths(self, keys: Iterable[str]) -> dict[str, int]:
        """Return how many workers have died at each key; those at which none has are left out."""
        ...

    def begin(self, key: str) -> None:
        """Note that this worker begins with `key`."""

    def end(self, key: str) -> None:
        """Note that this worker has ended with `key`, whatever came of it."""


class Untold:
    """Attempts of a job in one process: when that dies, nobody is left to tell."""

    def deaths(self, keys: Iterable[str]) -> dict[str, int]:
        """See `Attempts`."""
        return {}

    def begin(self, key: str) -> None:
        """See `Attempts`."""

    def end(self, key: str) -> None:
        """See `Attempts`."""


class Roll:
    """Who is at what. Lives in one place for all workers."""

    def __init__(self, where: Callable[[], tuple[str, set[str]]]) -> None:
        """`where` returns the node that this process is on, and all that are alive."""
        self._where = where
        self._at: dict[str, set[Worker]] = defaultdict(set)

    def begin(self, worker: Worker, key: str) -> None:
        """Note that `worker` begins with `key`."""
        self._at[key].add(worker)

    def end(self, worker: Worker, key: str) -> None:
        """Note that `worker` has ended with `key`."""
        self._at[key].discard(worker)
        if not self._at[key]:
            del self._at[key]

    def deaths(self, keys: Iterable[str], asking: Worker | None = None) -> dict[str, int]:
        """Return how many workers, not counting the one that is `asking`, have died at each key.

        A worker that was taken away with its node has not died of what it did. Whether one of another node that is
        alive is dead cannot be seen from here: it counts, since what it was at is asked for again.
        """
        known = [key for key in keys if key in self._at]
        if not known:
            return {}
        here, nodes = self._where()
        found = {key: sum(_died(one, here, nodes) for one in self._at[key] if one != asking) for key in known}
        return {key: count for key, count in found.items() if count}

    def killers(self) -> set[str]:
        """Return the recordings at which too many workers have died."""
        return {recording_of(key) for key, count in self.deaths(list(self._at)).items() if count >= DEATHS}


def key_of(recording_id: str, passage: int) -> str:
    """Return the key of a passage."""
    return f"{recording_id}/{passage}"


def recording_of(key: str) -> str:
    """Return the recording's id of a key."""
    return key.partition("/")[0]


def _died(worker: Worker, here: str, nodes: set[str]) -> bool:
    if worker.node not in nodes:
        return False
    return worker.node != here or started(worker.pid) != worker.started


_mine: Attempts = Untold()  # of this process


def attempts() -> Attempts:
    """Return where this process tells what it is at."""
    return _mine


def tell(where: Attempts) -> None:
    """Let this process tell `where` what it is at."""
    global _mine
    _mine = where
