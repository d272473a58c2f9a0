"""The one writer: puts recordings together, commits them as Parquet, knows what is still to do.

    OUT/recordings/part-*.parquet   one row a recording       OUT/runs/RUN_ID.json   options, versions, counts, timings
    OUT/segments/part-*.parquet     one row a segment         OUT/_staging           what is not yet committed
    OUT/words/part-*.parquet        one row a word, where there are any

Recordings in = rows out, each exactly once, whatever dies. The parts of a commit appear as one step (`commits.py`):
naming them by a journal, and not by the recordings part alone, lets a recording that is done again be replaced inside
its old part in the same step as fresh ones are added, and leaves no orphans to readers of the table folders.
A part has the same name in each of its tables; its segments part is written even when it is empty.
Knows Arrow and storage; nothing of Ray, audio or models.
"""

from __future__ import annotations

import io
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import commits, rows, run_files, score, storage
from pipeline.errors import UserError
from pipeline.run_files import config_hash
from pipeline.types import SAMPLE_RATE, Failure, Finished, Outcome, Recording, Transcript, setting
from schemas.recordings import RECORDINGS
from schemas.segments import SEGMENTS
from schemas.words import WORDS

__all__ = ["FORMAT", "Ledger", "LedgerOptions", "config_hash"]

TABLES = {"segments": SEGMENTS, "words": WORDS, "recordings": RECORDINGS}  # in the order in which they appear
FORMAT = {b"bulkscribe.format": b"1"}  # in the metadata of each part's schema
_SCANNED = ["recording_id", "version", "status", "retryable", "config_hash"]


@dataclass(frozen=True)
class LedgerOptions:
    """When the buffer is committed: a part should be neither tiny nor large, and a crash should cost little."""

    flush_recordings: int = setting(10_000, "Commit when so many recordings are complete.", rows=False)
    flush_segments: int = setting(200_000, "Commit when they have so many segments.", rows=False)
    flush_words: int = setting(2_000_000, "Commit when they have so many words.", rows=False)
    flush_s: float = setting(30.0, "Commit what is complete after this time.", "s", rows=False)
    flush_share: float = setting(0.01, "But not before this share of the run's time has passed.", rows=False)
    flush_load: float = setting(0.1, "And spend no more than about this share of the time on it.", rows=False)


class Ledger:
    """The tables of one output folder, open for one run. Use it as a context manager; `open` makes it."""

    def __init__(
        self, out: str, run: dict[str, Any], done: pa.Table, parts: Sequence[str], options: LedgerOptions
    ) -> None:
        """Take what `open` has found: `done` has a row a recording, with the index of its part in `parts`."""
        self._out, self._run, self._done, self._parts, self._options = out, run, done, parts, options
        self._retry_failed: bool = run["retry_failed"]
        self._todo: dict[str, Recording] = {}
        self._half: dict[str, _Half] = defaultdict(_Half)
        self._old: dict[str, _Old] = {}  # of those to do
        self._tally = _Tally()
        self._written = 0  # rows that this run has added
        self._batches = 0
        self._batch = self._new_batch()
        self._begun = self._flushed = time.monotonic()
        self._flush_took = 0.0  # the last one; seconds
        self._open = True

    @classmethod
    def open(
        cls,
        out: str,
        config: Mapping[str, Any],
        *,
        model: str,
        retry_failed: bool = False,
        run: Mapping[str, Any] | None = None,
        options: LedgerOptions = LedgerOptions(),  # noqa: B008 (frozen)
    ) -> Ledger:
        """Finish or undo what a dead run has left in `out`, and read what is done there. Writes nothing else yet.

        `config` is everything that changes rows, `run` whatever else is to stand in the run's file. Raises UserError
        when `out` holds rows of another configuration, or files that are not bulkscribe's where its tables belong.
        """
        commits.recover(out)
        parts = _check_parts(out)
        done, hashes = _scan(out, parts)
        for other in sorted(hashes - {config_hash(config)}):
            raise _other_config(out, other, config)
        record = {
            "run_id": run_files.new_run_id(),
            "status": "running",
            "started_at": run_files.now(),
            "model": model,
            "config_hash": config_hash(config),
            "config": dict(config),
            "retry_failed": retry_failed,
            "run": dict(run or {}),
            "versions": run_files.versions(),
        }
        return cls(out, record, done, parts, options)

    @property
    def done(self) -> int:
        """How many recordings have a row in the output."""
        return len(self._done) + self._written

    @property
    def run_id(self) -> str:
        """Id of this run: its file is OUT/runs/RUN_ID.json."""
        return str(self._run["run_id"])

    def todo(self, recordings: Iterable[Recording]) -> list[Recording]:
        """Return those that are not done, each once, in order. Where there are any, the run's file is written.

        Done is what has a row with the same version; with `retry_failed`, not if it failed, or failed in part for a
        reason that may pass.
        """
        unique: dict[str, Recording] = {}
        for recording in recordings:
            unique.setdefault(recording.id, recording)
        where = pc.index_in(pa.array(unique, pa.string()), value_set=self._done["recording_id"].combine_chunks())
        found = self._done.select(["version", "status", "retryable", "part"]).take(where)
        self._todo, self._old = {}, {}
        columns = zip(*(column.to_pylist() for column in found.columns), strict=True)
        for recording, (version, status, retryable, part) in zip(unique.values(), columns, strict=True):
            same = version == recording.version
            again = self._retry_failed and (status == "failed" or bool(retryable))
            if same and not again:
                continue
            self._todo[recording.id] = recording
            if part is not None:
                self._old[recording.id] = _Old(self._parts[part], keep=same and status == "partial")
        if self._todo:
            self._write_run()
        return list(self._todo.values())

    def receive(self, items: Iterable[Transcript | Outcome]) -> list[Finished]:
        """Take material in any order; return the recordings that it completes, and commit when it is time.

        What came before is ignored when it comes again, as is all material of recordings that are not to do.
        """
        finished = []
        for item in items:
            id_ = item.recording.id if isinstance(item, Outcome) else item.recording_id
            if id_ not in self._todo:
                continue
            half = self._half[id_]
            half.take(item)
            if half.outcome is not None and half.complete:
                finished.append(score.finish(half.transcripts.values(), half.outcome))
                self._complete(finished[-1])
        self._flush_if_due()
        return finished

    def missing(self) -> list[Recording]:
        """Return those of `todo` that are not complete: a next round runs them again, whole.

        What is half received stays: a later answer for the same passage takes the place of an earlier one.
        """
        return list(self._todo.values())

    def quarantine(self, recording: Recording, failure: Failure) -> Finished:
        """Write a recording of `todo` off: its row says `failure`. What is half received of it is dropped."""
        finished = score.finish([], Outcome(recording, passages=0, duration=0, speech=0, failure=failure))
        self._complete(finished)
        self._flush_if_due()
        return finished

    def flush(self) -> None:
        """Commit what is complete. Interrupted, it may be done again: the same rows go to the same places."""
        if self._batch.finished:
            begun = time.monotonic()
            commits.commit(self._out, self._files(self._batch))
            self._written += sum(item.outcome.recording.id not in self._old for item in self._batch.finished)
            self._batch = self._new_batch()
            self._flushed = time.monotonic()
            self._flush_took = self._flushed - begun
            self._tally.flush_s += self._flush_took

    def close(self) -> None:
        """Commit what is complete, and end the run's file: finished when nothing is missing, else interrupted."""
        if not self._open:
            return
        self.flush()
        if self._run["status"] != "running" or not self._tally_file:
            return
        self._open = False

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, whatever the reason: complete recordings are committed when the job is interrupted or breaks."""
        self.close()
