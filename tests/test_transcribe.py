"""`bulkscribe transcribe` as a user runs it: its exit code, stdout and stderr, and its process where that matters."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from click.testing import CliRunner
from s3_server import s3_server
from tables import assert_same_tables, assert_whole, read_table

from jobs import main
from pipeline.rounds import local
from pipeline.stages import Plan
from pipeline.types import Recording

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
ROOT = EXAMPLES.parents[1]
MODEL, ON_RAY = ("--runner", "local", "--temperatures", "0"), ("--runner", "ray", "--model", "fake")
Run = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "jobs", "transcribe", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, without Ray; a bug is this test's."""
    words = ["transcribe", *map(str, arguments), "--runner", "local"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def fake(*arguments: object) -> subprocess.CompletedProcess[str]:
    return here(*arguments, "--model", "fake")


def counts(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """Return the JSON line: all that stdout holds."""
    (line,) = done.stdout.splitlines()
    found: dict[str, object] = json.loads(line)
    return found


def content(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_each_recording_has_a_row_and_the_same_command_does_nothing_more(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = fake(EXAMPLES, "--out", out)
    assert first.returncode == 0
    assert counts(first) | {"wall_s": 0, "times_real_time": 0} == {
        "ok": 8,
        "partial": 0,
        "failed": 1,
        "segments": counts(first)["segments"],
        "flagged_segments": 0,
        "omissions": 0,
        "omitted_s": 0,
        "audio_hours": counts(first)["audio_hours"],
        "wall_s": 0,
        "times_real_time": 0,
        "recordings": 9,
        "already_done": 0,
        "out": str(out),
    }
    assert_whole(str(out))
    before = content(out)
    again = run(EXAMPLES, "--out", out, "--model", "fake")  # on Ray, which need not start
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert counts(again)["already_done"] == 9
    assert content(out) == before


def test_finished_job_does_not_even_load_ray(tmp_path: Path) -> None:
    arguments = [*command(EXAMPLES / "music.mp3", "--out", tmp_path), "--model", "fake"]
    assert fake(EXAMPLES / "music.mp3", "--out", tmp_path).returncode == 0
    arguments[1:1] = ["-X", "importtime"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    loaded = set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))
    assert "nothing to do" in done.stderr
    assert "pipeline.run" in loaded
    assert not {"ray", "torch"} & loaded


def test_new_recordings_join_an_output(tmp_path: Path) -> None:
    out = tmp_path / "out"
    fake(EXAMPLES / "music.mp3", "--out", out)
    done = fake(EXAMPLES / "music.mp3", EXAMPLES / "silence.wav", EXAMPLES / "truncated.m4a", "--out", out)
    assert "1 recordings are done" in done.stderr
    assert len(read_table(str(out), "recordings")) == 3


def test_other_options_on_the_same_output_are_refused_by_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    fake(EXAMPLES / "music.mp3", "--out", out)
    assert_refused(fake(EXAMPLES, "--out", out, "--passage-max-s", 60), "passage_max_s", "90", "60")


def test_manifest_forces_languages_and_its_other_columns_travel(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"uri,language,show\n{EXAMPLES / 'fr_standard.m4a'},de,Café\n", encoding="utf-8")
    out = tmp_path / "out"
    assert fake(manifest, "--out", out).returncode == 0
    (row,) = read_table(str(out), "recordings")
    assert row["language"] == "de"
    assert json.loads(row["metadata"]) == {"show": "Café"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "nonsense"), "no model is called 'nonsense'"),
        (("--model", "small"), "small"),
        (("--language", "xx"), "no language 'xx'"),
        (("--actors", "x"), "--actors x"),
    ],
)
def test_what_cannot_be_is_one_line_and_a_hint(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    assert_refused(here(EXAMPLES, "--out", tmp_path / "out", *arguments), words)


def test_source_without_audio_is_one_line_and_a_hint(tmp_path: Path) -> None:
    assert_refused(fake(tmp_path / "gone", "--out", tmp_path / "out"))
    assert_refused(fake(ROOT / "docs", "--out", tmp_path / "out"))


def test_too_many_failures_end_the_job_with_an_error(tmp_path: Path) -> None:
    broken = EXAMPLES / "truncated.m4a"
    assert fake(broken, "--out", tmp_path / "a").returncode == 1
    assert fake(broken, "--out", tmp_path / "b", "--max-failed", 1).returncode == 0


def test_audio_that_comes_twice_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(plan: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
        for table in local(plan, recordings):
            yield from (table, table)

    monkeypatch.setattr("jobs.running.local", twice)
    out = tmp_path / "out"
    done = fake(EXAMPLES / "episode.m4a", "--out", out)
    (row,) = read_table(str(out), "recordings")
    assert counts(done)["audio_hours"] == round(row["duration_s"] / 3600, 4)


def test_failed_recording_is_taken_up_again_when_asked(tmp_path: Path) -> None:
    audio, out = tmp_path / "talk.mp3", tmp_path / "out"
    manifest = tmp_path / "list.csv"
    manifest.write_text("uri\ntalk.mp3\n")
    assert fake(manifest, "--out", out).returncode == 1
    audio.write_bytes((EXAMPLES / "en_switchboard.mp3").read_bytes())
    assert fake(manifest, "--out", out, "--retry-failed").returncode == 0
    (row,) = read_table(str(out), "recordings")
    assert row["status"] == "ok"


def test_translation_is_english(tmp_path: Path) -> None:
    out, manifest = tmp_path / "out", tmp_path / "list.csv"
    manifest.write_text(f"uri,start,end\n{EXAMPLES / 'fr_standard.m4a'},9,22\n")
    done = here(manifest, "--out", out, "--task", "translate", "--temperatures", 0)
    assert done.returncode == 0
    text = " ".join(row["text"] for row in read_table(str(out), "segments")).lower()
    assert "connect" in text
    assert "the" in text.split()
    assert {row["task"] for row in read_table(str(out), "segments")} == {"translate"}


def test_objects_of_a_store_are_transcribed(tmp_path: Path) -> None:
    with s3_server():
        import boto3

        store = boto3.client("s3")
        for name in ("fr_standard.m4a", "music.mp3", "truncated.m4a"):
            store.upload_file(str(EXAMPLES / name), "audio", f"show/{name}")
        store.close()
        assert fake("s3://audio/show/", "--out", tmp_path / "out").returncode == 0
    found = {row["uri"]: row["status"] for row in read_table(str(tmp_path / "out"), "recordings")}
    assert found == {
        "s3://audio/show/fr_standard.m4a": "ok",
        "s3://audio/show/music.mp3": "ok",
        "s3://audio/show/truncated.m4a": "failed",
    }


def at_work(out: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start the command, in a process group as a shell does, and return it when its run has begun."""
    job = subprocess.Popen(
        command(*arguments, "--out", out),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    while not list(out.glob("runs/*.json")):
        assert job.poll() is None
        time.sleep(0.1)
    return job


def copies(folder: Path, count: int, name: str = "episode.m4a") -> Path:
    folder.mkdir()
    for number in range(count):
        shutil.copy(EXAMPLES / name, folder / f"{number}.m4a")
    return folder


def wait_for_process(job: subprocess.Popen[str], words: str) -> None:
    """Wait until a process under `job` has these words in its command line."""
    while True:
        assert job.poll() is None
        for process in psutil.Process(job.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    return
        time.sleep(0.05)


def assert_interrupted(job: subprocess.Popen[str]) -> None:
    data, talk = job.communicate(timeout=120)
    # A shell sees 130 in both cases. Python takes the second where it was interrupted in the middle of an import.
    assert job.returncode in (130, -signal.SIGINT)
    assert data == ""
    assert "run the same command to go on" in talk
    assert "Traceback" not in talk


def at_large(process: psutil.Process) -> bool:
    """Say whether it has not ended. A zombie has: in some containers nobody collects it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_end(processes: list[psutil.Process]) -> None:
    """Fail unless they end within half a minute."""
    until = time.monotonic() + 30
    while left := [process for process in processes if at_large(process)]:
        assert time.monotonic() < until, left
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("how", "name", "count", "arguments", "go_on"),
    [
        pytest.param(signal.SIGINT, "fr_standard.m4a", 1, MODEL, here, id="model-INT"),
        pytest.param(signal.SIGINT, "episode.m4a", 3, ON_RAY, here, id="ray-INT"),
        pytest.param(signal.SIGTERM, "episode.m4a", 6, ON_RAY, run, id="ray-TERM", marks=pytest.mark.slow),
    ],
)
def test_interruption_leaves_a_state_to_go_on_from(
    tmp_path: Path, how: signal.Signals, name: str, count: int, arguments: tuple[str, ...], go_on: Run
) -> None:
    out, audio = tmp_path / "out", copies(tmp_path / "audio", count, name)
    job = at_work(out, audio, *arguments)
    if "ray" in arguments:
        wait_for_process(job, "ray::Map")
        children = psutil.Process(job.pid).children(recursive=True)
        time.sleep(random.random() / 2)
    else:
        children = []
        time.sleep(random.random() * 2)
    if how == signal.SIGINT:
        os.killpg(job.pid, how)  # as a terminal does
    else:
        job.send_signal(how)
    assert_interrupted(job)
    assert_end(children)  # Ray goes with its driver
    again = go_on(audio, *arguments, "--out", out)
    assert again.returncode == 0
    assert counts(again)["recordings"] == len(read_table(str(out), "recordings")) == count
    assert_whole(str(out))


def test_interrupted_job_keeps_what_is_complete(tmp_path: Path) -> None:
    out, audio = tmp_path / "out", copies(tmp_path / "audio", 6)
    job = at_work(out, audio, "--runner", "local", "--model", "fake")
    wait_for_process(job, "3.m4a")
    job.send_signal(signal.SIGTERM)
    assert_interrupted(job)
    kept = len(read_table(str(out), "recordings"))
    assert kept > 0
    assert counts(fake(audio, "--out", out))["already_done"] == kept
    assert len(read_table(str(out), "recordings")) == 6


def kill_until_done(arguments: list[str], seconds: float, rng: random.Random) -> int:
    """Run a command and kill -9 it after a random time, until it ends by itself; return how often it was killed.

    The time grows from a sixth of `seconds`, so that the first kills come early and the last run is left alone.
    """
    for kills in range(200):
        job = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert job.wait(timeout=rng.random() * seconds * (kills + 1) / 6) == 0
        except subprocess.TimeoutExpired:
            os.kill(job.pid, signal.SIGKILL)
            job.wait()
        else:
            return kills
    raise AssertionError("the job never ended")


def test_killed_driver_loses_and_doubles_nothing(tmp_path: Path) -> None:
    seed = random.randrange(2**31)
    print("seed", seed)  # noqa: T201 (a failure must be repeatable)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert fake(EXAMPLES, "--out", whole).returncode == 0
    arguments = command(EXAMPLES, "--out", killed, "--model", "fake", "--runner", "local")
    assert kill_until_done(arguments, 6.0, random.Random(seed)) > 0
    assert_whole(str(killed))
    assert_same_tables(str(whole), str(killed))


@pytest.mark.slow
def test_killed_driver_on_ray_with_the_real_model_loses_and_doubles_nothing(tmp_path: Path) -> None:
    seed = random.randrange(2**31)
    print("seed", seed)  # noqa: T201
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(EXAMPLES, "--out", whole).returncode == 0
    assert kill_until_done(command(EXAMPLES, "--out", killed), 60.0, random.Random(seed)) > 0
    assert_whole(str(killed))
    assert_same_tables(str(whole), str(killed))


def test_stretches_of_a_file_have_rows_with_the_files_times(tmp_path: Path) -> None:
    out, manifest = tmp_path / "out", tmp_path / "stretches.csv"
    episode = EXAMPLES / "episode.m4a"
    manifest.write_text(f"uri,start,end,text\n{episode},10,40,a\n{episode},100.5,130,b\n{episode},200,900,c\n")
    done = fake(manifest, "--out", out)
    assert counts(done)["ok"] == 3, done.stderr
    assert_whole(str(out))
    checked = CliRunner().invoke(main, ["check", str(out), "--source", str(manifest)])
    assert checked.exit_code == 0, checked.output
    rows = {row["start_s"]: row for row in read_table(str(out), "recordings")}
    assert {start: row["end_s"] for start, row in rows.items()} == {10.0: 40.0, 100.5: 130.0, 200.0: 900.0}
    assert [rows[start]["duration_s"] for start in sorted(rows)] == pytest.approx([30.0, 29.5, 41.6], abs=0.1)
    segments = read_table(str(out), "segments")
    for start, row in rows.items():
        times = [(one["start"], one["end"]) for one in segments if one["recording_id"] == row["recording_id"]]
        assert times, start
        assert min(times)[0] >= start
        assert max(end for _, end in times) <= min(row["end_s"], 241.7)
    assert "nothing to do" in fake(manifest, "--out", out).stderr
