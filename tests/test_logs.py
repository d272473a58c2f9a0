"""`--log-json`: every line on stderr is a JSON object, whatever happens; no secrets in any of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from clusters import add, cluster
from faulty_store import faulty_store
from tables import read_table

from pipeline import hops, logs
from pipeline.ledger import Ledger
from pipeline.rounds import complete
from pipeline.score import ScoreOptions
from pipeline.sources import resolve
from pipeline.stages import CutOptions, Plan, cut_stage, in_process, mark_stage, transcribe_stage
from pipeline.types import Recording
from pipeline.whisper.options import WhisperOptions

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "audio"
Line = dict[str, Any]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "jobs", "transcribe", *map(str, arguments), "--model", "fake", "--log-json"]


def run(*arguments: object, **more: Any) -> tuple[subprocess.CompletedProcess[str], list[Line]]:
    done = subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=600, check=False, **more
    )
    return done, parse(done.stderr)


def parse(text: str) -> list[Line]:
    """Return the lines, each of which must be an object that says when, how grave and what."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
        assert line["level"] in ("info", "warning", "error", "critical")
        assert line["event"]
        assert "run_id" in line
    return lines


def until_round(job: subprocess.Popen[str]) -> list[Line]:
    """Return the lines up to the one that says that work begins."""
    assert job.stderr
    lines: list[Line] = []
    while not lines or lines[-1]["event"] != "round":
        lines += parse(job.stderr.readline())
    return lines


def events(lines: Sequence[Line], name: str) -> list[Line]:
    return [line for line in lines if line["event"] == name]


def test_job_tells_its_start_each_recording_each_commit_and_its_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done, lines = run(EXAMPLES, "--out", out, "--runner", "local")
    assert done.returncode == 0
    recordings = {row["recording_id"]: row for row in read_table(str(out), "recordings")}
    assert Counter(line["event"] for line in lines if line["event"] not in ("commit", "progress")) == {
        "started": 1, "round": 1, "recording_finished": 8, "recording_failed": 1, "ended": 1
    }  # fmt: skip
    told = events(lines, "recording_finished") + events(lines, "recording_failed")
    assert {line["recording_id"]: line["uri"] for line in told} == {id_: row["uri"] for id_, row in recordings.items()}
    (failed,) = events(lines, "recording_failed")
    row = recordings[failed["recording_id"]]
    assert (failed["stage"], failed["kind"], failed["message"], failed["level"]) == (
        row["error_stage"],
        row["error_kind"],
        row["error_message"],
        "warning",
    )
    assert sum(line["recordings"] for line in events(lines, "commit")) == 9
    (run_id,) = {line["run_id"] for line in lines}
    assert {row["run_id"] for row in recordings.values()} == {run_id}
    (ended,) = events(lines, "ended")
    assert ended["ok"] == 8
    assert json.loads(done.stdout) == {name: ended[name] for name in json.loads(done.stdout)}


def test_finished_job_and_doubles_are_told_as_events(tmp_path: Path) -> None:
    arguments = (EXAMPLES / "music.mp3", EXAMPLES / "music.mp3", "--out", tmp_path, "--runner", "local")
    run(*arguments)
    _, lines = run(*arguments)
    assert [line["event"] for line in lines] == ["doubles", "started", "ended"]
    assert lines[1]["message"].endswith("nothing to do")


def test_what_the_user_did_wrong_is_an_event_too(tmp_path: Path) -> None:
    done, lines = run(tmp_path / "absent.mp3", "--out", tmp_path / "out", "--runner", "local")
    assert done.returncode == 2
    assert [line["event"] for line in lines] == ["error", "error"]
    assert lines[0]["message"].startswith("error: ")
    assert lines[1]["message"].startswith("hint: ")


def test_interrupted_job_says_so(tmp_path: Path) -> None:
    arguments = command(*[EXAMPLES / "episode.m4a"], "--out", tmp_path, "--runner", "local")
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as job:
        lines = until_round(job)
        job.send_signal(signal.SIGTERM)
        assert job.stderr
        lines += parse(job.stderr.read())
    assert job.returncode == 130
    assert events(lines, "interrupted")
    assert lines[-1]["event"] == "error"


