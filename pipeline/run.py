"""A plan on Ray Data, and the rounds that make it complete. The only file that imports ray.

Blocks of recordings stream through the plan's stages; the driver receives transcripts and gives them to the ledger.
What a round has lost (a killed worker, a lost block) is run again in the next one, each suspect in a block of its own.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline import rows
from pipeline.attempts import DEATHS, Roll, Worker, tell
from pipeline.errors import BulkscribeError, UserError
from pipeline.ledger import Ledger
from pipeline.processes import started
from pipeline.recordings import Recordings
from pipeline.stages import Plan, Stage, Transform, in_process
from pipeline.types import Failure, Finished, Outcome, Recording, Transcript, setting

if TYPE_CHECKING:
    import ray.data

ROUNDS = 3
KILLED = Failure(
    "worker",
    "killed",
    f"{DEATHS} workers died at it, each time anew: out of memory, or a fault of a library",
    retryable=True,
)
LOST = Failure("worker", "lost", f"no answer in {ROUNDS} rounds: its worker died or its block was lost", retryable=True)

Runner = Callable[[Plan, Sequence[Recording]], Generator[pa.Table, None, None]]


@dataclass(frozen=True)
class RayOptions:
    """Where and how wide the plan runs; nothing of it changes rows."""

    address: str = setting("", "Ray cluster to join; empty starts Ray on this machine.", rows=False)
    actors: str = setting("1:1", "Smallest and largest number of model actors, MIN:MAX.", rows=False)
    actor_cpus: float | None = setting(
        None, "CPUs that a model actor reserves; by default 1 on a cluster where it has no GPU, else none.", rows=False
    )
    decode_on: str = setting(
        "", "Decode only on machines of the cluster with this Ray label, NAME=VALUE, such as role=cpu.", rows=False
    )
    object_store_gb: float = setting(1.0, "Shared memory for blocks, when Ray is started here.", "GB", rows=False)

    @property
    def pool(self) -> tuple[int, int]:
        """Smallest and largest pool of actors; UserError when `actors` does not say."""
        low, _, high = self.actors.partition(":")
        try:
            pool = int(low), int(high or low)
        except ValueError:
            pool = 0, 0
        if not 1 <= pool[0] <= pool[1]:
            raise UserError(f"--actors {self.actors} is not MIN:MAX", "for example --actors 1:4, or --actors 2")
        return pool

    @property
    def decode_labels(self) -> dict[str, str]:
        """Labels of the machines that decode; UserError when `decode_on` is no label."""
        if not self.decode_on:
            return {}
        name, _, value = self.decode_on.partition("=")
        if not (name and value):
            raise UserError(f"--decode-on {self.decode_on} is not NAME=VALUE", "for example --decode-on role=cpu")
        return {name: value}

    def cpus_of_actor(self, gpus: float) -> float:
        """CPUs that an actor with so many GPUs reserves: without either, Ray would place it on a head without CPUs."""
        if self.actor_cpus is not None:
            return self.actor_cpus
        return 1.0 if self.address and not gpus else 0.0


def complete(
    plan: Plan, ledger: Ledger, recordings: Sequence[Recording], runner: Runner
) -> Generator[tuple[list[Finished], int], None, None]:
    """Run `recordings` until the ledger has a row for each; yield what finished, and samples received, as it comes."""
    for _ in range(ROUNDS):
        if not recordings:
            return
        with closing(runner(plan, recordings)) as tables:
            for table in tables:
                items = list(rows.read_transcripts(table))
                yield ledger.receive(items), sum(len(item.span) for item in items if isinstance(item, Transcript))
        recordings = ledger.missing()
    for recording in recordings:
        yield [ledger.quarantine(recording, LOST)], 0


def local(plan: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
    """Runner in this process: no Ray, one recording after the other."""
    yield from in_process(plan, (rows.recordings_table([recording]) for recording in recordings))


class RayRunner:
    """Runner on Ray: joins the cluster, or starts Ray here, when it is first needed; `close` leaves it."""

    def __init__(self, options: RayOptions) -> None:
        """Start nothing yet."""
        self._options = options
        self._joined = False
        self._called = False
        self._told: Any = None

    def __call__(self, plan: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
        """Stream `recordings` through `plan`. Those that come again (of an earlier round) get a block each."""
        self._join()
        import ray.data

        again, self._called = self._called, True
        limit = 1 if again else min(200, -(-len(recordings) // LEAST_BLOCKS))
        blocks = pack(Recordings.of(recordings), limit)
        portion = min(MOST_BLOCKS, PORTION * max(stage.actors[1] if stage.actors else 1 for stage in plan))
        roll, killers = self._roll(), set[str]()
        while some := [block.table for block in islice(blocks, portion)]:
            dataset: ray.data.Dataset = ray.data.from_blocks(some)
            del some
            for stage in plan:
                dataset = _map(dataset, stage, roll)
            try:
                yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
                killers = ray.get(roll.killers.remote())
            except ray.exceptions.RayError as error:
                raise _cause(error) from None
        if killers:
            yield rows.transcripts_table(
                Outcome(recording, passages=0, duration=0, speech=0, failure=KILLED)
                for recording in recordings
                if recording.id in killers
            )

    def _roll(self) -> Any:
        """Return the actor that knows what each worker is at: one for all rounds of a job."""
        import ray

        if self._told is None:
            self._told = ray.remote(_Roll).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        return self._told

    def gpus(self) -> int:
        """Return how many GPUs the cluster has."""
        self._join()
        import ray

        return int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Leave the cluster; a Ray that was started here ends."""
        if self._joined:
            import ray

            self._told = None
            ray.shutdown()

    def _join(self) -> None:
        """Join or start Ray, quietly: what it says of itself goes to its own log files."""
        if self._joined:
            return
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
        os.environ |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
        here: dict[str, Any] = {
            "num_cpus": max(4, os.cpu_count() or 1),  # tokens, not cores: reading, cutting and marking keep moving
            "include_dashboard": False,
            "object_store_memory": int(self._options.object_store_gb * 1e9),
        }
        address = self._options.address
        _reach(address)
        with _silent_stderr(), _same_sigterm():
            import ray.data

            try:
                ray.init(
                    address or "local", logging_level=logging.ERROR, log_to_driver=False, **({} if address else here)
                )
            except (ConnectionError, ValueError) as error:
                raise UserError(
                    f"no Ray cluster answers at {address}: {error}", "leave --address out to run here"
                ) from error
        self._joined = True
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.target_max_block_size = 16 << 20  # the first passages leave early: 9 minutes of PCM
        context.autoscaling_config.actor_pool_util_upscaling_threshold = GROW_AT
        context.execution_no_progress_timeout_s = -1  # one long recording may work alone for hours


