"""What every store offers, and the entry that it answers with."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

AHEAD = 4 << 20  # bytes a request, where much is read


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a store. `version` changes when its bytes do: the etag, or size and time of change."""

    uri: str
    size: (
        int | None
    )  # bytes; None where the store does not say, or names a file that it does not have (a dangling link)
    version: str
    address: str = field(default="", repr=False)  # what opens it, where that holds a secret which `uri` leaves out

    @property
    def location(self) -> str:
        """What to open: secret, where the source named it with credentials."""
        return self.address or self.uri


class Store(Protocol):
    """The functions of a store's module. They raise their library's errors; `faults` says what those mean."""

    def faults(self) -> AbstractContextManager[None]:
        """Turn the library's errors into OpenError, `retryable` where the trouble may pass."""

    def stat(self, uri: str) -> Entry:
        """Look at a file."""

    def is_dir(self, uri: str) -> bool:
        """Say whether anything lies under `uri`."""

    def walk(self, uri: str) -> Iterator[Entry]:
        """Yield every file under a folder or beginning with a prefix, a page in memory at a time."""

    def reader(self, uri: str, version: str, start: int, ahead: int) -> io.RawIOBase | io.BufferedIOBase:
        """Open a file for streaming from a byte on; a broken connection is resumed at its byte.

        A store that is asked piece by piece is asked for `ahead` bytes at a time.
        """

    def write(self, uri: str, data: bytes) -> None:
        """Write a whole file in one step."""

    def move(self, source: str, target: str) -> None:
        """Rename a file inside the store."""

    def delete(self, uri: str) -> None:
        """Remove a file; one that is absent is fine."""

    def names(self, uri: str) -> list[str]:
        """Return the names of the files directly in a folder."""
