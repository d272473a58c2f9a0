"""What is said while a job runs: one line, in place on a terminal, now and then elsewhere."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs import progress
from jobs.progress import LOG_EVERY_S, Progress
from pipeline.types import SAMPLE_RATE, Failure, Finished, Outcome, Recording, Span

ROOT = Path(__file__).parents[1]
MINUTE = 60 * SAMPLE_RATE


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def recordings(*sizes: int | None) -> list[Recording]:
    return [Recording(str(number), f"{number}.mp3", size) for number, size in enumerate(sizes)]


def finished(recording: Recording, *speechless: Span, failed: bool = False) -> Finished:
    failure = Failure("decode", "unreadable", "no audio") if failed else None
    duration = 0 if failed else 5 * MINUTE
    return Finished(Outcome(recording, 1, duration, 0, speechless, failure=failure), None, None, ())


def test_line_before_anything_has_come(clock: Clock) -> None:
    assert Progress(recordings(100, 100)).line() == "0/2 recordings, 0.00 h of audio, 0.0x real time"


def test_line_counts_passages_speechless_stretches_failures_and_the_time_left(clock: Clock) -> None:
    todo = recordings(300, 100, 1200)
    state = Progress(todo)
    clock.now += 100
    state.update([], 3 * MINUTE)
    assert state.line() == "0/3 recordings, 0.05 h of audio, 1.8x real time"
    state.update([finished(todo[0], Span(0, 2 * MINUTE)), finished(todo[1], failed=True)], MINUTE)
    # A quarter of the bytes took 100 s.
    assert state.line() == "2/3 recordings, 0.10 h of audio, 3.6x real time, 1 failed, 0:05:00 left"


def test_time_left_goes_by_number_where_sizes_are_unknown(clock: Clock) -> None:
    todo = recordings(None, None, None)
    state = Progress(todo)
    clock.now += 3600
    state.update([finished(todo[0])], 5 * MINUTE)
    assert state.line().endswith(", 2:00:00 left")


def test_no_time_is_left_at_the_end(clock: Clock) -> None:
    todo = recordings(7)
    state = Progress(todo)
    clock.now += 10
    state.update([finished(todo[0])], 5 * MINUTE)
    assert state.line() == "1/1 recordings, 0.08 h of audio, 30.0x real time"


def test_without_a_terminal_there_is_a_plain_line_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = recordings(1, 1, 1)
    with Progress(todo) as state:
        for recording in todo[:2]:
            clock.now += LOG_EVERY_S - 1
            state.update([finished(recording)], 5 * MINUTE)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "2/3 recordings, 0.17 h of audio, 10.3x real time, 0:00:29 left\n"


def test_on_a_terminal_the_line_is_drawn_in_place_and_stdout_stays_data(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = ["transcribe", ROOT / "examples" / "audio", "--out", tmp_path, "--model", "fake", "--runner", "local"]
    job = subprocess.Popen(
        [sys.executable, "-m", "jobs", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    drawn = read_terminal(ours)
    out, _ = job.communicate(timeout=60)
    assert job.returncode == 0
    assert json.loads(out)["recordings"] == 9
    assert re.search(r"\r\x1b\[2K\d/9 recordings, ", drawn)
    after = drawn.rpartition("/9 recordings, ")[2]
    assert re.match(r".*\r?\n\r\x1b\[1A\x1b\[2K", after.replace("\x1b[?25h", ""))  # the last of it is taken away


def read_terminal(descriptor: int) -> str:
    """Return what is written there until the other side is closed."""
    read = b""
    while True:
        try:
            data = os.read(descriptor, 1 << 16)
        except OSError:  # Linux says the end so
            data = b""
        if not data:
            os.close(descriptor)
            return read.decode()
        read += data
