"""What an output holds, and how it comes to be: a book for transcripts, one for decisions, one for second opinions.

Duty: the tables of each kind of output, when what came of a recording is all of it, and its rows. The ledger, which is
the same for all, keeps the law. Knows no files and no runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import pyarrow as pa

from pipeline import decisions, rows, score
from pipeline.decision_rows import decision_rows
from pipeline.decisions import FilterOptions
from pipeline.reviews import opinion_rows, review, review_rows
from pipeline.speakers import SpeakerOptions
from pipeline.types import SAMPLE_RATE, Finished, Look, Outcome, Review, Span, Survey, Transcript


@dataclass(frozen=True)
class Layout:
    """The tables of an output. Parts have the same name in each of them."""

    ledger: str  # one row a recording: what is done
    heard: str  # its column of how many seconds were decoded
    beside: tuple[str, ...] = ()  # tables that have a part, if an empty one, for each of the ledger's
    optional: tuple[str, ...] = ()  # tables that have one where there are rows

    @property
    def tables(self) -> tuple[str, ...]:
        """All of them, in the order of writing."""
        return (*self.beside, *self.optional, self.ledger)


@dataclass(frozen=True)
class Stamp:
    """What each row of the ledger's table says of its writing."""

    part: str
    model: str
    config_hash: str
    run_id: str


@dataclass(frozen=True)
class Book:
    """One kind of output. Its recordings, when they are complete, are what `whole` returns: `Finished`, `Survey` or
    `Review`.
    """

    layout: Layout
    what: str  # it holds, in a word for people
    whole: Callable[[Sequence[Any], Outcome], Any]  # None as long as material is missing
    tables: Callable[[Sequence[Any], Stamp], Iterator[tuple[str, pa.Table]]]
    counted: tuple[str, ...]  # what a run counts beside statuses
    counts: Callable[[Any], Mapping[str, float]]  # what a recording adds to that
    sizes: Callable[[Any], Mapping[str, int]]  # rows of a recording in the tables beside the ledger's


def _whole_transcript(options: SpeakerOptions, transcripts: Sequence[Transcript], outcome: Outcome) -> Finished | None:
    """Return the recording when passages and speechless stretches cover it from end to end, without overlap.

    The count alone would not do: after a lost worker the passages of two attempts may stand here, and these
    differ where the store broke off at another place. Then the rest of the later attempt makes it whole.
    """
    spans = sorted([*(t.span for t in transcripts), *outcome.speechless], key=lambda span: span.start)
    edges = [0, *(edge for span in spans for edge in (span.start, span.end)), outcome.duration]
    if any(edges[i] != edges[i + 1] for i in range(0, len(edges), 2)):
        return None
    return score.finish(transcripts, outcome, options)


def _transcript_tables(finished: Sequence[Finished], stamp: Stamp) -> Iterator[tuple[str, pa.Table]]:
    yield "segments", rows.segment_rows(finished)
    yield "words", rows.word_rows(finished)
    yield "speakers", rows.speaker_rows(finished)
    yield "recordings", rows.recording_rows(finished, **vars(stamp))


def _transcript_counts(finished: Finished) -> Mapping[str, float]:
    omitted = sum(one.speech for one in finished.omissions)
    return {
        "segments": len(finished.segments),
        "flagged_segments": sum(bool(segment.flags) for _, segment in finished.segments),
        "omissions": len(finished.omissions),
        "omitted_s": omitted / SAMPLE_RATE,
    }


def _transcript_sizes(finished: Finished) -> Mapping[str, int]:
    words = sum(len(segment.words) for _, segment in finished.segments)
    return {"segments": len(finished.segments), "words": words}


def transcripts_book(options: SpeakerOptions) -> Book:
    """Return the book of transcripts, with speakers where `options` ask for them."""
    return Book(
        Layout("recordings", "duration_s", ("segments",), ("words", "speakers")),
        "transcripts",
        partial(_whole_transcript, options),
        _transcript_tables,
        ("segments", "flagged_segments", "omissions", "omitted_s"),
        _transcript_counts,
        _transcript_sizes,
    )


TRANSCRIPTS = transcripts_book(SpeakerOptions())


def _review_counts(item: Review) -> Mapping[str, float]:
    return {
        "doubtful": item.doubtful,
        "asked": len(item.opinions),
        "agreed": sum(one.wer == 0 for one in item.opinions),
        "audio_s": item.audio / SAMPLE_RATE,
        "heard_again_s": item.outcome.duration / SAMPLE_RATE,
    }


REVIEWS = Book(
    Layout("reviews", "heard_s", ("opinions",)),
    "second opinions",
    review,
    lambda reviews, stamp: iter(
        [("opinions", opinion_rows(reviews)), ("reviews", review_rows(reviews, **vars(stamp)))]
    ),
    ("doubtful", "asked", "agreed", "audio_s", "heard_again_s"),
    _review_counts,
    lambda item: {"segments": len(item.opinions)},
)


DECISIONS_LAYOUT = Layout("decisions", "looked_s")


def decisions_book(options: FilterOptions) -> Book:
    """Return the book of what `options` keep."""
    return Book(
        DECISIONS_LAYOUT,
        "decisions",
        partial(_whole_survey, options),
        lambda surveys, stamp: iter([("decisions", decision_rows(surveys, **vars(stamp)))]),
        ("kept", "dropped"),
        lambda one: {"kept": int(one.keep), "dropped": int(not one.keep)},
        lambda _: {},
    )


def _whole_survey(options: FilterOptions, looks: Sequence[Look], outcome: Outcome) -> Survey | None:
    """Return the recording when what was listened to, and what was not, is all that was decoded, and no more."""
    spans: list[Span] = sorted([*(look.span for look in looks), *outcome.speechless], key=lambda span: span.start)
    apart = all(one.end <= other.start for one, other in pairwise(spans))
    if not apart or sum(map(len, spans)) != outcome.duration:
        return None  # of two attempts, as with transcripts
    return decisions.survey(looks, outcome, options)
