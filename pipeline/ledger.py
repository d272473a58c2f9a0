"""The one writer: puts recordings together, commits them as Parquet, knows what is still to do.

    OUT/recordings/part-*.parquet   one row a recording       OUT/runs/RUN_ID.json   options, versions, counts, timings
    OUT/segments/part-*.parquet     one row a segment         OUT/_staging           what is not yet committed
    OUT/words/part-*.parquet        one row a word, where there are any
    OUT/speakers/part-*.parquet     one row a speaker of a recording, likewise

Recordings in = rows out, each exactly once, whatever dies. The parts of a commit appear as one step (`commits.py`):
naming them by a journal, and not by the recordings part alone, lets a recording that is done again be replaced inside
its old part in the same step as fresh ones are added, and leaves no orphans to readers of the table folders.
A part has the same name in each of its tables; its segments part is written even when it is empty.
Knows Arrow and storage; nothing of Ray, audio or models.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import commits, parts, run_files, storage
from pipeline.books import TRANSCRIPTS, Book, Stamp
from pipeline.deaths import Deaths
from pipeline.errors import UserError
from pipeline.lease import Lease
from pipeline.recordings import Index, Recordings
from pipeline.run_files import config_hash
from pipeline.spool import Spooled
from pipeline.types import (
    AT_LEAST_ONE,
    NOT_NEGATIVE,
    SAMPLE_RATE,
    SHARE,
    Failure,
    Look,
    Outcome,
    Recording,
    Transcript,
    setting,
)

__all__ = ["Ledger", "LedgerOptions", "config_hash"]


_log = logging.getLogger(__name__)

Answer = Transcript | Look  # of the engine, to a passage


@dataclass(frozen=True)
class LedgerOptions:
    """When the buffer is committed: a part should be neither tiny nor large, and a crash should cost little."""

    flush_recordings: int = setting(
        10_000, "Commit when so many recordings are complete.", rows=False, within=AT_LEAST_ONE
    )
    flush_segments: int = setting(200_000, "Commit when they have so many segments.", rows=False, within=AT_LEAST_ONE)
    flush_words: int = setting(2_000_000, "Commit when they have so many words.", rows=False, within=AT_LEAST_ONE)
    flush_s: float = setting(30.0, "Commit what is complete after this time.", "s", rows=False, within=NOT_NEGATIVE)
    flush_share: float = setting(
        0.01, "But not before this share of the run's time has passed.", rows=False, within=SHARE
    )
    flush_load: float = setting(
        0.1, "And spend no more than about this share of the time on it.", rows=False, within=SHARE
    )


class Ledger:
    """The tables of one output folder, open for one run. Use it as a context manager; `open` makes it."""

    def __init__(
        self,
        out: str,
        run: dict[str, Any],
        done: Spooled,
        names: Sequence[str],
        options: LedgerOptions,
        lease: Lease,
        book: Book,
    ) -> None:
        """Take what `open` has found: `done` has a row a recording, with the index of its part in `names`."""
        self._book = book
        self._out, self._run, self._names, self._options, self._lease = out, run, names, options, lease
        self._done: Spooled | None = done  # until it is known what is to do
        self._rows = len(done)
        self.deaths = Deaths(out, self._is_open, followed=lease.followed)
        self._retry_failed: bool = run["retry_failed"]
        none = Recordings.of([])
        self._set_todo(none, Index(none), np.empty(0, np.bool_), _Standing.nowhere(0))
        self._half: dict[str, _Half] = defaultdict(_Half)
        self._counts: dict[str, float] = dict.fromkeys(("ok", "partial", "failed", *book.counted), 0)
        self._failures: Counter[str] = Counter()
        self._audio = self._speech = 0  # samples
        self._batches = 0
        self._batch = self._new_batch()
        self._begun = self._flushed = time.monotonic()
        self._flush_took = self._commit_s = 0.0  # the last commit, all commits; seconds
        self._closed = False

    @classmethod
    def open(
        cls,
        out: str,
        config: Mapping[str, Any],
        *,
        model: str,
        book: Book = TRANSCRIPTS,
        retry_failed: bool = False,
        take_over: bool = False,
        run: Mapping[str, Any] | None = None,
        options: LedgerOptions = LedgerOptions(),
    ) -> Ledger:
        """Finish or undo what a dead run has left in `out`, and read what is done there. Writes nothing else yet.

        `config` is everything that changes rows, `run` whatever else is to stand in the run's file. Raises UserError
        when another driver writes to `out` (unless it is to be taken over), when `out` holds rows of another
        configuration, or files that are not bulkscribe's where its tables belong.
        """
        run_id = run_files.new_run_id()
        lease = Lease.take(out, run_id, over=take_over)
        try:
            commits.recover(out)
            names = parts.names(out, book.layout)
            done, hashes = parts.scan(out, book.layout, names)
            for other in sorted(hashes - {config_hash(config)}):
                raise _other_config(out, book.what, other, config)
        except BaseException:
            lease.release()
            raise
        record = {
            "run_id": run_id,
            "status": "opened",
            "holds": book.what,
            "started_at": run_files.now(),
            "model": model,
            "config_hash": config_hash(config),
            "config": dict(config),
            "retry_failed": retry_failed,
            "run": dict(run or {}),
            "versions": run_files.versions(),
        }
        return cls(out, record, done, names, options, lease, book)

    @property
    def done(self) -> int:
        """How many recordings have a row in the output."""
        return self._rows

    @property
    def run_id(self) -> str:
        """Id of this run: its file is OUT/runs/RUN_ID.json."""
        return str(self._run["run_id"])

    def todo(self, recordings: Iterable[Recording], outdated: Collection[str] = ()) -> Recordings:
        """Return those that are not done, each once, in order. Ask once; where there are any, the run gets its file.

        Done is what has a row with the same version, unless its id is among the `outdated`; with `retry_failed`, not if
        it failed, or failed in part for a reason that may pass. All is done on columns: a list of ten million must not
        become as many objects.
        """
        assert self._done is not None, "asked before"
        every = Recordings.of(recordings).unique()
        index, standing = Index(every), _Standing.nowhere(len(every))
        same, failed = np.zeros((2, len(every)), np.bool_)
        for done in self._done.tables(parts.DONE.names):
            places = index.find(done["recording_id"].to_pylist())
            done, places = done.filter(pa.array(places >= 0)), places[places >= 0]
            now = every.take(places).table(["version"])["version"]
            # What cannot be looked at now (an expired signature, a store in trouble) has no version: its row stands.
            unseen = pc.and_(pc.equal(now, ""), pc.is_valid(done["version"]))
            same[places] = _surely(pc.or_kleene(pc.equal(done["version"], now), unseen))
            failed[places] = _surely(pc.or_kleene(pc.equal(done["status"], "failed"), done["retryable"]))
            standing.part[places] = done["part"].to_numpy()
            standing.heard_s[places] = pc.fill_null(done["heard_s"], 0.0).to_numpy()
        self._done = None
        if outdated:
            same &= ~every.among(outdated)
        left = ~same
        if self._retry_failed:
            left |= failed
        standing.heard_s[~same] = 0.0
        self._set_todo(every, index, left, standing)
        self.deaths.start_anew(lambda id_: self._is_open(id_) and self._old(id_) is None)
        if self._left:
            self._write_run("running")
        return self.missing()

    def note(self, **values: Any) -> None:
        """Keep `values` for the file of the run."""
        self._run |= values

    def receive(self, items: Iterable[Answer | Outcome]) -> list[Any]:
        """Take material in any order; return the recordings that it completes, and commit when it is time.

        They are what the book makes of them: `Finished`, `Survey` or `Review`.
        What came before is ignored when it comes again, as is all material of recordings that are not to do.
        """
        finished = []
        for item in items:
            id_ = item.recording.id if isinstance(item, Outcome) else item.recording_id
            if id_ not in self._half and not self._is_open(id_):
                continue
            half = self._half[id_]
            half.take(item)
            whole = half.whole(self._book)
            if whole is not None:
                self._complete(whole)
                finished.append(whole)
        self._flush_if_due()
        return finished

    def missing(self) -> Recordings:
        """Return those of `todo` that are not complete: a next round runs them again, whole.

        What is half received stays: a later answer for the same passage takes the place of an earlier one.
        """
        return self._every.where(self._open)

    def quarantine(self, recording: Recording, failure: Failure) -> Any:
        """Write a recording of `todo` off: its row says `failure`. What is half received of it is dropped."""
        finished = self._book.whole([], Outcome(recording, passages=0, duration=0, speech=0, failure=failure))
        self._complete(finished)
        self._flush_if_due()
        return finished

    def take(self, finished: Any) -> bool:
        """Take a recording that is complete already, if it is to do; return whether it was."""
        if not self._is_open(finished.outcome.recording.id):
            return False
        self._complete(finished)
        self._flush_if_due()
        return True

    def flush(self) -> None:
        """Commit what is complete. Interrupted, it may be done again: the same rows go to the same places."""
        if self._batch.finished:
            begun, part, recordings = time.monotonic(), self._batch.part, len(self._batch.finished)
            self._lease.confirm()
            commits.commit(self._out, self._files(self._batch))
            self._rows += sum(self._old(item.outcome.recording.id) is None for item in self._batch.finished)
            self._batch = self._new_batch()
            self._flushed = time.monotonic()
            self._flush_took = self._flushed - begun
            told = {"part": part, "recordings": recordings, "took_s": round(self._flush_took, 3)}
            _log.info("commit", extra={"fields": told})
            self._commit_s += self._flush_took

    def close(self) -> None:
        """Commit what is complete, and end the run's file: finished when nothing is missing, else interrupted."""
        if self._closed:
            return
        self.flush()
        if self._run["status"] == "running":
            self._write_run("interrupted" if self._left else "finished")
        if self._done is None and not self._left:
            self.deaths.forget()
        self._lease.release()
        self._closed = True

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, whatever the reason: complete recordings are committed when the job is interrupted or breaks."""
        self.close()

    def _set_todo(self, every: Recordings, index: Index, left: NDArray[np.bool_], standing: _Standing) -> None:
        """Take what the run is about, which of it is to do, and where each stands already."""
        self._every, self._index, self._standing = every, index, standing
        self._open = left.copy()  # not complete
        self._left = self._asked = int(left.sum())

    def _is_open(self, id_: str) -> bool:
        place = self._index.get(id_)
        return place is not None and bool(self._open[place])

    def _old(self, id_: str) -> _Old | None:
        """Return where a recording that is to do stands already, if it does."""
        place = self._index.get(id_)
        if place is None or self._standing.part[place] < 0:
            return None
        return _Old(self._names[self._standing.part[place]], float(self._standing.heard_s[place]))

    def _complete(self, finished: Any) -> None:
        """Put a recording in the batch, then strike it off: interrupted in between it is written all the same."""
        id_ = finished.outcome.recording.id
        place = self._index.get(id_)
        assert place is not None, f"{id_} is not to do"
        old = self._old(id_)
        heard_s = finished.outcome.duration / SAMPLE_RATE
        if not (old and finished.outcome.failure and heard_s < old.duration_s):  # a failed retry takes no text away
            self._batch.finished.append(finished)
            self._batch.sizes.update(self._book.sizes(finished))
        self._count(finished)
        self._half.pop(id_, None)
        self._open[place] = False
        self._left -= 1

    def _flush_if_due(self) -> None:
        options, batch, now = self._options, self._batch, time.monotonic()
        full = (
            len(batch.finished) >= options.flush_recordings
            or batch.sizes["segments"] >= options.flush_segments
            or batch.sizes["words"] >= options.flush_words
        )
        wait = max(options.flush_s, options.flush_share * (now - self._begun), self._flush_took / options.flush_load)
        if full or now - self._flushed >= wait:
            self.flush()

    def _new_batch(self) -> _Batch:
        self._batches += 1
        return _Batch(f"part-{self.run_id}-{self._batches:05d}.parquet")

    def _files(self, batch: _Batch) -> Iterator[tuple[str, bytes]]:
        """Yield the part files of a commit: one new part, and each old part that holds a recording done again."""
        by_part: dict[str, list[Any]] = defaultdict(list)
        for item in batch.finished:
            old = self._old(item.outcome.recording.id)
            by_part[old.part if old else batch.part].append(item)
        for part, finished in sorted(by_part.items()):
            ids = [item.outcome.recording.id for item in finished]
            stamp = Stamp(part, self._run["model"], self._run["config_hash"], self.run_id)
            for table, new in self._book.tables(finished, stamp):
                old = None if part == batch.part else parts.read(self._out, table, part)
                if old is not None:
                    new = parts.replaced(old, new, ids)
                if new.num_rows or old is not None or table not in self._book.layout.optional:
                    yield f"{table}/{part}", parts.encode(new)

    def _count(self, finished: Any) -> None:
        outcome: Outcome = finished.outcome
        self._counts[outcome.status] += 1
        for name, count in self._book.counts(finished).items():
            self._counts[name] += count
        self._audio += outcome.duration
        self._speech += outcome.speech
        if outcome.failure is not None:
            self._failures[f"{outcome.failure.stage}/{outcome.failure.kind}"] += 1

    def _write_run(self, status: str) -> None:
        self._run |= {"status": status, "to_do": self._asked}
        if status != "running":
            self._run |= {
                "ended_at": run_files.now(),
                "counts": {name: round(count, 1) for name, count in self._counts.items()},
                "failures": dict(self._failures),
                "audio_s": round(self._audio / SAMPLE_RATE, 3),
                "speech_s": round(self._speech / SAMPLE_RATE, 3),
                "wall_s": round(time.monotonic() - self._begun, 3),
                "commit_s": round(self._commit_s, 3),
            }
        self._lease.confirm()
        run_files.write(self._out, self.run_id, self._run)


@dataclass
class _Half:
    """What has come of a recording."""

    answers: dict[int, Answer] = field(default_factory=dict)
    outcome: Outcome | None = None

    def take(self, item: Answer | Outcome) -> None:
        if isinstance(item, Outcome):
            self.outcome = item
        else:
            self.answers[item.passage] = item

    def whole(self, book: Book) -> Any:
        """Return the recording when its passages are all there, and the book says that they are what it consists of."""
        if self.outcome is None or not all(index in self.answers for index in range(self.outcome.passages)):
            return None
        return book.whole([self.answers[index] for index in range(self.outcome.passages)], self.outcome)


@dataclass(frozen=True, slots=True)
class _Standing:
    """Of each recording, the index of its part (-1: none), and what of this version was heard then."""

    part: NDArray[np.int32]
    heard_s: NDArray[np.float64]

    @classmethod
    def nowhere(cls, count: int) -> _Standing:
        return cls(np.full(count, -1, np.int32), np.zeros(count))


@dataclass(frozen=True, slots=True)
class _Old:
    """Where a recording that is done again stands, and how much of this version was heard then."""

    part: str
    duration_s: float


@dataclass
class _Batch:
    """What is complete and not yet committed, and the name of its new part."""

    part: str
    finished: list[Any] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)


def _surely(found: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Return where something is true; what is not known is not."""
    surely: NDArray[np.bool_] = pc.fill_null(found, False).to_numpy()
    return surely


def _other_config(out: str, held: str, hash_: str, config: Mapping[str, Any]) -> UserError:
    old = run_files.find_config(out, hash_)
    if old is None:
        what = f"{hash_}, whose options are lost (no file in {storage.join(out, run_files.RUNS)} spells them out)"
        return UserError(f"{out} holds {held} of another configuration, {what}", "choose another --out")
    what = "; ".join(run_files.differences(old, config))
    return UserError(
        f"{out} holds {held} of another configuration: {what}",
        "choose another --out, or give the old options to go on with it",
    )
