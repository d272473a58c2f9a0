"""Stages that kill their worker at recordings of a name, as a fault of a library or the memory killer does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from pipeline.engines import FakeEngine
from pipeline.score import ScoreOptions
from pipeline.stages import CutOptions, Plan, Stage, Transcribe, cut, cut_tables, mark_stage, transcribe_stage
from pipeline.types import Outcome, Passage, Recording, Transcript
from pipeline.whisper.options import WhisperOptions

AT_CUTTING, AT_HEARING = "deadly to cut", "deadly to hear"
FAKE = WhisperOptions(model="fake", device="cpu", dtype="float32")


def cut_or_die(recording: Recording) -> Iterator[Passage | Outcome]:
    """Cut; die behind the first passage of a recording of that name."""
    for item in cut(recording, CutOptions()):
        yield item
        if AT_CUTTING in recording.uri:
            os.kill(os.getpid(), signal.SIGKILL)


class Engine(FakeEngine):
    """Dies at every second passage of Italian, which the test gives to recordings of that name alone."""

    def transcribe(self, passages: Iterable[Passage | None]) -> Iterator[Transcript | None]:
        """Answer, or die."""
        for passage in passages:
            if passage is not None and passage.language == "it" and passage.index % 2:
                os.kill(os.getpid(), signal.SIGKILL)
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


def sound_plan() -> Plan:
    """Return the same without deaths."""
    cutting = partial(cut_tables, partial(cut, options=CutOptions()))
    return Stage("cut", lambda: cutting), transcribe_stage(FAKE), mark_stage(ScoreOptions())
