"""The plan on several nodes: what runs where, with what options, and nodes that are taken away in the middle of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from clusters import add, cluster, nodes_of, noting, seen
from ray.cluster_utils import Cluster
from s3_server import point_to, s3_server
from tables import assert_same_tables, assert_whole, read_table

from pipeline import storage
from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.passages import PassageOptions
from pipeline.ray_options import RayOptions
from pipeline.rounds import Runner, complete, local
from pipeline.run import RayRunner
from pipeline.score import ScoreOptions
from pipeline.sources import resolve
from pipeline.stages import CutOptions, Plan, cut_stage, mark_stage, transcribe_stage
from pipeline.types import Recording
from pipeline.whisper.options import WhisperOptions

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "audio"
NOWHERE = "http://127.0.0.1:1"


def plan(machines: RayOptions, gpus: float, passage_max_s: float = 90) -> Plan:
    """Return the plan that `transcribe` makes, with the engine that does not listen."""
    whisper = WhisperOptions(model="fake", device="cpu", dtype="float32")
    return (
        cut_stage(CutOptions(passages=PassageOptions(max_s=passage_max_s)), machines.decode_labels),
        transcribe_stage(whisper, actors=machines.pool, cpus=machines.cpus_of_actor(gpus), gpus=gpus),
        mark_stage(ScoreOptions()),
    )


def copies(folder: Path, count: int, name: str = "episode.m4a") -> Sequence[Recording]:
    folder.mkdir()
    for number in range(count):
        shutil.copy(EXAMPLES / name, folder / f"{number}-{name}")
    shutil.copy(EXAMPLES / "truncated.m4a", folder)
    return resolve([str(folder)]).recordings


def job(out: Path, steps: Plan, recordings: Sequence[Recording], runner: Runner) -> str:
    with Ledger.open(str(out), {"model": "fake"}, model="fake") as ledger:
        list(complete(steps, ledger, ledger.todo(recordings), runner))
    assert_whole(str(out))
    return str(out)


def undisturbed(folder: Path, recordings: Sequence[Recording]) -> str:
    """Return the output of the same job in this process."""
    return job(folder / "local", plan(RayOptions(), 0), recordings, local)


def removing(made: Cluster, ray: RayRunner, words: Path, stage: str, removed: list[str]) -> Runner:
    """Return a runner that kills, by SIGKILL, a node where `stage` runs when the first transcripts have come."""

    def runner(steps: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
        for table in ray(steps, recordings):
            busy = nodes_of(words, stage)
            victims = [node for node in made.worker_nodes if node.node_id in busy]
            if victims and not removed:
                made.remove_node(victims[0], allow_graceful=False)
                removed.append(victims[0].node_id)
            yield table

    return runner


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        yield Path(folder)


@pytest.fixture
def made(short: Path) -> Iterator[Cluster]:
    """A head that does no work."""
    with cluster(short) as made:
        yield made


@dataclass(frozen=True)
class Kinds:
    """A head that does no work, and a node of each kind."""

    made: Cluster
    cpu: str
    gpu: str


@pytest.fixture(scope="module")
def kinds() -> Iterator[Kinds]:
    """For the tests that leave it as it is. Its nodes know keys of a store that is nowhere."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder, pytest.MonkeyPatch.context() as environment:
        point_to(environment, NOWHERE)
        with cluster(Path(folder)) as made:
            cpu, gpu = add(made, "cpu", cpus=2), add(made, "gpu", cpus=2, gpus=1)
            environment.undo()
            yield Kinds(made, cpu.node_id, gpu.node_id)


def options(made: Cluster, **values: Any) -> RayOptions:
    return RayOptions(address=made.address, **values)


def test_each_stage_runs_on_its_own_kind_of_node_and_none_on_the_head(tmp_path: Path, kinds: Kinds) -> None:
    machines = options(kinds.made, decode_on="role=cpu")
    some, words = copies(tmp_path / "audio", 4, "fr_standard.m4a"), tmp_path / "words"
    ray = RayRunner(machines)
    out = job(tmp_path / "out", noting(plan(machines, 1), words), some, ray)
    assert ray.gpus() == 1
    ray.close()
    assert nodes_of(words, "cut") == {kinds.cpu}
    assert nodes_of(words, "transcribe") == {kinds.gpu}
    assert nodes_of(words, "mark") <= {kinds.cpu, kinds.gpu}
    assert_same_tables(out, undisturbed(tmp_path, some))


def test_model_without_a_gpu_runs_on_a_worker_and_not_on_the_head(tmp_path: Path, kinds: Kinds) -> None:
    machines, words = options(kinds.made), tmp_path / "words"
    ray = RayRunner(machines)
    some = copies(tmp_path / "audio", 1, "fr_standard.m4a")
    job(tmp_path / "out", noting(plan(machines, 0), words), some, ray)
    ray.close()
    where = nodes_of(words, "cut") | nodes_of(words, "transcribe") | nodes_of(words, "mark")
    assert where
    assert where <= {kinds.cpu, kinds.gpu}
    assert not seen(words, "cut") & seen(words, "transcribe")  # Ray joins stages of equal resources, if it may


