"""The real plan over a few recordings, with a clock beside it.

Duty: run it in this process and say what it took and made. Writes nothing. Knows no sources and no options.
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import pyarrow as pa

from pipeline import hops, rows
from pipeline.doubts import DoubtOptions
from pipeline.forecast import Heard, Measured
from pipeline.parts import encode
from pipeline.questions import of_tables
from pipeline.reviews import opinion_rows, review, review_rows
from pipeline.score import finish
from pipeline.stages import Plan, in_process
from pipeline.types import SAMPLE_RATE, Attempt, Finished, Outcome, Recording, Segment, Transcript

# What shares the measured time out, in seconds of encoding; decoding a second once takes about the same.
_STARTING = 3.0  # ffmpeg, for a recording
_CUTTING = 0.1  # a second
_PADDING_S = 4.0  # of a window, encoded and decoded beside its audio
_SAMPLING = 2.0  # decodings that one at a temperature above 0 takes the time of: it has several candidates
_LOOP = 2.4  # compression ratio above which a text repeats itself until there is no room left
_LOOP_S = 75.0  # of speech, that have as many tokens as there is room for


def measure(plan: Plan, recordings: Sequence[Recording]) -> tuple[Measured, list[Finished]]:
    """Run the plan over the recordings; return what that took, and what it made."""
    answers, costs = _run(plan, recordings)
    finished = [finish(transcripts, outcome) for outcome, transcripts in answers]
    return Measured(tuple(map(_heard, finished)), *costs, _bytes_of(finished)), finished


def measure_again(
    plan: Plan, first: Sequence[Finished], options: DoubtOptions, known: Collection[str] | None
) -> Measured:
    """Run the plan of the second pass over what is doubtful in the first one's transcripts.

    Of each recording `speech_s` is what was heard again of it, and `work` how many stretches that were.
    """
    by_id = {one.outcome.recording.id: one.outcome.recording for one in first}
    asked = dict(of_tables(*_tables(first)[:2], options, known))
    again = [replace(by_id[id_], asked=question.json()) for id_, question in asked.items() if question.stretches]
    answers, costs = _run(plan, again) if again else ([], (0.0, 0.0, 0.0))
    reviews = [review(sorted(transcripts, key=lambda one: one.passage), outcome) for outcome, transcripts in answers]
    heard_s = {one.outcome.recording.id: one.outcome.duration / SAMPLE_RATE for one in reviews}
    heard = []
    for one in first:
        id_ = one.outcome.recording.id
        seconds, stretches = one.outcome.duration / SAMPLE_RATE, len(asked[id_].stretches)
        heard.append(Heard(id_, seconds, heard_s.get(id_, 0.0), stretches, one.language, stretches))
    made = [opinion_rows(reviews), review_rows(reviews, part="part-0.parquet", model="", config_hash="", run_id="")]
    return Measured(tuple(heard), *costs, sum(map(_size, made)))


_Costs = tuple[float, float, float]  # seconds until the model was there; of wall time and of all cores from then on


def _run(plan: Plan, recordings: Sequence[Recording]) -> tuple[list[tuple[Outcome, list[Transcript]]], _Costs]:
    """Run a plan in this process, with the model loaded before the clock starts."""
    begun = time.monotonic()
    transcribe = plan[1].make()
    ready = replace(plan[1], make=lambda: transcribe)
    load_s = time.monotonic() - begun
    begun, cpu_s = time.monotonic(), _cpu_s()
    items: list[Transcript | Outcome] = []
    tables = (hops.recordings_table([recording]) for recording in recordings)
    for table in in_process((plan[0], ready, *plan[2:]), tables):
        items += hops.read_transcripts(table)
    costs = load_s, time.monotonic() - begun, _cpu_s() - cpu_s
    transcripts = defaultdict[str, list[Transcript]](list)
    for item in items:
        if isinstance(item, Transcript):
            transcripts[item.recording_id].append(item)
    return [(item, transcripts[item.recording.id]) for item in items if isinstance(item, Outcome)], costs


def _heard(one: Finished) -> Heard:
    recording, seconds = one.outcome.recording, one.outcome.duration / SAMPLE_RATE
    segments = [segment for _, segment in one.segments]
    speech_s = one.outcome.speech / SAMPLE_RATE
    work = _STARTING + _CUTTING * seconds + speech_s + _decoded_s(segments)
    return Heard(recording.id, seconds, speech_s, work, one.language, sum(len(segment.text) for segment in segments))


def _decoded_s(segments: Iterable[Segment]) -> float:
    """Return the seconds that were decoded, as often as they were; each window has some more, for its padding.

    Segments of one window have all its attempts in common.
    """
    seconds, before = 0.0, None
    for segment in segments:
        if segment.attempts != before:
            before = segment.attempts
            seconds += _PADDING_S + sum(_weight(one) * (_PADDING_S + _LOOP_S * _loops(one)) for one in before)
        plain_s = (segment.end - segment.start) / SAMPLE_RATE
        seconds += sum(_weight(one) * plain_s for one in before if not _loops(one))
    return seconds


def _weight(one: Attempt) -> float:
    return _SAMPLING if one.temperature else 1.0


def _loops(one: Attempt) -> bool:
    return one.compression_ratio > _LOOP


def _bytes_of(finished: list[Finished]) -> int:
    return sum(map(_size, _tables(finished)))


def _tables(finished: Sequence[Finished]) -> tuple[pa.Table, pa.Table, pa.Table]:
    about = {"part": "part-0.parquet", "model": "", "config_hash": "", "run_id": ""}
    return rows.recording_rows(finished, **about), rows.segment_rows(finished), rows.word_rows(finished)


def _size(table: pa.Table) -> int:
    """Return what a table takes, without what a file takes that has no rows."""
    return len(encode(table)) - len(encode(table.slice(0, 0)))


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
