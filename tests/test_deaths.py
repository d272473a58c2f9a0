"""What is known of deaths outlasts the driver that has seen them, and nothing else does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import deadly
import psutil
import pytest
from deadly import AT_CUTTING
from tables import assert_whole, read_table

from pipeline.attempts import DEATHS, KILLED, Roll
from pipeline.deaths import FILE, Deaths
from pipeline.ledger import Ledger
from pipeline.types import Outcome, Recording

TESTS = Path(__file__).parent
AUDIO = TESTS.parent / "examples" / "audio"
RECORDING = Recording("aa", "/a.mp3", 7, "1")


def opened(out: Path, **options: bool) -> Ledger:
    return Ledger.open(str(out), {}, model="fake", **options)


def test_next_driver_knows_what_workers_have_died_at(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING])
        ledger.deaths.note({"aa": 1, "aa/3": 2})
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING])
        assert ledger.deaths.known == {"aa": 1, "aa/3": 2}


def test_counts_go_on_from_what_is_known() -> None:
    roll = Roll(lambda: ("here", {"here"}), {"aa/3": DEATHS - 1, "bb": DEATHS})
    assert roll.deaths(["aa/3", "cc"]) == {"aa/3": DEATHS - 1}
    assert roll.killers() == {"bb"}


def test_what_is_complete_is_forgotten(tmp_path: Path) -> None:
    other = Recording("bb", "/b.mp3", 7, "1")
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING, other])
        ledger.receive([Outcome(RECORDING, passages=0, duration=0, speech=0)])
        ledger.deaths.note({"aa": 1, "bb/3": 1})
        assert ledger.deaths.known == {"bb/3": 1}
        ledger.receive([Outcome(other, passages=0, duration=0, speech=0)])
    assert not (tmp_path / "_staging" / FILE).exists()


@pytest.mark.parametrize("content", ['{"deaths": {}}', '{"deaths"'])  # the first: what was suspect has been completed
def test_file_that_says_nothing_goes_when_all_is_done(tmp_path: Path, content: str) -> None:
    (tmp_path / "_staging").mkdir()
    (tmp_path / "_staging" / FILE).write_text(content)
    with opened(tmp_path) as ledger:
        ledger.todo([])
    assert not (tmp_path / "_staging" / FILE).exists()


def test_recording_that_is_taken_up_again_begins_without_its_deaths(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING, Recording("bb", "/b.mp3", 7, "1")])
        ledger.deaths.note({"aa": DEATHS})
        ledger.quarantine(RECORDING, KILLED)
    with opened(tmp_path, retry_failed=True) as ledger:
        assert RECORDING in ledger.todo([RECORDING])
        assert ledger.deaths.known == {}


def test_nothing_is_written_where_nobody_dies(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING])
        ledger.deaths.note({})
        assert not (tmp_path / "_staging" / FILE).exists()


def test_driver_knows_whether_the_one_before_it_has_died(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        assert not ledger.deaths.followed
    with opened(tmp_path) as ledger:
        assert not ledger.deaths.followed
    opened(tmp_path)  # and never closed
    assert opened(tmp_path).deaths.followed


def test_damaged_file_is_no_knowledge(tmp_path: Path) -> None:
    (tmp_path / "_staging").mkdir()
    (tmp_path / "_staging" / FILE).write_text('{"deaths"')
    assert Deaths(str(tmp_path), lambda _: True).known == {}


@pytest.mark.slow
def test_deaths_on_ray_count_on_when_the_driver_is_killed(tmp_path: Path) -> None:
    audio, marks, out = (tmp_path / name for name in ("audio", "marks", "out"))
    audio.mkdir()
    marks.mkdir()
    for name in ("one", "two", AT_CUTTING):
        shutil.copy(AUDIO / "fr_standard.m4a", audio / f"{name}.m4a")
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = os.environ | {"PYTHONPATH": path, deadly.MARKS: str(marks)}
    line = [sys.executable, str(TESTS / "deadly.py"), "deadly", "ray", str(audio), str(out)]
    first = subprocess.Popen(line, env=environment)
    try:
        while not (out / "_staging" / FILE).exists():
            assert first.poll() is None
            time.sleep(0.1)
        ray = [one for one in psutil.Process(first.pid).children(recursive=True) if "Agent" not in one.name()]
    finally:
        first.kill()
        first.wait()
    assert psutil.wait_procs(ray, timeout=60)[1] == []  # a worker may have begun with the recording meanwhile
    known = Deaths(str(out), lambda _: True).known
    assert known
    begun = len(list(marks.glob("cutting*")))
    subprocess.run(line, env=environment, check=True, timeout=600)
    assert_whole(str(out))
    rows = {Path(row["uri"]).stem: row["error_kind"] for row in read_table(str(out), "recordings")}
    assert rows == {"one": None, "two": None, AT_CUTTING: "killed"}
    assert len(list(marks.glob("cutting*"))) <= begun + DEATHS - max(known.values())
