"""The law on a cluster where everything is killed at random: recordings in = rows out, as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import wave
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from clusters import add, cluster
from ray.cluster_utils import Cluster
from tables import assert_same_tables, assert_whole, read_table

from pipeline.ffmpeg_process import find_ffmpeg

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "audio"
RATE = 16_000
LIMIT_S = 900  # for the whole job, kills and all
KILLS = 14  # then it is left alone
WORKERS = {"decode worker": "ray::MapBatches(_task)", "model actor": "ray::MapWorker("}
NOT_DRIVERS = [*WORKERS, "raylet"]


def sources(folder: Path, short: int, rng: random.Random) -> Path:
    """Make a folder of short recordings (stretches of speech, of silence, and broken files), and the examples."""
    folder.mkdir()
    decode = [find_ffmpeg(), "-v", "error", "-i", str(EXAMPLES / "episode.m4a"), "-ac", "1", "-ar", str(RATE)]
    pcm = subprocess.run([*decode, "-f", "s16le", "-"], stdout=subprocess.PIPE, check=True).stdout
    for number in range(short):
        size = 2 * rng.randint(RATE // 2, 4 * RATE)
        at = 2 * rng.randrange((len(pcm) - size) // 2)
        with wave.open(str(folder / f"{number:04}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(bytes(size) if number % 10 == 0 else pcm[at : at + size])
        if number % 25 == 1:
            (folder / f"{number:04}.wav").write_bytes(pcm[at : at + size])  # no header
    for path in EXAMPLES.iterdir():
        (folder / path.name).symlink_to(path)
    for number in range(4):
        (folder / f"long-{number}.m4a").symlink_to(EXAMPLES / "episode.m4a")
    return folder


def command(audio: Path, out: Path, *arguments: str) -> list[str]:
    return [
        sys.executable, "-m", "jobs", "transcribe", str(audio), "--out", str(out), "--model", "fake:0.02", *arguments,
    ]  # fmt: skip


def started(line: list[str], talk: Path) -> subprocess.Popen[bytes]:
    """Start a driver; what it says goes to a file."""
    with talk.open("ab") as file:
        return subprocess.Popen(line, cwd=ROOT, stdout=file, stderr=file)


def victims(words: str) -> list[psutil.Process]:
    """Return the processes under this one whose name begins with `words`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith(words):
                found.append(process)
    return found


def kill(what: str, made: Cluster, rng: random.Random) -> bool:
    """Kill one of a kind by SIGKILL; say whether there was any."""
    if what == "raylet":
        nodes = sorted(made.worker_nodes, key=lambda node: str(node.node_id))
        made.remove_node(rng.choice(nodes), allow_graceful=False)
        add(made, "cpu", cpus=3)
        return True
    found = victims(WORKERS[what])
    if found:
        rng.choice(found).kill()
    return bool(found)


def raged(line: list[str], made: Cluster, talk: Path, rng: random.Random) -> Counter[str]:
    """Run a command again and again until it ends well, killing as it goes; return what was killed how often."""
    until, killed, plan = time.monotonic() + LIMIT_S, Counter[str](), list[str]()
    job = started(line, talk)
    try:
        while True:
            pause = rng.uniform(0.2, 3.0) * (1 + killed.total() / 8)  # so that it ends, on however slow a machine
            with contextlib.suppress(subprocess.TimeoutExpired):
                if job.wait(timeout=pause if killed.total() < KILLS else until - time.monotonic()) == 0:
                    return killed
                job = started(line, talk)  # it could not go on
                killed["gave up"] += 1
            assert time.monotonic() < until, f"not done after {LIMIT_S} s: {killed}"
            plan = plan or rng.sample([*NOT_DRIVERS, *NOT_DRIVERS, "driver"], k=7)
            if plan[0] == "driver":
                job.kill()
                job.wait()
                job = started(line, talk)
            elif not kill(plan[0], made, rng):
                continue
            killed[plan.pop(0)] += 1
    finally:
        job.kill()
        job.wait()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_tables_are_the_same_whatever_is_killed_at_random(tmp_path: Path, short: Path) -> None:
    seed = int(os.environ.get("BULKSCRIBE_TEST_SEED") or random.randrange(2**31))
    print("seed", seed)  # noqa: T201 (a failure must be repeatable)
    rng = random.Random(seed)
    audio, calm, wild, talk = (tmp_path / name for name in ("audio", "calm", "wild", "talk"))
    sources(audio, 100, rng)
    subprocess.run(command(audio, calm, "--runner", "local"), cwd=ROOT, check=True, capture_output=True)
    with cluster(short) as made:
        for _ in range(2):
            add(made, "cpu", cpus=3)
        killed = raged(command(audio, wild, "--address", made.address, "--actors", "1:2"), made, talk, rng)
    print(dict(killed), talk.read_text(encoding="utf-8"))  # noqa: T201
    assert set(killed) == {*NOT_DRIVERS, "driver"}  # each kind, and no driver that could not go on
    assert_whole(str(wild))
    assert len(read_table(str(wild), "recordings")) == len(list(audio.iterdir()))
    assert_same_tables(str(calm), str(wild))
    checked = subprocess.run(
        [sys.executable, "-m", "jobs", "check", str(wild), "--source", str(audio)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout.splitlines()[-1])
