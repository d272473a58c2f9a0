"""The rounds that make a job complete: what a round has lost is run again in the next one.

Duty: give recordings to a runner and its answers to the ledger, until each has its row. Knows no Ray: `run.py` has the
runner on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from pipeline import hops
from pipeline.deaths import Watcher
from pipeline.ledger import Ledger
from pipeline.stages import Plan, in_process
from pipeline.types import Failure, Outcome, Recording

_log = logging.getLogger(__name__)

ROUNDS = 3  # in a row that finish nothing
LOST = Failure(
    "worker", "lost", f"no answer in {ROUNDS} rounds that finished nothing: its worker died or its block was lost", True
)

Runner = Callable[[Plan, Sequence[Recording]], Generator[pa.Table, None, None]]


def complete(
    plan: Plan, ledger: Ledger, recordings: Sequence[Recording], runner: Runner
) -> Generator[tuple[list[Any], int], None, None]:
    """Run `recordings` until the ledger has a row for each; yield what finished, and samples received, as it comes.

    What a round has lost is run again as long as rounds finish anything: where machines come and go there may be many.
    """
    if isinstance(runner, Watcher):
        runner.watch(ledger.deaths)
    number = fruitless = 0
    while recordings and fruitless < ROUNDS:
        number += 1
        _tell_round(number, recordings)
        with closing(runner(plan, recordings)) as tables:
            for table in tables:
                items = list(hops.read_answers(table))
                yield ledger.receive(items), sum(len(item.span) for item in items if not isinstance(item, Outcome))
        before, recordings = len(recordings), ledger.missing()
        fruitless = 0 if len(recordings) < before else fruitless + 1
    for recording in recordings:
        yield [ledger.quarantine(recording, LOST)], 0


def _tell_round(number: int, recordings: Sequence[Recording]) -> None:
    _log.info("round", extra={"fields": {"round": number, "recordings": len(recordings)}})
    if number > 1 and _log.isEnabledFor(logging.INFO):
        for recording in recordings:
            fields = {"recording_id": recording.id, "uri": recording.uri, "stage": LOST.stage, "round": number}
            _log.info("retry", extra={"fields": fields})


def local(plan: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
    """Runner in this process: no Ray, one recording after the other."""
    yield from in_process(plan, (hops.recordings_table([recording]) for recording in recordings))
