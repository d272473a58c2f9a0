"""A job in one process that has died: what killed it is left out, and what only stood by is not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import deadly
import pytest
from deadly import AT_CUTTING, AT_EASE, AT_HEARING
from tables import assert_same_tables, assert_whole, read_table

from pipeline.processes import started
from pipeline.watched import ALONE

TESTS = Path(__file__).parent
AUDIO = TESTS.parent / "examples" / "audio"


def folder(path: Path, **files: str) -> Path:
    """Make a folder of links to examples, by the names that they get there."""
    path.mkdir()
    for name, example in files.items():
        (path / f"{name}{Path(example).suffix}").symlink_to(AUDIO / example)
    return path


def driver(plan: str, audio: Path, out: Path, marks: Path, how: str = "SIGKILL") -> subprocess.Popen[bytes]:
    """Start a driver with `--runner local`'s runner."""
    marks.mkdir(exist_ok=True)
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = os.environ | {"PYTHONPATH": path, deadly.MARKS: str(marks), deadly.HOW: how}
    return subprocess.Popen(
        [sys.executable, str(TESTS / "deadly.py"), plan, "local", str(audio), str(out)], env=environment
    )


def marked(marks: Path, word: str) -> list[str]:
    """Return the rest of all marks that begin with a word."""
    return [path.name.partition(" ")[2] for path in marks.iterdir() if path.name.split()[0] == word]


def failures(out: Path) -> dict[str, tuple[str, str]]:
    """Return error kind and message of all recordings that are not ok, by name."""
    rows = read_table(str(out), "recordings")
    return {Path(row["uri"]).stem: (row["error_kind"], row["error_message"]) for row in rows if row["status"] != "ok"}


@pytest.mark.parametrize("how", [pytest.param("SIGKILL", marks=pytest.mark.slow), "SIGSEGV"])
def test_what_kills_the_driver_is_left_out_when_the_same_command_is_run_again(tmp_path: Path, how: str) -> None:
    names = {"a": "fr_standard.m4a", "z": "ru_kommutator.ogg", AT_CUTTING: "fr_standard.m4a", AT_HEARING: "episode.m4a"}
    audio, marks, out = folder(tmp_path / "audio", **names), tmp_path / "marks", tmp_path / "out"
    assert driver("deadly", audio, out, marks, how).wait() == -signal.Signals[how]
    assert driver("deadly", audio, out, marks, how).wait() == 0
    assert_whole(str(out))
    found = failures(out)
    assert {name: kind for name, (kind, _) in found.items()} == {AT_CUTTING: "killed", AT_HEARING: "killed"}
    assert all(f"{ALONE} processes died at it, the last by {how}" in message for _, message in found.values())
    deaths = len(marked(marks, "cutting")) + len(marked(marks, "hearing"))
    assert deaths <= 1 + 2 * ALONE  # the driver's own, and those of the processes that it watched
    shutil.rmtree(marks)
    assert driver("deadly", audio, out, marks, how).wait() == 0  # nothing to do: nobody dies
    assert list(marks.iterdir()) == []


def test_ends_of_drivers_by_others_are_never_laid_to_what_was_in_hand(tmp_path: Path) -> None:
    names = {"a": "fr_standard.m4a", AT_EASE: "en_switchboard.mp3", "z": "silence.wav"}
    audio, marks, out = folder(tmp_path / "audio", **names), tmp_path / "marks", tmp_path / "out"
    for number in range(1, ALONE + 2):
        job = driver("patient", audio, out, marks)
        while len(marked(marks, "begun")) < number:
            assert job.poll() is None
            time.sleep(0.02)
        job.kill()
        job.wait()
    workers = {int(word.split()[0]) for word in marked(marks, "begun")} - {job.pid}
    assert len(workers) == ALONE + 1
    until = time.monotonic() + 10
    while any(started(pid) for pid in workers):  # who works ends with the driver
        assert time.monotonic() < until
        time.sleep(0.05)
    (marks / "go").touch()
    assert driver("patient", audio, out, marks).wait() == 0
    assert driver("sound", audio, tmp_path / "sound", marks).wait() == 0
    assert failures(out) == {}
    assert_same_tables(str(out), str(tmp_path / "sound"))
    assert_whole(str(out))


@pytest.mark.slow
def test_recording_at_which_watched_processes_are_killed_by_chance_is_tried_again(tmp_path: Path) -> None:
    names = {"a": "fr_standard.m4a", AT_EASE: "en_switchboard.mp3"}
    audio, marks, out = folder(tmp_path / "audio", **names), tmp_path / "marks", tmp_path / "out"
    first = driver("patient", audio, out, marks)
    for number in range(1, ALONE + 1):  # the driver, then processes that it watches, but one
        while len(marked(marks, "begun")) < number:
            time.sleep(0.02)
        newest = max((marks / name for name in os.listdir(marks) if name.startswith("begun")), key=os.path.getmtime)
        os.kill(int(newest.name.split()[1]), signal.SIGKILL)
        if number == 1:
            assert first.wait() == -signal.SIGKILL
            second = driver("patient", audio, out, marks)
    (marks / "go").touch()
    assert second.wait() == 0
    assert failures(out) == {}