def test_bug_is_a_line_with_its_traceback(tmp_path: Path) -> None:
    code = "from jobs import logs\nwith logs.talking(True):\n    1 / 0"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    (line,) = parse(done.stderr)
    assert done.returncode == 1
    assert (line["event"], line["level"]) == ("crashed", "critical")
    assert line["message"] == "ZeroDivisionError: division by zero"
    assert "1 / 0" in line["traceback"] or "line 3" in line["traceback"]


def test_warnings_of_other_libraries_are_lines(tmp_path: Path) -> None:
    code = "import logging, warnings\nfrom pipeline import logs\nlogs.start()\nwarnings.warn('old')\n"
    code += "logging.getLogger('other').warning('%s seconds', 3)\nlogging.getLogger('other').info('no')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = parse(done.stderr)
    assert [line["logger"] for line in lines] == ["py.warnings", "other"]
    assert lines[1]["message"] == "3 seconds"


def test_retries_of_a_store_name_the_recording_and_no_secret(tmp_path: Path) -> None:
    with faulty_store((EXAMPLES / "music.mp3").read_bytes()) as store:
        store.faults = ["truncate", "reset"]
        host = store.endpoint.removeprefix("http://")
        uri = f"http://anna:hunter2@{host}/radio/music.mp3?X-Amz-Signature=c0ffee"
        done, lines = run(uri, "--out", tmp_path, "--runner", "local")
    assert done.returncode == 0
    retries = events(lines, "store_retry")
    assert retries
    (row,) = read_table(str(tmp_path), "recordings")
    assert {(line["recording_id"], line["uri"]) for line in retries} == {(row["recording_id"], row["uri"])}
    assert "recording_id" not in events(lines, "ended")[0]
    for word in ("hunter2", "c0ffee"):
        assert word not in done.stderr


def test_recording_of_a_lost_block_is_told_when_it_is_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = 0

    def deaf_at_first(steps: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
        nonlocal calls
        calls += 1
        if calls > 1:
            yield from in_process(steps, [hops.recordings_table(recordings)])

    whisper = WhisperOptions(model="fake", device="cpu", dtype="float32")
    plan = cut_stage(CutOptions()), transcribe_stage(whisper), mark_stage(ScoreOptions())
    some = resolve([str(EXAMPLES / "silence.wav")]).recordings
    logs.start("run")
    try:
        with Ledger.open(str(tmp_path), {"model": "fake"}, model="fake") as ledger:
            list(complete(plan, ledger, ledger.todo(some), deaf_at_first))
    finally:
        logs.stop()
    lines = parse(capsys.readouterr().err)
    assert [line["event"] for line in lines] == ["round", "round", "retry", "commit"]
    assert (lines[2]["recording_id"], lines[2]["uri"]) == (some[0].id, some[0].uri)


@pytest.mark.slow
def test_job_on_ray_tells_events_only_and_a_dead_node_does_not_spoil_stdout(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ray") as folder, cluster(Path(folder)) as made:
        nodes = [add(made, "cpu", cpus=3) for _ in range(2)]
        arguments = command(EXAMPLES, "--out", tmp_path, "--address", made.address, "--decode-on", "role=cpu")
        with subprocess.Popen(arguments, cwd=ROOT, stdout=-1, stderr=-1, text=True) as job:
            lines = until_round(job)
            time.sleep(3)
            made.remove_node(nodes[0], allow_graceful=False)
            out, err = job.communicate(timeout=300)
    lines += parse(err)
    assert job.returncode == 0
    assert json.loads(out)["ok"] == 8
    assert len(events(lines, "recording_finished")) == 8
    assert any("dead" in line["message"] for line in events(lines, "ray"))


def test_lines_hold_no_secret_of_any_field(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs.start("run")
    secret = "https://anna:hunter2@example.org/a.mp3?X-Amz-Signature=c0ffee&sig=abc123"
    try:
        record = {"uri": secret, "deep": {"list": [secret]}, "message": f"cannot open {secret}"}
        logs.logging.getLogger("pipeline.x").warning("failed", extra={"fields": record})
        logs.logging.getLogger("other").error("no %s", secret)
    finally:
        logs.logging.getLogger().removeHandler(handler)
        logs.stop()
    text = capsys.readouterr().err
    assert len(parse(text)) == 2
    for word in ("hunter2", "c0ffee", "abc123"):
        assert word not in text
