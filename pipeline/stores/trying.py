"""Trouble that passes: requests tried again with growing pauses, streams resumed at the byte where they broke.

Duty: patience, for the stores whose library does not have it in the form that we need. Knows no store.
"""

from __future__ import annotations

import io
import logging
import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from pipeline.errors import OpenError
from pipeline.stores.options import configured

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_PIECE = 1 << 16  # bytes: what is lost of a connection that breaks

_log = logging.getLogger(__name__)

Result = TypeVar("Result")
Faults = Callable[[], AbstractContextManager[None]]
Stream = io.RawIOBase | io.BufferedIOBase
# Opens a stream at a byte; says whether the bytes before it were left out, or had to be read again
OpenAt = Callable[[int], tuple[Stream, bool]]


class Busy(OpenError):
    """Trouble that passes, and when the store says that it will."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        """`after_s`: seconds that the store asks us to wait."""
        super().__init__("unavailable", message, retryable=True)
        self.after_s = after_s


def tried(faults: Faults, call: Callable[[], Result]) -> Result:
    """Return what `call` returns, called again while its OpenError may pass and attempts are left."""
    failures = 0
    while True:
        try:
            with faults():
                return call()
        except OpenError as error:
            failures += 1
            _wait(error, failures)


def resumed(faults: Faults, open_at: OpenAt, size: Callable[[], int | None], start: int = 0) -> io.RawIOBase:
    """Open a stream that survives broken connections; `size` tells its bytes once it is open, where that is known.

    Attempts are counted from the last byte that came, but in all where the store can only begin anew each time.
    """
    return _Resumed(faults, open_at, size, start)


class _Resumed(io.RawIOBase):
    def __init__(self, faults: Faults, open_at: OpenAt, size: Callable[[], int | None], start: int) -> None:
        self._faults = faults
        self._open_at = open_at
        self._size = size
        self._position = start
        self._failures = 0
        self._inner: Stream | None = None
        self._cheap = True
        self._ranges = True
        self._try(lambda stream: None)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        """Say whether a jump costs less than reading what lies between, as far as is known."""
        return self._ranges

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not len(buffer):
            return 0
        piece = memoryview(buffer)[:_PIECE]
        count = self._try(lambda stream: stream.readinto(piece)) or 0
        self._position += count
        if count and self._cheap:
            self._failures = 0
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        if base is None:
            base = self._size()
        if base is None:
            raise OpenError("refused", "the store does not say how long the file is")
        if base + offset != self._position:
            self._drop()
            self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._drop()
        super().close()

    def _try(self, use: Callable[[Stream], Result]) -> Result:
        while True:
            try:
                with self._faults():
                    if self._inner is None:
                        self._inner, self._cheap = self._open_at(self._position)
                        self._ranges = self._cheap or not self._position
                    return use(self._inner)
            except OpenError as error:
                self._drop()
                self._failures += 1
                _wait(error, self._failures)

    def _drop(self) -> None:
        if self._inner is not None:
            self._inner.close()
            self._inner = None


def _wait(error: OpenError, failures: int) -> None:
    """Sleep before the next attempt; raise `error` where it is lasting or was the last one."""
    if error.kind != "unavailable" or not error.retryable or failures >= configured().store_attempts:
        raise error
    asked = error.after_s if isinstance(error, Busy) else 0.0
    pause = _FIRST_PAUSE_S * 2 ** (failures - 1) * random.uniform(0.5, 1.0)  # not all clients at the same moment
    pause = min(max(pause, asked), _LONGEST_PAUSE_S)
    told = {"stage": error.stage, "kind": error.kind, "message": str(error), "failures": failures, "pause_s": pause}
    _log.info("store_retry", extra={"fields": told})
    time.sleep(pause)
