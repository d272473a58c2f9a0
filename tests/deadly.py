"""Stages that kill their worker at recordings of a name, as a fault of a library or the memory killer does.

`python deadly.py PLAN RUNNER AUDIO OUT` is a driver: PLAN is deadly, sound or patient, RUNNER local or ray.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.engines import FakeEngine
from pipeline.ledger import Ledger
from pipeline.ray_options import RayOptions
from pipeline.rounds import complete, local
from pipeline.run import RayRunner
from pipeline.score import ScoreOptions
from pipeline.sources import resolve
from pipeline.stages import CutOptions, Plan, Stage, Transcribe, cut, cut_tables, mark_stage, transcribe_stage
from pipeline.types import Outcome, Passage, Recording, Transcript
from pipeline.watched import LocalRunner
from pipeline.whisper.options import WhisperOptions

AT_CUTTING, AT_HEARING, AT_EASE = "deadly to cut", "deadly to hear", "long"
FAKE = WhisperOptions(model="fake", device="cpu", dtype="float32")
MARKS, HOW = "BULKSCRIBE_TEST_MARKS", "BULKSCRIBE_TEST_SIGNAL"  # a folder; a signal's name, else SIGKILL


def listed(folder: Path) -> list[Recording]:
    """Return the recordings of a folder; those that are deadly to hear in "Italian", all others in English."""
    found = resolve([str(folder)]).recordings
    return [replace(one, language="it" if AT_HEARING in one.uri else "en") for one in found]


def die(word: str) -> None:
    """End this process, and leave a mark of it."""
    mark(word)
    os.kill(os.getpid(), signal.Signals[os.environ.get(HOW, "SIGKILL")])
    time.sleep(60)


def mark(word: str) -> None:
    """Leave word, where it is asked for."""
    if MARKS in os.environ:
        Path(os.environ[MARKS], f"{word} {os.getpid()} {uuid.uuid4().hex}").touch()


def cut_or_die(recording: Recording) -> Iterator[Passage | Outcome]:
    """Cut; die behind the first passage of a recording of that name."""
    for item in cut(recording, CutOptions()):
        yield item
        if AT_CUTTING in recording.uri:
            die("cutting")


def cut_or_wait(recording: Recording) -> Iterator[Passage | Outcome]:
    """Cut; stay at a recording of that name until there is a mark that says to go on."""
    if AT_EASE in recording.uri:
        mark("begun")
        while not Path(os.environ[MARKS], "go").exists():
            time.sleep(0.05)
    yield from cut(recording, CutOptions())


class Engine(FakeEngine):
    """Dies at every second passage of Italian, which the test gives to recordings of that name alone."""

    def transcribe(self, passages: Iterable[Passage | None]) -> Iterator[Transcript | None]:
        """Answer, or die."""
        for passage in passages:
            if passage is not None and passage.language == "it" and passage.index % 2:
                die("hearing")
            yield from super().transcribe([passage])


def transcribe_or_die(options: WhisperOptions) -> Transcribe:
    """Return a Transcribe whose engine dies at times."""
    from pipeline import stages

    kept = stages.load_engine
    stages.load_engine = lambda _: Engine()
    try:
        return Transcribe(options)
    finally:
        stages.load_engine = kept


def deadly_plan() -> Plan:
    """Return the plan of a job in which both stages may die."""
    hearing = transcribe_stage(FAKE)
    return (
        Stage("cut", partial(partial, cut_tables, cut_or_die), cpus=1),
        replace(hearing, make=partial(transcribe_or_die, FAKE)),
        mark_stage(ScoreOptions()),
    )


def patient_plan() -> Plan:
    """Return the plan of a job that stays at a recording until it may go on."""
    cutting = Stage("cut", partial(partial, cut_tables, cut_or_wait), cpus=1)
    return cutting, transcribe_stage(FAKE), mark_stage(ScoreOptions())


def sound_plan() -> Plan:
    """Return the same without deaths."""
    cutting = partial(cut_tables, partial(cut, options=CutOptions()))
    return Stage("cut", lambda: cutting), transcribe_stage(FAKE), mark_stage(ScoreOptions())


PLANS = {"deadly": deadly_plan, "patient": patient_plan, "sound": sound_plan}


def main(plan: str, runner: str, audio: str, out: str) -> None:
    """Be a driver."""
    with Ledger.open(out, {}, model="fake") as ledger:
        where = LocalRunner(local) if runner == "local" else RayRunner(RayOptions())
        for finished, _ in complete(PLANS[plan](), ledger, ledger.todo(listed(Path(audio))), where):
            for one in finished:
                mark(f"{one.outcome.status} {one.outcome.recording.id}")


if __name__ == "__main__":
    main(*sys.argv[1:])
