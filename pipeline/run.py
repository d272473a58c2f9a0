"""A plan on Ray Data: a runner for the rounds of a job. The only file that imports ray.

Blocks of recordings stream through the plan's stages, and transcripts come back to the driver. Those of a later round,
which a killed worker or a lost block has cost an answer, are each in a block of their own. Beside it readers of clips,
each recording a task of its own, for the jobs that make data sets.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from pipeline import hops, logs, metrics, storage
from pipeline.attempts import DEATHS, KILLED, Roll, Worker, tell
from pipeline.deaths import Deaths
from pipeline.errors import BulkscribeError, UserError
from pipeline.processes import started
from pipeline.ray_joining import failures_told, reach, same_sigterm, silent_stderr
from pipeline.ray_options import RayOptions
from pipeline.readers import Reader, Work, received, sent
from pipeline.readings import Reading, Row
from pipeline.recordings import Recordings, pack
from pipeline.stages import Plan, Stage, Transform
from pipeline.types import Outcome, Recording

if TYPE_CHECKING:
    import ray.data

_log = logging.getLogger(__name__)


class RayRunner:
    """Runner on Ray: joins the cluster, or starts Ray here, when it is first needed; `close` leaves it."""

    def __init__(self, options: RayOptions) -> None:
        """Start nothing yet."""
        self._options = options
        self._joined = False
        self._called = False
        self._told: Any = None
        self._deaths: Deaths | None = None
        self._id = secrets.token_hex(8)  # of what the workers report

    def watch(self, deaths: Deaths) -> None:
        """See `pipeline.deaths.Watcher`."""
        self._deaths = deaths

    def __call__(self, plan: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
        """Stream `recordings` through `plan`. Those that come again (of an earlier round) get a block each."""
        self.join()
        import ray.data

        again, self._called = self._called, True
        limit = 1 if again else min(200, -(-len(recordings) // LEAST_BLOCKS))
        every = Recordings.of(recordings)
        blocks = pack(every, limit)
        portion = min(MOST_BLOCKS, PORTION * max(stage.actors[1] if stage.actors else 1 for stage in plan))
        roll, killers = self._roll(), set[str]()
        lines = logs.active()
        job = _Job(self._id, roll, (lines.run_id or "") if lines else None)
        while some := [block.table() for block in islice(blocks, portion)]:
            dataset: ray.data.Dataset = ray.data.from_blocks(some)
            del some
            for stage in plan:
                dataset = _map(dataset, stage, job)
            try:
                with self._noting_deaths(roll):
                    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
                killers = ray.get(roll.killers.remote())
            except ray.exceptions.RayError as error:
                raise _cause(error) from None
        if killers:
            yield hops.transcripts_table(
                Outcome(recording, passages=0, duration=0, speech=0, failure=KILLED)
                for recording in every.where(every.among(killers))
            )

    def _roll(self) -> Any:
        """Return the actor that knows what each worker is at: one for all rounds of a job."""
        import ray

        if self._told is None:
            known = self._deaths.known if self._deaths else {}
            self._told = ray.remote(_Roll).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote(known)
        return self._told

    @contextmanager
    def _noting_deaths(self, roll: Any) -> Iterator[None]:
        """Keep for the next driver at what workers have died: in a thread, since no table may come for long."""
        import ray

        if self._deaths is None:
            yield
            return
        ended, deaths = threading.Event(), self._deaths

        def keep() -> None:
            while not ended.wait(LOOK_S):
                with suppress(ray.exceptions.RayError, UserError):  # what goes wrong shows at the next table, or commit
                    counts = ray.get(roll.suspects.remote(), timeout=LOOK_S)
                    if not ended.is_set():  # workers that end with an interrupted driver have not died of what they did
                        deaths.note(counts)

        thread = threading.Thread(target=keep, name="deaths", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def gpus(self) -> int:
        """Return how many GPUs the cluster has."""
        self.join()
        import ray

        return int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]

    def export(self, samples: Iterable[metrics.Sample]) -> None:
        """Add to the metrics of this process, which Ray serves to Prometheus where the extra `cluster` is installed."""
        if self._joined:
            _record(samples)

    def work(self) -> dict[str, list[metrics.Reading]]:
        """Return what each worker has done so far, by stage: those that have died, too."""
        found: defaultdict[str, list[metrics.Reading]] = defaultdict(list)
        if self._joined:
            from ray.experimental import internal_kv

            for key in internal_kv._internal_kv_list(f"{self._id}/", namespace=KV):
                value = internal_kv._internal_kv_get(key, namespace=KV)
                found[key.decode().split("/")[1]].append(metrics.Reading(**json.loads(value)))
        return dict(found)

    def close(self) -> None:
        """Leave the cluster; a Ray that was started here ends."""
        if self._joined:
            import ray
            from ray.experimental import internal_kv

            self._told = None
            internal_kv._internal_kv_del(f"{self._id}/", del_by_prefix=True, namespace=KV)
            ray.shutdown()
            self._joined = False

    def join(self) -> None:
        """Join or start Ray, quietly: what it says of itself goes to its own log files."""
        if self._joined:
            return
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
        os.environ |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
        os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"  # of tasks that were lost and are run again
        here: dict[str, Any] = {
            "num_cpus": max(4, os.cpu_count() or 1),  # tokens, not cores: reading, cutting and marking keep moving
            "include_dashboard": False,
            "object_store_memory": int(self._options.object_store_gb * 1e9),
            "_metrics_export_port": self._options.metrics_port or None,
        }
        address = self._options.address
        reach(address)
        with silent_stderr(), same_sigterm():
            import ray.data

            with failures_told(address):
                ray.init(
                    address or "local", logging_level=logging.ERROR, log_to_driver=False, **({} if address else here)
                )
        self._joined = True
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
            if logs.active():  # what Ray tells becomes an event, too
                logging.getLogger(name).handlers.clear()
                logging.getLogger(name).propagate = True
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.target_max_block_size = 16 << 20  # the first passages leave early: 9 minutes of PCM
        context.autoscaling_config.actor_pool_util_upscaling_threshold = GROW_AT
        context.execution_no_progress_timeout_s = -1  # one long recording may work alone for hours


class RayReaders:
    """Readers on a cluster, each recording a task on one CPU: see `pipeline.readers.Readers`. `close` leaves it."""

    def __init__(self, options: RayOptions, most: int, deaths: Deaths) -> None:
        """UserError when nobody answers; the cluster is joined when there is something to read.

        `most` recordings are at work or wait to be taken; with 0 twice as many as there are CPUs.
        """
        reach(options.address)
        self._ray, self._labels, self._most = RayRunner(options), options.decode_labels, most
        self._deaths, self._counts = deaths, dict(deaths.known)
        self._task: Any = None

    def __call__(self, work: Work, reader: Reader) -> Iterator[Reading]:
        """See `pipeline.readers.Readers`."""
        waiting: deque[_Errand] = deque()
        width = _Width(self._labels, self._most)
        for recording, candidates in work:
            errand = _Errand(reader, recording, candidates, self._counts)
            while waiting and not width.allows(waiting, errand):
                yield self._next(waiting)
            waiting.append(errand)
            if errand.weight:
                errand.start(self._joined())
            while waiting and not waiting[0].weight:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def close(self) -> None:
        """Leave the cluster."""
        self._task = None
        self._ray.close()

    def _joined(self) -> Any:
        """Return what sends a recording, once the cluster is joined."""
        if self._task is None:
            self._ray.join()
            import ray

            shape: dict[str, Any] = {"num_cpus": 1, "num_returns": "streaming", "max_retries": 0}
            shape |= {"label_selector": self._labels} if self._labels else {"scheduling_strategy": "SPREAD"}
            self._task = ray.remote(_read).options(**shape)
        return self._task

    def _next(self, waiting: deque[_Errand]) -> Reading:
        """Return what comes of the first in the row, and take it out. Whatever is lost on the way is read again."""
        while (reading := waiting[0].result()) is None:
            alive = _alive()
            for errand in waiting:
                if errand.is_lost(alive):
                    errand.start(self._task)
            self._deaths.note(self._counts)
        waiting.popleft()
        return reading


class _Errand:
    """A recording that is read somewhere."""

    def __init__(self, reader: Reader, recording: Row, rows: Sequence[Row], deaths: dict[str, int]) -> None:
        """`deaths` are those of workers by what they were at."""
        self.weight = reader.weight(recording, rows)
        self._id, self._deaths = recording["recording_id"], deaths
        self._reader, self._given = reader, (recording, rows)
        self._parts: Any = None  # Ray's references to what comes
        self._node: Any = None  # that to the node that it comes from
        self._gone = False

    def start(self, task: Any) -> None:
        """Send it; again, where it was lost. Ray's own retries would not tell how often workers have died at it."""
        if not self._is_killer():
            self._gone, self._node = False, None
            self._parts = task.remote(self._reader, storage.configured(), *self._given)

    def result(self) -> Reading | None:
        """Wait for its end; None where a worker, a node, or what lay there is gone. Nothing of it is kept elsewhere."""
        if not self.weight:
            return self._reader(*self._given)
        if self._is_killer():
            return self._reader.given_up(*self._given, KILLED)
        import ray

        try:
            if self._node is None:
                self._node = next(self._parts)
            ray.get(self._node)
            return received(ray.get(part) for part in self._parts)
        except ray.exceptions.RayError as error:
            self._gone = self._is_gone(error)
            if not self._gone:
                raise _cause(error) from None
            return None

    def is_lost(self, alive: set[str]) -> bool:
        """Say whether it has to be read again, without waiting."""
        if self._gone or self._parts is None:
            return self._gone
        import ray

        try:
            ray.get(ray.wait([self._parts.completed()], timeout=0)[0])
            if self._node is None and self._parts.next_ready():
                self._node = next(self._parts)
            self._gone = self._node is not None and ray.get(self._node) not in alive
        except ray.exceptions.RayError as error:
            self._gone = self._is_gone(error)  # another error shows up when it is its turn
        return self._gone

    def _is_killer(self) -> bool:
        return self._deaths.get(self._id, 0) >= DEATHS

    def _is_gone(self, error: Exception) -> bool:
        from ray import exceptions

        died = isinstance(error, (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError))
        if died:
            self._deaths[self._id] = self._deaths.get(self._id, 0) + 1
        return died or isinstance(error, (exceptions.NodeDiedError, exceptions.ObjectLostError))


