"""Recordings that kill their worker get a row, and everything else its text."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import deadly as deadly_stages
import pytest
from deadly import AT_CUTTING, AT_HEARING, deadly_plan, sound_plan
from ray import cloudpickle
from tables import assert_same_tables, assert_whole, read_table

from pipeline.attempts import DEATHS, Roll, Worker
from pipeline.ledger import Ledger
from pipeline.processes import started
from pipeline.ray_options import RayOptions
from pipeline.rounds import complete, local
from pipeline.run import RayRunner
from pipeline.sources import resolve
from pipeline.types import Recording

AUDIO = Path(__file__).parents[1] / "examples" / "audio"
HERE, THERE = "here", "there"


@pytest.fixture
def ray() -> Iterator[RayRunner]:
    cloudpickle.register_pickle_by_value(deadly_stages)  # workers do not see the tests' folder
    runner = RayRunner(RayOptions())
    yield runner
    runner.close()
    cloudpickle.unregister_pickle_by_value(deadly_stages)


def listed(folder: Path) -> list[Recording]:
    """Return recordings of which one kills at cutting, and one, in "Italian", at hearing."""
    folder.mkdir()
    for number in range(5):
        shutil.copy(AUDIO / "fr_standard.m4a", folder / f"{number}.m4a")
    shutil.copy(AUDIO / "episode.m4a", folder / "long.m4a")
    shutil.copy(AUDIO / "episode.m4a", folder / f"{AT_CUTTING}.m4a")
    shutil.copy(AUDIO / "episode.m4a", folder / f"{AT_HEARING}.m4a")
    found = resolve([str(folder)]).recordings
    return [replace(one, language="it" if AT_HEARING in one.uri else "en") for one in found]


@pytest.mark.slow
def test_recordings_that_kill_their_worker_get_a_row_and_all_others_their_text(tmp_path: Path, ray: RayRunner) -> None:
    recordings = listed(tmp_path / "audio")
    deadly, sound = str(tmp_path / "deadly"), str(tmp_path / "sound")
    with Ledger.open(deadly, {}, model="fake") as ledger:
        list(complete(deadly_plan(), ledger, ledger.todo(recordings), ray))
    assert_whole(deadly)
    failed = {row["uri"]: row["error_kind"] for row in read_table(deadly, "recordings") if row["status"] != "ok"}
    assert failed == {one.uri: "killed" for one in recordings if "deadly" in one.uri}
    # What is tried again on a mended machine comes out as if nothing had been.
    with Ledger.open(deadly, {}, model="fake", retry_failed=True) as ledger:
        list(complete(sound_plan(), ledger, ledger.todo(recordings), local))
    with Ledger.open(sound, {}, model="fake") as ledger:
        list(complete(sound_plan(), ledger, ledger.todo(recordings), local))
    assert_same_tables(deadly, sound)


@pytest.fixture
def dead() -> Worker:
    """A worker of this node that has died."""
    with subprocess.Popen(["sleep", "60"]) as process:
        worker = Worker(HERE, process.pid, started(process.pid))
        process.kill()
    return worker


def roll() -> Roll:
    return Roll(lambda: (HERE, {HERE, THERE}))


def test_what_a_dead_worker_had_begun_counts_and_what_it_had_ended_does_not(dead: Worker) -> None:
    told = roll()
    assert told.begin(dead, ["ended", "begun"]) == {}
    told.end(dead, ["ended"])
    assert told.deaths(["ended", "begun", "unknown"]) == {"begun": 1}


def test_bystander_of_many_deaths_is_suspected_once(dead: Worker) -> None:
    told = roll()
    told.begin(dead, ["culprit", "bystander"])
    for pid in range(5):
        another = Worker(THERE, pid, "1")
        told.begin(another, ["culprit", "bystander"])
        told.retry(another, "culprit")
    assert told.begin(Worker(THERE, 5, "1"), ["culprit", "bystander"]) == {"culprit": 6, "bystander": 1}


def test_worker_that_lives_has_not_died() -> None:
    told = roll()
    told.begin(Worker(HERE, os.getpid(), started(os.getpid())), ["begun"])
    assert told.deaths(["begun"]) == {}


def test_worker_whose_node_was_taken_away_is_no_victim() -> None:
    told = roll()
    told.begin(Worker("gone", 1, "1"), ["begun"])
    told.begin(Worker(THERE, 1, "1"), ["begun"])
    assert told.begin(Worker(THERE, 2, "1"), ["begun"]) == {"begun": 1}


def test_worker_on_another_node_counts_as_dead_when_another_asks_for_what_it_was_at() -> None:
    told = roll()
    told.begin(Worker(THERE, 1, "1"), ["one", "two"])
    assert told.suspects() == {}
    told.begin(Worker(THERE, 2, "1"), ["one"])
    assert told.suspects() == {"one": 1}
    told.end(Worker(THERE, 1, "1"), ["one", "two"])  # it was not dead after all
    assert told.suspects() == {}


def test_worker_that_asks_has_not_died() -> None:
    told = roll()
    asking = Worker(THERE, 1, "1")
    told.begin(asking, ["begun"])
    assert told.deaths(["begun"], asking) == {}


def test_recording_is_given_up_when_enough_workers_have_died_at_one_of_its_passages() -> None:
    told = roll()
    for pid in range(DEATHS):
        assert told.killers() == set()
        told.begin(Worker(THERE, pid, "1"), ["abc/7"])
        told.retry(Worker(THERE, pid, "1"), "abc/7")
    told.begin(Worker(THERE, DEATHS, "1"), ["abc/7"])
    assert told.killers() == {"abc"}


def test_recording_that_is_given_up_is_not_tried_with_its_other_passages() -> None:
    told = Roll(lambda: (HERE, {HERE}), {"abc/7": DEATHS, "abc/8": 1})
    asking = Worker(HERE, os.getpid(), started(os.getpid()))
    assert told.begin(asking, ["abc/7"]) == {"abc/7": DEATHS}
    assert told.begin(asking, ["abc", "abc/8", "abc/9", "other/9"]) == dict.fromkeys(["abc", "abc/8", "abc/9"], DEATHS)
