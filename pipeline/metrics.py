"""What is measured while a job runs: the list of all metrics, and meters of the work that this process does.

Duty: names and meaning, adding up. Knows no Ray and no Prometheus: `run.py` exports what stands here.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pipeline.types import SAMPLE_RATE, Finished, Review, Survey

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Ray serves it as `ray_NAME`, a counter as `ray_NAME_total`."""

    name: str
    counter: bool  # else a gauge
    doc: str
    tags: tuple[str, ...] = ()


RECORDINGS = Metric("bulkscribe_recordings", True, "Recordings that are complete, by status.", ("status",))
AUDIO = Metric("bulkscribe_audio_seconds", True, "Seconds of audio decoded in complete recordings.")
SEGMENTS = Metric("bulkscribe_segments", True, "Segments of complete recordings.")
FAILURES = Metric("bulkscribe_failures", True, "Failed and partial recordings, by cause.", ("stage", "kind"))
LEFT = Metric("bulkscribe_recordings_left", False, "Recordings of this run that are not complete yet.")
BUSY = Metric("bulkscribe_busy_seconds", True, "Seconds in which a worker was at work, by stage.", ("stage",))
SHARE = Metric("bulkscribe_busy_share", False, "Share of its last seconds that a model actor had work in, 0 to 1.")
DEPTH = Metric("bulkscribe_queue_depth", False, "Passages that a model actor has taken and not answered yet.")
QUEUED = frozenset({"transcribe", "screen"})  # stages whose workers live long and have a queue
METRICS = (RECORDINGS, AUDIO, SEGMENTS, FAILURES, LEFT, BUSY, SHARE, DEPTH)


@dataclass(frozen=True, slots=True)
class Sample:
    """What to add to a counter, or to set a gauge to."""

    metric: Metric
    value: float
    tags: tuple[str, ...] = ()  # values, in the order of the metric's tags


def samples(finished: Iterable[Finished | Survey | Review], left: int) -> Iterator[Sample]:
    """Yield what recordings that are complete by now change."""
    sums: Counter[tuple[Metric, tuple[str, ...]]] = Counter()
    for item in finished:
        outcome = item.outcome
        sums[RECORDINGS, (outcome.status,)] += 1
        sums[AUDIO, ()] += outcome.duration  # samples, which add up exactly
        if isinstance(item, Finished):
            sums[SEGMENTS, ()] += len(item.segments)
        if outcome.failure is not None:
            sums[FAILURES, (outcome.failure.stage, outcome.failure.kind)] += 1
    for (metric, tags), value in sums.items():
        yield Sample(metric, value / SAMPLE_RATE if metric is AUDIO else value, tags)
    yield Sample(LEFT, left)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a meter has seen so far."""

    alive_s: float  # since it was made
    busy_s: float  # of these, with something in hand
    queue_s: float  # items in hand, times seconds
    queue_max: int
    queue: int  # items in hand now

    def share_since(self, earlier: Reading) -> float:
        """Return the busy share of the time between two readings, 0 to 1."""
        passed_s = self.alive_s - earlier.alive_s
        return min(1.0, (self.busy_s - earlier.busy_s) / passed_s) if passed_s > 0 else 0.0


def worked(stage: str, now: Reading, last: Reading) -> Iterator[Sample]:
    """Yield what a worker's stage has done between two readings, and how it stands."""
    yield Sample(BUSY, now.busy_s - last.busy_s, (stage,))
    if stage in QUEUED:
        yield Sample(SHARE, now.share_since(last))
        yield Sample(DEPTH, now.queue)


NOTHING = Reading(0.0, 0.0, 0.0, 0, 0)


class Meter:
    """Watches what a stage has in hand, from any thread: it is at work while that is not nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = self._last = clock()
        self._busy_s = self._queue_s = 0.0
        self._queue = self._queue_max = 0

    def take(self) -> None:
        """Say that there is one item more in hand."""
        self._change(1)

    def give(self) -> None:
        """Say that one is done."""
        self._change(-1)

    def read(self) -> Reading:
        """Return what was seen up to now."""
        self._change(0)
        with self._lock:
            return Reading(self._last - self._begun, self._busy_s, self._queue_s, self._queue_max, self._queue)

    def _change(self, by: int) -> None:
        with self._lock:
            now = self._clock()
            passed_s, self._last = now - self._last, now
            self._busy_s += passed_s if self._queue else 0.0
            self._queue_s += passed_s * self._queue
            self._queue += by
            self._queue_max = max(self._queue_max, self._queue)


_meters: defaultdict[str, Meter] = defaultdict(Meter)  # of this process, which outlives the tasks that work in it


def meter(stage: str) -> Meter:
    """Return this process's meter of a stage."""
    return _meters[stage]


def readings() -> dict[str, Reading]:
    """Return what this process has done, by stage."""
    return {stage: one.read() for stage, one in list(_meters.items())}


def restart() -> None:
    """Forget what this process has done: another job begins."""
    _meters.clear()


def timed(stage: str, items: Iterable[T]) -> Iterator[T]:
    """Yield `items`; the time that they take, not that of whoever takes them, is work of `stage`."""
    watch, source = meter(stage), iter(items)
    while True:
        watch.take()
        try:
            item = next(source)
        except StopIteration:
            return
        finally:
            watch.give()
        yield item


REPORT_S = 2.0  # between two reports of a worker


class Reporter:
    """Tells what this process has done: to the driver by `put`, as metrics by `record`."""

    def __init__(self, put: Callable[[str, Reading], None], record: Callable[[Iterable[Sample]], None]) -> None:
        """`put` takes a stage and its reading up to now, `record` what has changed since the last report."""
        self._put, self._record = put, record
        self._lock = threading.Lock()
        self._reported = -REPORT_S
        self._last: dict[str, Reading] = {}

    def report(self, *, at_once: bool = False) -> None:
        """Report, if it is time or has to be `at_once`."""
        with self._lock:
            if not at_once and time.monotonic() - self._reported < REPORT_S:
                return
            self._reported = time.monotonic()
            for stage, reading in readings().items():
                self._put(stage, reading)
                self._record(worked(stage, reading, self._last.get(stage, NOTHING)))
                self._last[stage] = reading

    def keep_reporting(self) -> None:
        """Report from now on, in a thread: a worker without work must say so, too."""
        threading.Thread(target=self._forever, name="report", daemon=True).start()

    def _forever(self) -> None:
        while True:
            time.sleep(REPORT_S)
            self.report()


def summary(workers: Mapping[str, Iterable[Reading]]) -> dict[str, dict[str, float]]:
    """Return, by stage, what its workers (processes) did together: what stands in `OUT/runs/*.json`."""
    found = {}
    for stage, given in sorted(workers.items()):
        all_of = list(given)
        alive_s = sum(one.alive_s for one in all_of)
        found[stage] = {
            "workers": len(all_of),
            "alive_s": round(alive_s, 3),
            "busy_s": round(sum(one.busy_s for one in all_of), 3),
            "busy_share": round(sum(one.busy_s for one in all_of) / max(alive_s, 1e-9), 4),
            "queue_mean": round(sum(one.queue_s for one in all_of) / max(alive_s, 1e-9), 3),
            "queue_max": max((one.queue_max for one in all_of), default=0),
        }
    return found
