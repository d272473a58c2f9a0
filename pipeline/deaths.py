"""How many workers have died at what, in `OUT/_staging/deaths.json`, so that it outlasts the driver that has seen it.

Only deaths that a living driver has seen count: its own end says nothing of what was at work, since users and machines
end drivers at any time. It is written when somebody has died, never for what goes well: a job of a million recordings
costs nothing here. Knows files and keys (a recording's id, or one with a passage behind it); no workers, no tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from pipeline import storage
from pipeline.attempts import recording_of
from pipeline.commits import STAGING
from pipeline.errors import OpenError, UserError

FILE = "deaths.json"


class Deaths:
    """What workers have died at, of one output."""

    def __init__(self, out: str, wanted: Callable[[str], bool], *, followed: bool = False) -> None:
        """Read what is known. `wanted` says whether a recording is still to be completed.

        `followed` says that the driver before this one has died: at what, and of what, nobody knows.
        """
        self._uri = storage.join(out, STAGING, FILE)
        self.wanted = wanted
        self.followed = followed
        known = _read(self._uri)
        self.known = known or {}
        self._stands = known is not None

    def note(self, counts: Mapping[str, int]) -> None:
        """Keep how many have died at each key, of recordings that are still to be completed."""
        found = {key: count for key, count in counts.items() if self.wanted(recording_of(key))}
        if found != self.known:
            self.known, self._stands = found, True
            storage.write_bytes(self._uri, json.dumps({"deaths": found}, indent=1).encode())

    def start_anew(self, wanted: Callable[[str], bool]) -> None:
        """Forget, in this process, what is known of recordings that are not `wanted`."""
        self.known = {key: count for key, count in self.known.items() if wanted(recording_of(key))}

    def forget(self) -> None:
        """Remove the file: nothing is left to do."""
        if self._stands:
            storage.delete(self._uri)
            self.known, self._stands = {}, False


@runtime_checkable
class Watcher(Protocol):
    """A runner that sees its workers die."""

    def watch(self, deaths: Deaths) -> None:
        """Take what is known of deaths, and note those to come."""


def _read(uri: str) -> dict[str, int] | None:
    """Return what the file says; None where there is no file."""
    try:
        found: dict[str, int] = json.loads(storage.read_bytes(uri))["deaths"]
    except OpenError as error:
        if error.kind != "not_found":
            raise UserError(f"cannot read {uri}: {error}", "check the store, and the rights on it") from error
        return None
    except (ValueError, KeyError):  # nothing that a driver has written
        return {}
    return found
