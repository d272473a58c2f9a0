"""`bulkscribe transcribe` as a user runs it: a process of its own, its exit code, stdout and stderr."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from s3_server import s3_server
from tables import assert_same_tables, assert_whole, read_table

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
ROOT = EXAMPLES.parents[1]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "jobs", "transcribe", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def fake(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run(*arguments, "--model", "fake", "--runner", "local")


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


def test_new_recordings_join_an_output(tmp_path: Path) -> None:
    out = tmp_path / "out"
    fake(EXAMPLES / "music.mp3", "--out", out)
    done = fake(EXAMPLES, "--out", out)
    assert "1 recordings are done" in done.stderr
    assert len(read_table(str(out), "recordings")) == 9


def test_other_options_on_the_same_output_are_refused_by_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    fake(EXAMPLES / "music.mp3", "--out", out)
    assert_refused(fake(EXAMPLES, "--out", out, "--passage-max-s", 60), "passage_max_s", "300", "60")


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
    assert_refused(run(EXAMPLES, "--out", tmp_path / "out", "--runner", "local", *arguments), words)


def test_source_without_audio_is_one_line_and_a_hint(tmp_path: Path) -> None:
    assert_refused(fake(tmp_path / "gone", "--out", tmp_path / "out"))
    assert_refused(fake(ROOT / "docs", "--out", tmp_path / "out"))


def test_too_many_failures_end_the_job_with_an_error(tmp_path: Path) -> None:
    broken = EXAMPLES / "truncated.m4a"
    assert fake(broken, "--out", tmp_path / "a").returncode == 1
    assert fake(broken, "--out", tmp_path / "b", "--max-failed", 1).returncode == 0


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
    out = tmp_path / "out"
    done = run(EXAMPLES / "fr_standard.m4a", "--out", out, "--runner", "local", "--task", "translate")
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


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_a_state_to_go_on_from(tmp_path: Path, how: signal.Signals) -> None:
    out, sources = tmp_path / "out", (EXAMPLES / "episode.m4a", EXAMPLES / "music.mp3")
    job = subprocess.Popen(
        command(*sources, "--out", out, "--runner", "local"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while not list(out.glob("runs/*.json")):  # until it is at work
        assert job.poll() is None
        time.sleep(0.2)
    time.sleep(3)
    job.send_signal(how)
    _, talk = job.communicate(timeout=120)
    assert job.returncode == 130
    assert "run the same command to go on" in talk
    assert "Traceback" not in talk
    assert run(*sources, "--out", out, "--runner", "local").returncode == 0
    assert len(read_table(str(out), "recordings")) == 2


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
    kill_until_done(command(EXAMPLES, "--out", killed), 60.0, random.Random(seed))
    assert_whole(str(killed))
    assert_same_tables(str(whole), str(killed))