def _read(reader: Reader, stores: storage.StoreOptions, recording: Row, rows: Sequence[Row]) -> Iterator[Any]:
    """Be the task: say where it runs, then send the reading."""
    import ray

    storage.configure(stores)
    yield ray.get_runtime_context().get_node_id()
    yield from sent(reader(recording, rows))


class _Width:
    """How many recordings may be on the way."""

    def __init__(self, labels: dict[str, str], most: int) -> None:
        self._labels, self._most = labels, most
        self._looked = -LOOK_S
        self._cpus = self._bytes = 0.0

    def allows(self, waiting: Sequence[_Errand], another: _Errand) -> bool:
        """Say whether another may be sent: the CPUs shall not wait for work, nor readings overflow where they lie."""
        if time.monotonic() - self._looked > LOOK_S:  # machines come and go
            self._look()
        weight = sum(errand.weight for errand in waiting) + another.weight
        return len(waiting) < (self._most or max(2, 2 * self._cpus)) and weight <= self._bytes

    def _look(self) -> None:
        import ray

        self._looked, self._cpus, self._bytes = time.monotonic(), 0.0, 0.0
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            has = node["Resources"]
            if node["Alive"] and has.get("CPU") and self._labels.items() <= node["Labels"].items():
                self._cpus += has["CPU"]
                self._bytes += has.get("object_store_memory", 0.0)


