"""Rounds, blocks, and the plan on Ray."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from tables import assert_same_tables, assert_whole, read_table

from pipeline import hops
from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.ray_options import RayOptions
from pipeline.recordings import Recordings, pack
from pipeline.rounds import complete, local
from pipeline.run import RayRunner
from pipeline.score import ScoreOptions
from pipeline.sources import resolve
from pipeline.stages import CutOptions, Plan, cut_stage, in_process, mark_stage, transcribe_stage
from pipeline.types import Outcome, Recording
from pipeline.whisper.options import WhisperOptions

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"


def plan(model: str) -> Plan:
    options = WhisperOptions(model=model, device="cpu", dtype="float32")
    return cut_stage(CutOptions()), transcribe_stage(options), mark_stage(ScoreOptions())


@pytest.fixture(scope="module")
def ray() -> Iterator[RayRunner]:
    runner = RayRunner(RayOptions())
    yield runner
    runner.close()


def job(out: Path, recordings: Sequence[Recording], runner: object, model: str = "fake") -> str:
    """Run a whole job into `out`, as `transcribe` does."""
    with Ledger.open(str(out), {"model": model}, model=model) as ledger:
        list(complete(plan(model), ledger, ledger.todo(recordings), runner))  # type: ignore[arg-type]
    assert_whole(str(out))
    return str(out)


def examples(*names: str) -> Sequence[Recording]:
    return resolve([str(EXAMPLES / name) for name in names] or [str(EXAMPLES)]).recordings


@pytest.mark.slow
def test_ray_and_in_process_give_equal_tables_with_the_real_model(tmp_path: Path, ray: RayRunner) -> None:
    some = examples("es_centralita.opus", "ru_kommutator.ogg", "music.mp3", "truncated.m4a")
    assert_same_tables(job(tmp_path / "ray", some, ray, "base"), job(tmp_path / "local", some, local, "base"))


def test_ray_and_in_process_give_equal_tables_of_all_examples(tmp_path: Path, ray: RayRunner) -> None:
    assert_same_tables(job(tmp_path / "ray", examples(), ray), job(tmp_path / "local", examples(), local))


def test_what_a_round_loses_is_run_again_and_what_comes_twice_counts_once(tmp_path: Path) -> None:
    seed = random.randrange(2**31)
    print("seed", seed)  # noqa: T201 (a failure must be repeatable)
    rng = random.Random(seed)
    calls = 0

    def lossy(steps: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
        nonlocal calls
        calls += 1
        for table in in_process(steps, [hops.recordings_table(recordings)]):
            kept = table.filter(pa.array([calls > 1 or rng.random() < 0.5 for _ in range(len(table))]))
            yield kept
            if rng.random() < 0.5:
                yield kept

    some = examples("fr_standard.m4a", "ru_kommutator.ogg", "en_switchboard.mp3", "music.mp3", "truncated.m4a")
    assert_same_tables(job(tmp_path / "lossy", some, lossy), job(tmp_path / "whole", some, local))


def test_recording_that_never_answers_gets_a_failed_row(tmp_path: Path) -> None:
    def deaf(steps: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
        for table in in_process(steps, [hops.recordings_table(recordings)]):
            items = [item for item in hops.read_transcripts(table) if isinstance(item, Outcome)]
            yield hops.transcripts_table(item for item in items if not item.recording.uri.endswith("music.mp3"))

    out = job(tmp_path / "out", examples("music.mp3", "silence.wav"), deaf)
    found = {Path(row["uri"]).name: (row["status"], row["error_kind"]) for row in read_table(out, "recordings")}
    assert found == {"music.mp3": ("failed", "lost"), "silence.wav": ("ok", None)}


def test_rounds_go_on_as_long_as_they_finish_anything(tmp_path: Path) -> None:
    def one_a_round(steps: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
        yield from in_process(steps, [hops.recordings_table(recordings[:1])])

    out = job(tmp_path / "out", copies(tmp_path / "audio", "silence.wav", 7), one_a_round)
    assert [row["status"] for row in read_table(out, "recordings")] == ["ok"] * 7


def copies(folder: Path, name: str, count: int) -> Sequence[Recording]:
    folder.mkdir()
    for number in range(count):
        shutil.copy(EXAMPLES / name, folder / f"{number}-{name}")
    return resolve([str(folder)]).recordings


def workers(name: str) -> list[psutil.Process]:
    """Return the worker processes of this test's own Ray that are at a stage of this name."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith(f"ray::{name}"):
                found.append(process)
    return found


def killing(ray: RayRunner, name: str, killed: list[int]) -> object:
    """Return a runner on `ray` that kills the workers at a stage when the first transcripts have come."""

    def runner(steps: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
        for table in ray(steps, recordings):
            for process in workers(name) if not killed else []:
                process.kill()
                killed.append(process.pid)
            yield table

    return runner


def test_killed_decode_worker_loses_and_doubles_nothing(tmp_path: Path, ray: RayRunner) -> None:
    some = copies(tmp_path / "audio", "episode.m4a", 6)
    killed: list[int] = []
    out = job(tmp_path / "killed", some, killing(ray, "MapBatches(_task)", killed))
    assert killed
    assert_same_tables(out, job(tmp_path / "local", some, local))


@pytest.mark.slow
def test_killed_model_actor_loses_and_doubles_nothing(tmp_path: Path, ray: RayRunner) -> None:
    some = [*copies(tmp_path / "audio", "fr_standard.m4a", 4), *examples()]
    killed: list[int] = []
    out = job(tmp_path / "killed", some, killing(ray, "MapWorker", killed), "base")
    assert killed
    assert_same_tables(out, job(tmp_path / "local", some, local, "base"))


def test_blocks_hold_each_recording_once_longest_first() -> None:
    seed = random.randrange(2**31)
    print("seed", seed)  # noqa: T201
    rng = random.Random(seed)
    recordings = [Recording(str(n), "", rng.choice([None, rng.randrange(10**9)])) for n in range(1000)]
    blocks = list(pack(Recordings.of(recordings), limit=50))
    sizes = [one.size or 0 for block in blocks for one in block]
    assert sizes == sorted(sizes, reverse=True)
    assert sorted(one.id for block in blocks for one in block) == sorted(one.id for one in recordings)
    assert max(len(block) for block in blocks) <= 50
    assert all(len(block) == 1 or sum(one.size or 0 for one in block) <= 64 << 20 for block in blocks)


def test_cluster_that_does_not_answer_is_one_line() -> None:
    runner = RayRunner(RayOptions(address="127.0.0.1:1"))
    with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        runner.gpus()


def test_ray_that_does_not_start_here_is_one_line(tmp_path: Path) -> None:
    # In a process of its own: what Ray has started by then ends with it.
    line = ["transcribe", EXAMPLES / "silence.wav", "--out", tmp_path, "--model", "fake", "--object-store-gb", "0.01"]
    ran = subprocess.run([sys.executable, "-m", "jobs", *map(str, line)], capture_output=True, text=True)
    assert ran.returncode == 2
    error, hint = ran.stderr.splitlines()[-2:]
    assert error.startswith("error: Ray does not start here: ")
    assert "object store memory" in error
    assert hint.startswith("hint: ")
    assert "--runner local" in hint
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(("text", "pool"), [("1:4", (1, 4)), ("3", (3, 3))])
def test_pool_of_actors_is_read(text: str, pool: tuple[int, int]) -> None:
    assert RayOptions(actors=text).pool == pool


@pytest.mark.parametrize("text", ["", "0", "4:2", "a:b"])
def test_pool_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not MIN:MAX"):
        _ = RayOptions(actors=text).pool
