"""A Ray cluster of several nodes on this machine, and plans whose workers leave word of where they ran."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import ray
from ray.cluster_utils import Cluster

from pipeline.stages import Plan, Stage, Transform

# A dead node is noticed after about two seconds instead of half a minute; metrics are reported every second; workers
# are as important as everything else: on a busy machine Ray's niceness would let them starve.
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,
    "metrics_report_interval_ms": 1000,
    "worker_niceness": 0,
}
STORE = 150 << 20  # bytes of shared memory a node
TESTS = str(Path(__file__).parent)


@contextmanager
def cluster(folder: Path, **head: Any) -> Iterator[Cluster]:
    """Start a head without CPUs; the caller adds nodes. Its files lie in `folder`, whose path must be short."""
    here = {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    path = os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")]))  # workers load this module, too
    arguments = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": QUICK}
    with patch.dict(os.environ, here | {"PYTHONPATH": path}):
        made = Cluster(initialize_head=True, head_node_args=arguments | head, shutdown_at_exit=True)
        try:
            yield made
        finally:
            ray.shutdown()  # type: ignore[no-untyped-call]
            made.shutdown()


def add(cluster: Cluster, role: str, *, cpus: int = 0, gpus: int = 0) -> Any:
    """Add a node with the label `role`."""
    return cluster.add_node(num_cpus=cpus, num_gpus=gpus, labels={"role": role}, object_store_memory=STORE)


@dataclass(frozen=True)
class Noting:
    """A transform that says in `folder` on which node it began each table, and takes `pause_s` over what comes out."""

    stage: Stage
    folder: Path
    pause_s: float
    inner: Transform

    def __call__(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """See `pipeline.stages.Transform`."""
        node = ray.get_runtime_context().get_node_id()
        (self.folder / f"{self.stage.name} {node} {os.getpid()} {uuid.uuid4().hex}").touch()
        for table in self.inner(tables):
            time.sleep(self.pause_s)
            yield table


def _make(stage: Stage, folder: Path, pause_s: float) -> Transform:
    return Noting(stage, folder, pause_s, stage.make())


def noting(plan: Plan, folder: Path, **pauses_s: float) -> Plan:
    """Return `plan` with workers that leave word in `folder`; `pauses_s` by the stage's name, a table."""
    folder.mkdir(exist_ok=True)
    make: Callable[..., Transform] = _make
    return tuple(replace(stage, make=partial(make, stage, folder, pauses_s.get(stage.name, 0.0))) for stage in plan)


def seen(folder: Path, stage: str) -> set[tuple[str, str]]:
    """Return (node, pid) of all workers of a stage that have left word."""
    words = (path.name.split() for path in folder.iterdir())
    return {(node, pid) for name, node, pid, _ in words if name == stage}


def nodes_of(folder: Path, stage: str) -> set[str]:
    """Return the nodes where a stage ran."""
    return {node for node, _ in seen(folder, stage)}
