"""Many recordings read at the same time, in the order of the work: the seam between this machine and a cluster.

Duty: what reads a recording (`Reader`), what reads many (`Readers`), that in threads of this process, and how a reading
travels between processes. Knows no Ray, whose readers are in `run.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from pipeline.readings import Reading, Row, new_spool
from pipeline.types import Failure

Work = Iterable[tuple[Row, Sequence[Row]]]  # recordings with their candidates

PIECE = 16 << 20  # bytes of encoded clips that travel at a time: no process holds all of a long recording's


class Reader(Protocol):
    """Reads a recording. It is sent to where that is done."""

    def __call__(self, recording: Row, rows: Sequence[Row]) -> Reading:
        """Read the audio of the candidates `rows`."""
        ...

    def given_up(self, recording: Row, rows: Sequence[Row], failure: Failure) -> Reading:
        """Return what becomes of a recording that cannot be read."""
        ...

    def weight(self, recording: Row, rows: Sequence[Row]) -> int:
        """Return how many bytes of clips may come of it; without any it takes no audio at all."""
        ...


class Readers(Protocol):
    """Read many recordings at the same time."""

    def __call__(self, work: Work, reader: Reader) -> Iterator[Reading]:
        """Yield the readings in the order of `work`, of which only so much is taken as is read soon."""
        ...


class Threads:
    """Readers of this process. Threads are enough: ffmpeg is a process of its own, libraries work outside the lock."""

    def __init__(self, workers: int) -> None:
        """`workers` recordings are read at a time."""
        self._workers = workers

    def __call__(self, work: Work, reader: Reader) -> Iterator[Reading]:
        """See `Readers`."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="clips") as pool:
            waiting: deque[Future[Reading]] = deque()
            try:
                for recording, rows in work:
                    waiting.append(pool.submit(reader, recording, rows))
                    if len(waiting) >= 2 * self._workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


def sent(reading: Reading) -> Iterator[bytes | Reading]:
    """Yield what of a reading is sent: its clips' files in pieces, then the rest. Closes it."""
    if reading.spool is not None:
        reading.spool.seek(0)
        while piece := reading.spool.read(PIECE):
            yield piece
        reading.close()
    yield replace(reading, spool=None, kept=[replace(clip, spool=None) for clip in reading.kept])


def received(parts: Iterable[bytes | Reading]) -> Reading:
    """Return the reading whose parts these are."""
    spool = new_spool()
    try:
        for part in parts:
            if isinstance(part, Reading):
                return replace(part, spool=spool, kept=[replace(clip, spool=spool) for clip in part.kept])
            spool.write(part)
        raise EOFError("a reading ended before its rows")
    except BaseException:
        spool.close()
        raise
