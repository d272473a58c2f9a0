"""A plan in a process of its own, watched by this one: for a job in one process whose driver has died before.

What kills the process at work (a fault of a library, the kernel for want of memory) leaves the driver alive, which then
knows what was in hand. That is tried again one recording at a time, behind all others; a recording at which ALONE
processes have died with nothing else in hand is given up. Knows plans and recordings; no Ray, no ledger.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pyarrow as pa

from pipeline import hops, logs, metrics
from pipeline.attempts import KILLED, recording_of
from pipeline.deaths import Deaths
from pipeline.errors import UserError
from pipeline.recordings import Recordings
from pipeline.stages import Plan, in_process
from pipeline.types import Outcome, Recording

ALONE = 3  # deaths, the first of them with others in hand
Work = dict[str, metrics.Reading]  # by stage
Plain = Callable[[Plan, Sequence[Recording]], Generator[pa.Table, None, None]]


class LocalRunner:
    """Runner on this machine without Ray: a loop in this process, unless a driver or a worker has died before."""

    def __init__(self, plain: Plain) -> None:
        """`plain` is the loop in this process."""
        self._plain = plain
        self._deaths: Deaths | None = None
        self._work: list[Work] = []  # of processes that were watched
        metrics.restart()

    def watch(self, deaths: Deaths) -> None:
        """See `pipeline.deaths.Watcher`."""
        self._deaths = deaths

    def __call__(self, plan: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
        """Stream `recordings` through `plan`."""
        if self._deaths is not None and (self._deaths.followed or self._deaths.known):
            yield from self._watched(plan, recordings, self._deaths)
        else:
            yield from self._plain(plan, recordings)

    def work(self) -> Mapping[str, list[metrics.Reading]]:
        """Return what each process has done so far, by stage."""
        found: dict[str, list[metrics.Reading]] = {}
        for one in (metrics.readings(), *self._work):
            for stage, reading in one.items():
                found.setdefault(stage, []).append(reading)
        return found

    def _watched(self, plan: Plan, recordings: Sequence[Recording], deaths: Deaths) -> Generator[pa.Table, None, None]:
        counts, ends = Counter[str](), dict[str, str]()
        for key, count in deaths.known.items():
            counts[recording_of(key)] = max(count, counts[recording_of(key)])
        every = Recordings.of(recordings)
        # In any order: where not only the process at work dies but all of them, what stands behind gets its turn, too.
        fresh = every.where(~every.among(counts)).shuffled()
        while fresh:
            handed, end = yield from self._process(plan, fresh, together=True)
            if end is None:
                break
            in_hand = [one for one in handed if deaths.wanted(one.id)]
            counts.update(one.id for one in in_hand)
            ends |= dict.fromkeys((one.id for one in in_hand), end)
            deaths.note(counts)
            fresh = fresh[len(handed) :]
        suspects = list(every.where(every.among(counts)))
        while left := [one for one in suspects if deaths.wanted(one.id) and counts[one.id] < ALONE]:
            handed, end = yield from self._process(plan, left, together=False)
            if end is None:
                break
            counts[handed[-1].id] += 1
            ends[handed[-1].id] = end
            deaths.note(counts)
        if killers := [one for one in suspects if deaths.wanted(one.id) and counts[one.id] >= ALONE]:
            yield hops.transcripts_table(_killed(one, ends.get(one.id, "")) for one in killers)

    def _process(
        self, plan: Plan, recordings: Sequence[Recording], *, together: bool
    ) -> Generator[pa.Table, None, tuple[list[Recording], str | None]]:
        """Run a plan in a process; return what was handed to it, and of what it has died, if it has."""
        handed, work = list[Recording](), dict[str, metrics.Reading]()
        self._work.append(work)
        with _process(plan, together) as (pipe, process):
            source = iter(recordings)
            while True:
                try:
                    word, value = pipe.recv()
                except (EOFError, ConnectionError):
                    break
                if word == "table":
                    yield value
                elif word == "error":
                    raise value
                else:
                    work |= value
                    one = next(source, None)
                    with contextlib.suppress(ConnectionError):
                        pipe.send(None if one is None else hops.recordings_table([one]))
                    handed += [] if one is None else [one]
            process.join()
        code = process.exitcode or 0
        if code > 0:
            raise RuntimeError(f"the process at work ended with {code} and has not said why")
        end = signal.Signals(-code).name if code else None
        if end is not None and not handed:
            hint = "see how much memory is free; --model takes a smaller one"
            raise UserError(f"the process at work died ({end}) before it began with any recording", hint)
        return handed, end


@contextmanager
def _process(plan: Plan, together: bool) -> Iterator[tuple[Connection, SpawnProcess]]:
    """Start a process that works; it ends with the context, and with this process."""
    lines = logs.active()
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    told = (lines.run_id or "") if lines else None
    process = spawn.Process(target=_work, args=(theirs, plan, together, told), name="work", daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours, process
    finally:
        if process.is_alive():
            process.kill()
            process.join()
        ours.close()


def _work(pipe: Connection, plan: Plan, together: bool, run_id: str | None) -> None:
    """Be the process: ask for recordings one at a time, send what becomes of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    with contextlib.suppress(OSError):  # the kernel, in want of memory, shall take this one and not the driver
        Path("/proc/self/oom_score_adj").write_text("1000")
    if run_id is not None:
        logs.start(run_id or None)
    try:
        asked = iter(partial(_ask, pipe), None)
        for table in in_process(plan, asked) if together else _one_by_one(plan, asked):
            pipe.send(("table", table))
    except Exception as error:  # noqa: BLE001 (it is raised in the driver)
        error.add_note("".join(traceback.format_exception(error)))
        pipe.send(("error", error))
        raise SystemExit(1) from None


def _ask(pipe: Connection) -> pa.Table | None:
    pipe.send(("next", metrics.readings()))
    return pipe.recv()


def _one_by_one(plan: Plan, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Run a plan so that nothing of a table is in hand any more when the next one begins."""
    transforms = [stage.make() for stage in plan]
    for table in tables:
        made: Iterable[pa.Table] = [table]
        for transform in transforms:
            made = transform(made)
        yield from made


def _end_with_the_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)


def _killed(recording: Recording, end: str) -> Outcome:
    words = f"{ALONE} processes died at it" + (f", the last by {end}" if end else "")
    failure = replace(KILLED, message=f"{words}: out of memory, or a fault of a library")
    return Outcome(recording, passages=0, duration=0, speech=0, failure=failure)
