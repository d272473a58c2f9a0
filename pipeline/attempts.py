"""What each worker is at, so that a recording at which workers die again and again is left out, and its row says so.

A worker notes what it begins and what it has ended. What a dead worker has begun and not ended may have killed it; what
was at work beside it is innocent. So a suspect is tried again where nothing else runs beside it, and only what goes on
killing then is given up. Knows keys (a recording's id, or one with a passage behind it) and workers; no Ray, no stages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.processes import started
from pipeline.types import Failure

# The first may hit bystanders, the next be chance: who kills workers at random, or the kernel in want of memory, may
# meet the same recording again. One that is at work for a quarter of the time between two such kills is given up
# wrongly once in a thousand times.
DEATHS = 6
KILLED = Failure(
    "worker",
    "killed",
    f"{DEATHS} workers died at it, each time anew: out of memory, or a fault of a library",
    retryable=True,
)


@dataclass(frozen=True)
class Worker:
    """A process, anywhere."""

    node: str
    pid: int
    started: str  # tells it from a later process of the same id


class Attempts(Protocol):
    """What a worker tells, and asks, of what it does."""

    def begin(self, keys: Sequence[str]) -> dict[str, int]:
        """Note that this worker begins with `keys`, but not with suspects: return these, and how many died at each."""
        ...

    def retry(self, key: str) -> None:
        """Note that this worker begins with a suspect."""

    def end(self, keys: Sequence[str]) -> None:
        """Note that this worker has ended with `keys`, whatever came of it."""


class Untold:
    """Attempts of a job in one process: when that dies, nobody is left to tell."""

    def begin(self, keys: Sequence[str]) -> dict[str, int]:
        """See `Attempts`."""
        return {}

    def retry(self, key: str) -> None:
        """See `Attempts`."""

    def end(self, keys: Sequence[str]) -> None:
        """See `Attempts`."""


class Roll:
    """Who is at what. Lives in one place for all workers."""

    def __init__(self, where: Callable[[], tuple[str, set[str]]], known: Mapping[str, int] | None = None) -> None:
        """`where` returns the node that this process is on, and all that are alive; `known` are deaths of before."""
        self._where = where
        self._known = dict(known or {})
        self._at: dict[str, set[Worker]] = defaultdict(set)
        self._given_up: set[str] = set()  # recordings, which are not tried with other passages either
        self._followed: dict[str, set[Worker]] = defaultdict(set)  # of these, those that another has come after

    def begin(self, worker: Worker, keys: Sequence[str]) -> dict[str, int]:
        """See `Attempts`. Many are noted at once, so a death suspects all of them; but each only once in this way."""
        dead = self.deaths(keys, worker)
        self._given_up |= {recording_of(key) for key, count in dead.items() if count >= DEATHS}
        dead |= {key: DEATHS for key in keys if recording_of(key) in self._given_up and dead.get(key, 0) < DEATHS}
        for key in keys:
            if key not in dead:
                self._at[key].add(worker)
        return dead

    def retry(self, worker: Worker, key: str) -> None:
        """See `Attempts`."""
        self._at[key].add(worker)

    def end(self, worker: Worker, keys: Sequence[str]) -> None:
        """See `Attempts`."""
        for key in keys:
            self._at[key].discard(worker)
            if not self._at[key]:
                del self._at[key]
                self._followed.pop(key, None)

    def deaths(self, keys: Collection[str], asking: Worker | None = None) -> dict[str, int]:
        """Return how many workers, not counting the one that is `asking`, have died at each key.

        A worker that was taken away with its node has not died of what it did. Whether one of another node that is
        alive is dead cannot be seen from here, until another asks for what it was at.
        """
        found = {key: self._known[key] for key in keys if key in self._known}
        begun = [key for key in keys if key in self._at]
        if begun:
            here, nodes = self._where()
            for key in begun:
                others = self._at[key] - {asking}
                if asking is not None:
                    self._followed[key] |= others
                died = sum(
                    started(one.pid) != one.started if one.node == here else one in self._followed[key]
                    for one in others
                    if one.node in nodes
                )
                found[key] = found.get(key, 0) + died
        return {key: count for key, count in found.items() if count}

    def suspects(self) -> dict[str, int]:
        """Return all at which workers have died, and how many."""
        return self.deaths({*self._at, *self._known})

    def killers(self) -> set[str]:
        """Return the recordings at which too many workers have died."""
        return {recording_of(key) for key, count in self.suspects().items() if count >= DEATHS}


def key_of(recording_id: str, passage: int) -> str:
    """Return the key of a passage."""
    return f"{recording_id}/{passage}"


def recording_of(key: str) -> str:
    """Return the recording's id of a key."""
    return key.partition("/")[0]


_mine: Attempts = Untold()  # of this process


def attempts() -> Attempts:
    """Return where this process tells what it is at."""
    return _mine


def tell(where: Attempts) -> None:
    """Let this process tell `where` what it is at."""
    global _mine
    _mine = where
