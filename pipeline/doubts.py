"""Which segments deserve a second opinion, and what of a recording has to be heard again for one.

Duty: the rule of doubt, and doubtful segments put together to stretches that a model hears in one go. They travel with
their recording as a `Question`. Pure functions on rows of the segments table. Knows no audio, no models and no files.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.types import SAMPLE_RATE, SHARE, Span, setting

Row = Mapping[str, Any]  # of schemas.segments

# Each reason for doubt with what it says.
REASONS: dict[str, str] = {
    "flag": "It carries a flag.",
    "hallucination": "It may have been invented: its probability is above `--doubt-hallucination`.",
    "logprob": "The model found its own words unlikely: their mean log-probability is below `--doubt-logprob`.",
    "fallback": "It was sampled at a temperature above 0, because what was likeliest failed the quality gates.",
}
RULE = ("flags", "hallucination_probability", "text_logprob", "avg_logprob", "temperature")  # what reasons are made of
TOLD = ("index", "start", "end", "text", "language", "language_probability", *RULE)  # what questions are made of

WINDOW = 30 * SAMPLE_RATE  # what a Whisper model hears at once: doubtful segments beside each other share one
PAD = 1 * SAMPLE_RATE  # heard before and behind, because times are rough
APART = 2 * SAMPLE_RATE  # segments with a longer pause between them do not share a stretch
SURE = 0.5  # probability of a language, from which on the second model is told it


@dataclass(frozen=True)
class DoubtOptions:
    """Which segments are doubtful, beside those with a flag and those that were not decoded at temperature 0."""

    doubt_hallucination: float = setting(
        0.05, "Doubt segments when the probability that they were invented is above this; 0 doubts all.", within=SHARE
    )
    doubt_logprob: float = setting(
        -0.5, "Doubt segments when the mean log-probability of their own words is below this.", "nats"
    )


@dataclass(frozen=True, slots=True)
class Doubt:
    """A doubtful segment. Times are samples of the recording."""

    index: int
    start: int
    end: int
    text: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is heard again in one go."""

    start: int
    end: int
    spoken: str  # language of the first text
    language: str | None  # that the second model is told; None where that is in doubt, too
    doubts: tuple[Doubt, ...]
    before: str = ""  # texts of the neighbours that reach into it
    after: str = ""

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a recording."""

    transcript: str  # run that wrote what is judged
    selection: str | None  # which channel or track was listened to
    audio: int  # samples of the whole recording
    doubtful: int  # segments, asked about or not
    stretches: tuple[Stretch, ...]

    def json(self) -> str:
        """Return what `read` reads."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> Question:
        """Return the question that `Recording.asked` holds."""
        told = json.loads(text)
        return cls(**told | {"stretches": tuple(map(_stretch, told["stretches"]))})


def reasons(segment: Row, options: DoubtOptions) -> tuple[str, ...]:
    """Return why a segment is doubtful; nothing for one that is not."""
    invented, logprob = segment["hallucination_probability"], segment["text_logprob"]
    found = {
        "flag": bool(segment["flags"]),
        "hallucination": invented is not None and invented > options.doubt_hallucination,
        "logprob": (segment["avg_logprob"] if logprob is None else logprob) < options.doubt_logprob,
        "fallback": segment["temperature"] > 0,
    }
    return tuple(name for name in REASONS if found[name])


def stretches(
    segments: Sequence[Row],
    options: DoubtOptions,
    *,
    begin: int = 0,
    duration: int,
    known: Collection[str] | None = None,
) -> tuple[Stretch, ...]:
    """Return what of a recording is heard again: its doubtful segments, those side by side in one stretch.

    `segments` are in order; of those that are not doubtful only the neighbours need be there. `begin` is the first
    sample of the file that was listened to, `duration` how many were. Segments in languages that are not `known` (None:
    all are) are left out.
    """
    found: list[Stretch] = []
    for place, row in enumerate(segments):
        why = reasons(row, options)
        if not why or not row["text"].strip() or (known is not None and row["language"] not in known):
            continue
        start, end = (round(row[name] * SAMPLE_RATE) - begin for name in ("start", "end"))
        doubt = Doubt(row["index"], start, end, row["text"], why)
        one = Stretch(start, end, row["language"], _told(row), (doubt,))
        joined = found and _joined(found[-1], one)
        if joined:
            found[-1] = joined
        else:
            found.append(replace(one, before=_neighbour(segments, place, -1)))
        found[-1] = replace(found[-1], after=_neighbour(segments, place, +1))
    return tuple(_padded(found, duration))


def _joined(last: Stretch, one: Stretch) -> Stretch | None:
    """Return both stretches as one, if they follow each other and fit."""
    follows = one.doubts[0].index == last.doubts[-1].index + 1 and one.start - last.end <= APART
    alike = (one.spoken, one.language) == (last.spoken, last.language)
    if not (follows and alike and one.end - last.start + 2 * PAD <= WINDOW):
        return None
    return replace(last, end=max(last.end, one.end), doubts=(*last.doubts, *one.doubts))


def _padded(found: Sequence[Stretch], duration: int) -> Iterator[Stretch]:
    earliest = 0  # they begin in order, whatever their pads
    for one in found:
        pad = max(0, min(PAD, (WINDOW - (one.end - one.start)) // 2))
        start, end = max(earliest, one.start - pad), min(duration, one.end + pad)
        earliest = start
        yield replace(one, start=start, end=end)


def _neighbour(segments: Sequence[Row], place: int, step: int) -> str:
    """Return the text of the segment beside one, where it reaches into what is heard of that."""
    if not 0 <= place + step < len(segments):
        return ""
    row, other = segments[place], segments[place + step]
    gap = row["start"] - other["end"] if step < 0 else other["start"] - row["end"]
    near = other["index"] == row["index"] + step and gap * SAMPLE_RATE < PAD
    return str(other["text"]) if near else ""


def _told(row: Row) -> str | None:
    """Return the language of a segment as the second model is told it."""
    probability = row["language_probability"]
    unsure = "language_mismatch" in row["flags"] or (probability is not None and probability < SURE)
    return None if unsure else str(row["language"])


def _stretch(told: dict[str, Any]) -> Stretch:
    doubts = (Doubt(**one | {"reasons": tuple(one["reasons"])}) for one in told["doubts"])
    return Stretch(**told | {"doubts": tuple(doubts)})
