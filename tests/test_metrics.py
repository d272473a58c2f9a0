"""Meters of work, and what of it Prometheus and the run's file get."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import ray
from clusters import add, cluster
from outputs import FAILURE, finished, segment
from tables import read_runs

from pipeline import metrics
from pipeline.metrics import NOTHING, Meter, Reading, Reporter, Sample, meter, restart, samples, summary, timed
from pipeline.ray_options import RayOptions
from pipeline.run import RayRunner

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "audio"
Series = dict[str, dict[frozenset[tuple[str, str]], float]]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_meter_is_busy_while_it_has_something_in_hand() -> None:
    clock = Clock()
    watch = Meter(clock)
    for change, then_s in ((watch.take, 2.0), (watch.take, 1.0), (watch.give, 1.0), (watch.give, 4.0)):
        change()
        clock.now += then_s
    assert watch.read() == Reading(alive_s=8.0, busy_s=4.0, queue_s=5.0, queue_max=2, queue=0)


def test_busy_share_is_that_of_the_time_between_two_readings() -> None:
    earlier = Reading(100.0, 100.0, 0.0, 1, 1)
    assert Reading(104.0, 101.0, 0.0, 1, 0).share_since(earlier) == 0.25
    assert earlier.share_since(earlier) == 0.0


def test_time_of_whoever_takes_is_not_work() -> None:
    restart()
    for _ in timed("slow", (time.sleep(0.05) for _ in range(2))):
        time.sleep(0.2)
    reading = meter("slow").read()
    assert 0.1 <= reading.busy_s < 0.3 < reading.alive_s


def test_summary_adds_up_all_workers_of_a_stage() -> None:
    found = summary({"cut": [Reading(10.0, 5.0, 20.0, 3, 0), Reading(30.0, 5.0, 0.0, 1, 0)]})
    assert found == {
        "cut": {
            "workers": 2, "alive_s": 40.0, "busy_s": 10.0, "busy_share": 0.25, "queue_mean": 0.5, "queue_max": 3
        }
    }  # fmt: skip


def test_reports_add_up_to_what_was_done() -> None:
    restart()
    kept: dict[str, Reading] = {}
    recorded: list[Sample] = []
    reporter = Reporter(kept.__setitem__, recorded.extend)
    for _ in range(3):
        meter("transcribe").take()
        time.sleep(0.02)
        meter("transcribe").give()
        reporter.report(at_once=True)
    busy_s = [sample.value for sample in recorded if sample.metric is metrics.BUSY]
    assert len(busy_s) == 3
    assert sum(busy_s) == pytest.approx(kept["transcribe"].busy_s)
    assert {sample.value for sample in recorded if sample.metric is metrics.DEPTH} == {0}


def test_recordings_become_samples_once_each() -> None:
    some = [
        finished("a", "/a.mp3", segment(0, 1, "Yes."), segment(1, 2, "No.")),
        finished("b", "/b.mp3", segment(0, 1, "Yes.")),
        finished("c", "/c.mp3", failure=FAILURE),
    ]
    assert {(one.metric.name, *one.tags): one.value for one in samples(some, left=7)} == {
        ("bulkscribe_recordings", "ok"): 2,
        ("bulkscribe_recordings", "failed"): 1,
        ("bulkscribe_audio_seconds",): 20.0,
        ("bulkscribe_segments",): 3,
        ("bulkscribe_failures", "decode", "unreadable"): 1,
        ("bulkscribe_recordings_left",): 7,
    }


def test_every_metric_is_documented_with_its_name_meaning_and_tags() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(ray_bulkscribe_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    expected = [
        (
            f"ray_{one.name}" + ("_total" if one.counter else ""),
            "counter" if one.counter else "gauge",
            ", ".join(f"`{tag}`" for tag in one.tags),
            one.doc,
        )
        for one in metrics.METRICS
    ]
    assert rows == expected


def test_run_file_of_a_job_in_this_process_has_the_work(tmp_path: Path) -> None:
    line = ["transcribe", EXAMPLES / "episode.m4a", "--out", tmp_path, "--model", "fake", "--runner", "local"]
    subprocess.run([sys.executable, "-m", "jobs", *map(str, line)], cwd=ROOT, check=True, capture_output=True)
    (run,) = read_runs(str(tmp_path))
    assert set(run["work"]) == {"cut", "transcribe"}
    assert run["work"]["cut"]["workers"] == run["work"]["transcribe"]["workers"] == 1
    assert 0 < run["work"]["cut"]["busy_s"] < run["wall_s"]
    assert run["work"]["transcribe"]["queue_max"] >= 1


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster whose nodes report their metrics every second."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder, cluster(Path(folder)) as made:
        add(made, "cpu", cpus=3)
        yield made.address


def scrape(ports: set[int]) -> Series:
    """Return bulkscribe's series of all nodes, added up by name and our own tags."""
    found: Series = defaultdict(lambda: defaultdict(float))
    for port in ports:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        for name, tags, value in re.findall(r"^(ray_bulkscribe_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            ours = frozenset(re.findall(r'\b(status|stage|kind)="(.*?)"', tags))
            found[name][ours] += float(value)
    return found


def nodes_ports() -> set[int]:
    """Return where nodes serve metrics, of those that do by now."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["MetricsExportPort"] for node in nodes if node["Alive"] and node["MetricsExportPort"] > 0}


def test_what_is_exported_is_served_to_prometheus(address: str) -> None:
    runner = RayRunner(RayOptions(address=address))
    runner.gpus()  # joins
    some = [finished("a", "/a.mp3", segment(0, 1, "Yes.")), finished("c", "/c.mp3", failure=FAILURE)]
    runner.export(samples(some, left=5))
    runner.export(samples(some[:1], left=4))
    served: Series = {}
    until = time.monotonic() + 60
    while time.monotonic() < until and len(served) < 5:
        time.sleep(0.5)
        served = scrape(nodes_ports())
    runner.close()
    assert served == {
        "ray_bulkscribe_recordings_total": {
            frozenset({("status", "ok")}): 2.0,
            frozenset({("status", "failed")}): 1.0,
        },
        "ray_bulkscribe_audio_seconds_total": {frozenset(): 20.0},
        "ray_bulkscribe_segments_total": {frozenset(): 2.0},
        "ray_bulkscribe_failures_total": {frozenset({("stage", "decode"), ("kind", "unreadable")}): 1.0},
        "ray_bulkscribe_recordings_left": {frozenset(): 4.0},
    }


def test_job_on_a_cluster_serves_its_work_while_it_runs_and_sums_it_up_in_its_file(
    tmp_path: Path, address: str
) -> None:
    line = ["transcribe", EXAMPLES, "--out", tmp_path, "--model", "fake", "--address", address, "--actors", "1"]
    ray.init(address, log_to_driver=False)
    ports, served = nodes_ports(), Series()
    job = subprocess.Popen([sys.executable, "-m", "jobs", *map(str, line)], cwd=ROOT, stdout=subprocess.DEVNULL)
    while job.poll() is None:
        for name, series in scrape(ports).items():
            for tags, value in series.items():
                kept = served.setdefault(name, {})
                kept[tags] = max(value, kept.get(tags, 0.0))
        time.sleep(0.3)
    ray.shutdown()  # type: ignore[no-untyped-call]
    assert job.returncode == 0
    (run,) = read_runs(str(tmp_path))
    work = run["work"]
    assert work["transcribe"]["workers"] == 1
    assert work["transcribe"]["queue_max"] >= 1
    assert 0 < work["transcribe"]["busy_share"] <= 1
    assert work["cut"]["workers"] >= 1
    assert work["cut"]["busy_s"] > 1.0  # nine recordings through ffmpeg and speech detection
    cut = served["ray_bulkscribe_busy_seconds_total"][frozenset({("stage", "cut")})]
    assert 0 < cut <= work["cut"]["busy_s"] + 0.001  # which is rounded
    assert set(served) >= {"ray_bulkscribe_busy_share", "ray_bulkscribe_queue_depth"}


@pytest.mark.slow
def test_metrics_of_this_machine_are_served_at_the_port_that_was_asked_for(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    line = ["transcribe", EXAMPLES, "--out", tmp_path, "--model", "fake:0.2", "--metrics-port", port]
    # A process of its own: one that has been in two Rays at once cannot use a third (Ray 2.60 loses its actors there).
    job = subprocess.Popen([sys.executable, "-m", "jobs", *map(str, line)], cwd=ROOT, stdout=subprocess.DEVNULL)
    served = set()
    while job.poll() is None:
        with suppress(OSError):  # not yet, or no more
            served |= scrape({port}).keys()
        time.sleep(0.2)
    assert job.returncode == 0
    assert "ray_bulkscribe_busy_seconds_total" in served


def test_nothing_was_done_before_the_first_reading() -> None:
    assert NOTHING.share_since(NOTHING) == 0.0