class _Actor:
    """A stage that lives in an actor: made once, called for block after block.

    `stage` is set by subclassing: Ray keeps what a constructor takes in the object store, which a restart may miss.
    """

    stage: ClassVar[Stage]
    job: ClassVar[_Job]

    def __init__(self) -> None:
        self.job.join()
        self._transform = self.stage.make()
        _reporter(self.job.id).keep_reporting()

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        yield from self._transform([table])
        _reporter(self.job.id).report(at_once=True)


def _task(make: Callable[[], Transform], job: _Job, table: pa.Table) -> Iterator[pa.Table]:
    job.join()
    for made in make()([table]):
        _reporter(job.id).report()
        yield made
    _reporter(job.id).report(at_once=True)


@dataclass(frozen=True)
class _Job:
    """What a worker is told of the job that it works for."""

    id: str  # where it reports
    roll: Any  # the actor to tell what it is at
    run_id: str | None  # of its events, which go to its own stderr; None where nobody wants them

    def join(self) -> None:
        """Let this process work for the job."""
        tell(_Told(self.roll))
        if self.run_id is not None:
            logs.start(self.run_id)


class _Told:
    """`Attempts` of a worker: tells the actor that calls the roll, and waits only where it asks."""

    def __init__(self, roll: Any) -> None:
        import ray

        context = ray.get_runtime_context()
        self._roll, self._worker = roll, Worker(context.get_node_id(), os.getpid(), started(os.getpid()))

    def begin(self, keys: Sequence[str]) -> dict[str, int]:
        import ray

        suspects: dict[str, int] = ray.get(self._roll.begin.remote(self._worker, keys)) if keys else {}
        return suspects

    def retry(self, key: str) -> None:
        self._roll.retry.remote(self._worker, key)

    def end(self, keys: Sequence[str]) -> None:
        self._roll.end.remote(self._worker, keys)