def _reach(address: str) -> None:
    """UserError when nobody listens at HOST:PORT (`ray://` or not): Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"no Ray cluster answers at {address}: {error}", "leave --address out to run here") from error


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what Ray's C++ parts print while they start; what goes wrong there is raised, too."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _same_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does: Ray, while it starts, puts `sys.exit` there, which is not how the job ends."""
    if threading.current_thread() is not threading.main_thread():  # elsewhere Ray cannot set it, nor can we
        yield
        return
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as ending:
        if ending.code == signal.SIGTERM and callable(kept):
            kept(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, kept)


def pack(recordings: Recordings, limit: int, bytes_limit: int = 64 << 20) -> Iterator[Recordings]:
    """Yield blocks of recordings, the largest first: at most `limit` recordings or about `bytes_limit` bytes each.

    Long ones start first so that none of them is still alone at work when all others are done; short ones travel
    together because a block costs some 20 ms a stage, whatever is in it.
    """
    sizes = np.maximum(recordings.sizes(), 0)
    order = np.argsort(-sizes, kind="stable")
    ends = np.cumsum(sizes[order])  # bytes up to and with each
    start = 0
    while start < len(order):
        before = ends[start] - sizes[order[start]]
        end = max(start + 1, int(np.searchsorted(ends, before + bytes_limit, side="right")))
        end = min(end, start + limit)
        yield recordings.take(order[start:end])
        start = end


class _Actor:
    """A stage that lives in an actor: made once, called for block after block.

    `stage` is set by subclassing: Ray keeps what a constructor takes in the object store, which a restart may miss.
    """

    stage: ClassVar[Stage]
    roll: ClassVar[Any]

    def __init__(self) -> None:
        tell(_Told(self.roll))
        self._transform = self.stage.make()

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        yield from self._transform([table])


def _task(make: Callable[[], Transform], roll: Any, table: pa.Table) -> Iterator[pa.Table]:
    tell(_Told(roll))
    yield from make()([table])


class _Told:
    """`Attempts` of a worker: tells the actor that calls the roll. To begin and to end wait for no answer."""

    def __init__(self, roll: Any) -> None:
        import ray

        context = ray.get_runtime_context()
        self._roll, self._worker = roll, Worker(context.get_node_id(), os.getpid(), started(os.getpid()))

    def deaths(self, keys: Iterable[str]) -> dict[str, int]:
        import ray

        found: dict[str, int] = ray.get(self._roll.deaths.remote(list(keys), self._worker))
        return found

    def begin(self, key: str) -> None:
        self._roll.begin.remote(self._worker, key)

    def end(self, key: str) -> None:
        self._roll.end.remote(self._worker, key)


class _Roll(Roll):
    """The actor that calls the roll."""

    def __init__(self) -> None:
        super().__init__(_nodes)


def _nodes() -> tuple[str, set[str]]:
    """Return this process's node, and all that are alive."""
    import ray

    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    return ray.get_runtime_context().get_node_id(), alive


def _map(dataset: ray.data.Dataset, stage: Stage, roll: Any) -> ray.data.Dataset:
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
        return dataset.map_batches(partial(_task, stage.make, roll), **shape)
    low, high = stage.actors
    pool = ray.data.ActorPoolStrategy(
        min_size=low,
        max_size=high,
        max_concurrent_calls_per_actor=CALLS,
        enable_true_multi_threading=True,
    )
    return dataset.map_batches(
        type(stage.name.title(), (_Actor,), {"stage": stage, "roll": roll}), compute=pool, **shape
    )


LEAST_BLOCKS = 32  # of a job's recordings, so that all CPUs decode at a small job, too
# Blocks that Ray is given at once, for each actor and at most: it keeps all of them in its store, and some 20 KB for
# each in the driver, to the end. The actors start anew for the next portion, so that one should be hours of work: 5,000
# blocks are 1,000,000 short recordings or 320 GB of audio.
PORTION, MOST_BLOCKS = 5_000, 50_000
CALLS = 8  # blocks that one actor's engine draws from at once: it never drains between two
GROW_AT = 1.25  # times CALLS: with so many blocks at each actor the pool grows; Ray's 1.75 takes hours of audio
GPU_BATCH = 8  # passages


def _cause(error: BaseException) -> BaseException:
    """Return our own error inside Ray's wrapping, else the wrapping: it names the stage and carries the traceback."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, BulkscribeError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return error
