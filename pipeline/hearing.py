"""Stretches of recordings as passages: what a second opinion hears.

    Recording --excerpts--> Passage --Transcribe--> Transcript --mark--> Transcript --> ledger

Duty: audio from the first stretch that is asked about to the last in one piece, since a seek for each would cost more
where they lie close, and lands elsewhere in many formats. What lies before is not read where container and store allow
that. Knows no texts and no thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from pipeline import storage
from pipeline.decode import DecodeOptions
from pipeline.doubts import Question
from pipeline.edges import excerpts
from pipeline.errors import DataError
from pipeline.selection import Selection
from pipeline.stages import Stage, cut_tables, decoding, far_in, settled, within_reach
from pipeline.types import SAMPLE_RATE, Failure, Outcome, Passage, Recording, Span

LACKING = SAMPLE_RATE // 2  # samples that a stretch may be short of: codecs and headers round
ENDED = Failure("decode", "audio_missing", "the audio ends before what is asked about")


def excerpts_stage(options: DecodeOptions, labels: Mapping[str, str] | None = None) -> Stage:
    """Recordings that are asked about -> the stretches of the question, and closing rows."""
    one = partial(settled, partial(hear, options=options), storage.configured())
    return Stage("excerpts", partial(partial, cut_tables, one, name="excerpts"), cpus=1, labels=labels or {})


def hear(recording: Recording, options: DecodeOptions) -> Iterator[Passage | Outcome]:
    """Yield the stretches that a recording's question names, in order, then the Outcome; all that comes of them."""
    question = Question.read(recording.asked)
    spans = [stretch.span for stretch in question.stretches]
    origin, end = spans[0].start, max(span.end for span in spans)
    wanted = [Span(span.start - origin, span.end - origin) for span in spans]
    part = replace(recording, start=recording.start + origin, end=recording.start + end)
    passages = duration = 0
    failure = None
    with within_reach(part) if far_in(part) else nullcontext() as remote:
        decoder, blocks = decoding(part, options, Selection.of(question.selection), remote)
        try:
            for stretch, pcm in zip(question.stretches, excerpts(blocks, wanted), strict=True):
                if len(pcm) < len(stretch.span) - LACKING:
                    failure = ENDED
                    break
                whole = Span(stretch.start, stretch.start + len(pcm))  # whatever speech detection makes of it
                language = recording.language or stretch.language
                yield Passage(recording.id, passages, whole.start, pcm, (whole,), language, recording.initial_prompt)
                passages += 1
                duration += len(pcm)
        except DataError as error:  # what came before it is heard
            failure = error.failure
    yield Outcome(recording, passages, duration, duration, media=decoder.media, failure=failure)