class _Roll(Roll):
    """The actor that calls the roll."""

    def __init__(self, known: dict[str, int]) -> None:
        super().__init__(_nodes, known)


def _nodes() -> tuple[str, set[str]]:
    """Return this process's node, and all that are alive."""
    import ray

    return ray.get_runtime_context().get_node_id(), _alive()


def _alive() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]


def _map(dataset: ray.data.Dataset, stage: Stage, job: _Job) -> ray.data.Dataset:
    import ray.data

    shape: dict[str, Any] = {
        "batch_format": "pyarrow",
        "batch_size": GPU_BATCH if stage.gpus else None,  # Ray wants a number for GPUs
        "num_cpus": stage.cpus,
        "num_gpus": stage.gpus,
    }
    if stage.labels:
        shape["label_selector"] = dict(stage.labels)
    if stage.actors is None:
        return dataset.map_batches(partial(_task, stage.make, job), **shape)
    low, high = stage.actors
    shape["memory"] = 1  # byte, of none that is counted: Ray runs stages of equal resources in the actors, too
    pool = ray.data.ActorPoolStrategy(
        min_size=low,
        max_size=high,
        max_concurrent_calls_per_actor=CALLS,
        enable_true_multi_threading=True,
    )
    return dataset.map_batches(type(stage.name.title(), (_Actor,), {"stage": stage, "job": job}), compute=pool, **shape)


LOOK_S = 5.0  # between two looks at who has died
LEAST_BLOCKS = 32  # of a job's recordings, so that all CPUs decode at a small job, too
# Blocks that Ray is given at once, for each actor and at most: it keeps all of them in its store, and some 20 KB for
# each in the driver, to the end. The actors start anew for the next portion, so that one should be hours of work: 5,000
# blocks are 1,000,000 short recordings or 320 GB of audio.
PORTION, MOST_BLOCKS = 5_000, 50_000
CALLS = 8  # blocks that one actor's engine draws from at once: it never drains between two
GROW_AT = 1.25  # times CALLS: with so many blocks at each actor the pool grows; Ray's 1.75 takes hours of audio
GPU_BATCH = 24  # passages of a call: with CALLS of them all slots of a GPU and those encoded ahead have one each


KV = "bulkscribe"  # where workers' reports stand in the cluster's key-value store, as RUN/STAGE/WORKER


@cache
def _reporter(run: str) -> metrics.Reporter:
    """Make this worker's reporter. What it puts outlives it, and costs no process, as an actor to report to would."""
    import ray
    from ray.experimental import internal_kv

    worker = ray.get_runtime_context().get_worker_id()

    def put(stage: str, reading: metrics.Reading) -> None:
        internal_kv._internal_kv_put(f"{run}/{stage}/{worker}", json.dumps(asdict(reading)), namespace=KV)

    return metrics.Reporter(put, _record)


@cache
def _instruments() -> dict[metrics.Metric, Any]:
    """Make Ray's counters and gauges, once a process."""
    from ray.util.metrics import Counter, Gauge

    return {one: (Counter if one.counter else Gauge)(one.name, one.doc, one.tags) for one in metrics.METRICS}


def _record(samples: Iterable[metrics.Sample]) -> None:
    for sample in samples:
        instrument, tags = _instruments()[sample.metric], dict(zip(sample.metric.tags, sample.tags, strict=True))
        if not sample.metric.counter:
            instrument.set(sample.value, tags)
        elif sample.value > 0:  # Ray takes no other
            instrument.inc(sample.value, tags)


def _cause(error: BaseException) -> BaseException:
    """Return our own error inside Ray's wrapping, else the wrapping: it names the stage and carries the traceback."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, BulkscribeError):
            # Ray makes one error of ours and its own, whose words are a traceback.
            ours: BaseException = getattr(inner, "cause", inner)
            return ours
        inner = getattr(inner, "cause", None) or inner.__cause__
    return error
