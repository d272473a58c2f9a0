"""The real plan over a few recordings, with a clock beside it.

Duty: run it in this process and say what it took and made. Writes nothing. Knows no sources and no options.
"""

from __future__ import annotations

import io
import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import hops, rows
from pipeline.forecast import Heard, Measured
from pipeline.score import finish
from pipeline.stages import Plan, in_process
from pipeline.types import SAMPLE_RATE, Finished, Outcome, Recording, Segment, Transcript

_CUTTING = 0.2  # of a decoding: what cutting 30 s costs beside it; it only shares the measured time out


def measure(plan: Plan, recordings: Sequence[Recording]) -> Measured:
    """Run the plan over the recordings in this process, with the model loaded before the clock starts."""
    begun = time.monotonic()
    transcribe = plan[1].make()
    ready = replace(plan[1], make=lambda: transcribe)
    load_s = time.monotonic() - begun
    begun, cpu_s = time.monotonic(), _cpu_s()
    items: list[Transcript | Outcome] = []
    tables = (hops.recordings_table([recording]) for recording in recordings)
    for table in in_process((plan[0], ready, *plan[2:]), tables):
        items += hops.read_transcripts(table)
    wall_s, cpu_s = time.monotonic() - begun, _cpu_s() - cpu_s
    finished = [
        finish(
            (one for one in items if isinstance(one, Transcript) and one.recording_id == outcome.recording.id), outcome
        )
        for outcome in items
        if isinstance(outcome, Outcome)
    ]
    return Measured(tuple(map(_heard, finished)), load_s, wall_s, cpu_s, _bytes_of(finished))


def _heard(one: Finished) -> Heard:
    seconds = one.outcome.duration / SAMPLE_RATE
    segments = [segment for _, segment in one.segments]
    work = _decodings(segments) + _CUTTING * seconds / 30
    characters = sum(len(segment.text) for segment in segments)
    return Heard(seconds, one.outcome.speech / SAMPLE_RATE, work, one.language, characters)


def _decodings(segments: Iterable[Segment]) -> int:
    """Count decodings of windows: segments of one window have all its attempts in common."""
    count, before = 0, None
    for segment in segments:
        count += len(segment.attempts) if segment.attempts != before else 0
        before = segment.attempts
    return count


def _bytes_of(finished: list[Finished]) -> int:
    """Return what the tables of these recordings take, without what a file takes that has no rows."""
    about = {"part": "part-0.parquet", "model": "", "config_hash": "", "run_id": ""}
    made = [
        rows.recording_rows(finished, **about),
        rows.segment_rows(finished),
        rows.word_rows(finished),
    ]
    return sum(_file_size(table) - _file_size(table.slice(0, 0)) for table in made)


def _file_size(table: pa.Table) -> int:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.tell()


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