def test_the_endpoint_option_reaches_workers(tmp_path: Path, kinds: Kinds) -> None:
    line = [sys.executable, "-m", "jobs", "transcribe", "s3://audio/in/", "--out", str(tmp_path / "out")]
    line += ["--model", "fake", "--address", kinds.made.address]
    with s3_server() as endpoint:
        storage.write_bytes("s3://audio/in/silence.wav", (EXAMPLES / "silence.wav").read_bytes())
        line += ["--endpoint-url", endpoint]
        environment = os.environ | {"AWS_ENDPOINT_URL": NOWHERE}  # the option is stronger, here as on the nodes
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] == 1


@pytest.mark.slow
def test_pool_grows_from_its_smallest_to_its_largest_size(tmp_path: Path, made: Cluster) -> None:
    add(made, "cpu", cpus=3)
    gpus = {add(made, "gpu", gpus=1).node_id for _ in range(2)}
    machines, words = options(made, actors="1:2"), tmp_path / "words"
    steps = noting(plan(machines, 1, passage_max_s=4), words, transcribe=10.0)  # so a queue stands before the actor
    job(tmp_path / "out", steps, copies(tmp_path / "audio", 96, "en_switchboard.mp3"), RayRunner(machines))
    assert nodes_of(words, "transcribe") == gpus


@pytest.mark.slow
def test_killed_decoding_node_loses_and_doubles_nothing(tmp_path: Path, made: Cluster) -> None:
    for role in ("cpu", "cpu"):
        add(made, role, cpus=2)
    add(made, "gpu", gpus=1)
    machines, words, removed = options(made, decode_on="role=cpu"), tmp_path / "words", list[str]()
    some = copies(tmp_path / "audio", 8)
    runner = removing(made, RayRunner(machines), words, "cut", removed)
    out = job(tmp_path / "out", noting(plan(machines, 1), words, cut=0.3), some, runner)
    assert removed
    assert_same_tables(out, undisturbed(tmp_path, some))


@pytest.mark.slow
@pytest.mark.parametrize("actors", ["1:1", "2:2"])
def test_killed_node_of_a_model_actor_loses_and_doubles_nothing(tmp_path: Path, made: Cluster, actors: str) -> None:
    add(made, "cpu", cpus=2)
    for role in ("gpu", "gpu"):
        add(made, role, gpus=1)
    machines, words, removed = options(made, actors=actors), tmp_path / "words", list[str]()
    some = copies(tmp_path / "audio", 20)  # more than an actor takes at once
    runner = removing(made, RayRunner(machines), words, "transcribe", removed)
    out = job(tmp_path / "out", noting(plan(machines, 1), words, transcribe=3.0), some, runner)
    assert removed
    assert len(seen(words, "transcribe")) >= 2  # another actor took over
    assert_same_tables(out, undisturbed(tmp_path, some))


def test_label_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="--decode-on cpu is not NAME=VALUE"):
        _ = RayOptions(decode_on="cpu").decode_labels


@pytest.mark.slow
def test_job_that_is_submitted_with_its_working_directory_runs_on_the_workers(short: Path, tmp_path: Path) -> None:
    port, ray = free_port(), Path(sys.executable).with_name("ray")
    ports = {"dashboard_port": port, "dashboard_agent_listen_port": free_port()}
    on_path = {"PATH": os.pathsep.join([str(ray.parent), os.environ["PATH"]])}  # jobs call this Python `python`
    with patch.dict(os.environ, on_path), cluster(short, include_dashboard=True, **ports) as made:
        add(made, "cpu", cpus=3)
        job = [
            "python",
            "-m",
            "jobs",
            "transcribe",
            "examples/audio",
            "--out",
            str(tmp_path / "out"),
            "--model",
            "fake",
        ]
        job += ["--address", "auto", "--decode-on", "role=cpu"]
        where = ["--address", f"http://127.0.0.1:{port}", "--working-dir", "."]
        done = submit([str(ray), "job", "submit", *where, "--", *job])
    assert done.returncode == 0, done.stdout + done.stderr
    (counts,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert (counts["ok"], counts["failed"]) == (8, 1)
    assert_whole(str(tmp_path / "out"))
    uris = {row["uri"] for row in read_table(str(tmp_path / "out"), "recordings")}
    assert all("working_dir_files" in uri for uri in uris)  # of the copy that was sent


def submit(line: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Submit a job and wait for its end; a cluster that has just started may not take any yet."""
    for _ in range(20):
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        if "No available agent" not in done.stderr:
            break
        time.sleep(2)
    return done


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
