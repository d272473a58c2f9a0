"""Lines that many recordings share though their audio hardly says them: a corpus's own known inventions.

Duty: find them by how often they come and how little evidence they have. A line that people say (a jingle's words) has
evidence; a model's invention for this corpus's noise or music has not. Reads finished outputs part by part, twice:
memory goes with the doubtful lines, not with the text. Changes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.phrases import LONG, SOLID, UNHEARD, WEAK, fold
from pipeline.transcripts import Row, segments
from pipeline.types import AT_LEAST_ONE, SHARE, setting

COLUMNS = [
    "recording_id",
    "text",
    "language",
    "avg_logprob",
    "no_speech_prob",
    "evidence",
    "evidence_per_token",
]
UNLIKELY = -1.0  # nats a token, where no evidence was taken


@dataclass(frozen=True)
class RepeatOptions:
    """Which lines count."""

    min_recordings: int = setting(
        5, "Recordings in which a line must stand with hardly any evidence.", within=AT_LEAST_ONE
    )
    min_share: float = setting(0.5, "Least share of a line's segments that have hardly any evidence.", within=SHARE)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a list that `phrases.parse` reads, and why it stands there."""

    language: str  # most frequent
    weight: float  # share of its segments that have hardly any evidence
    text: str  # in its most frequent spelling
    recordings: int  # in which it stands without evidence; copies of a recording count once
    segments: int  # all with this text


@dataclass
class _Seen:
    recordings: set[int] = field(default_factory=set)
    weak: int = 0
    segments: int = 0
    spellings: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)


def repeated(out: str, options: RepeatOptions) -> list[Line]:
    """Return the lines of an output that repeat without evidence, the most widespread first.

    Raises UserError where there is no output.
    """
    found: dict[str, _Seen] = defaultdict(_Seen)
    for recording, key, row in _lines(out):
        if _weak(row):
            seen = found[key]
            seen.recordings.add(recording)
            seen.weak += 1
            seen.spellings[row["text"].strip()] += 1
            seen.languages[row["language"]] += 1
    common = {key: seen for key, seen in found.items() if len(seen.recordings) >= options.min_recordings}
    for _, key, _ in _lines(out) if common else ():
        if key in common:
            common[key].segments += 1
    lines = [_line(seen) for seen in common.values() if seen.weak >= options.min_share * seen.segments]
    return sorted(lines, key=lambda line: (-line.recordings, line.text))


def _line(seen: _Seen) -> Line:
    (text, _), (language, _) = seen.spellings.most_common(1)[0], seen.languages.most_common(1)[0]
    return Line(language, round(seen.weak / seen.segments, 3), text, len(seen.recordings), seen.segments)


def _lines(out: str) -> Iterator[tuple[int, str, Row]]:
    """Yield each short segment with the audio that it is of and its folded text."""
    for recordings, table in segments(out, ["recording_id", "size_bytes", "duration_s"], COLUMNS):
        audio = {row["recording_id"]: _audio(row) for row in recordings.to_pylist()}
        for row in table.to_pylist():
            key = fold(row["text"]) if len(row["text"]) <= LONG else ""
            if key:
                yield audio[row["recording_id"]], key, row


def _audio(row: Row) -> int:
    """Return a number for a recording's audio, the same for copies of a file."""
    known = row["size_bytes"] is not None and row["duration_s"]
    return hash((row["size_bytes"], row["duration_s"]) if known else row["recording_id"])


def _weak(row: Row) -> bool:
    if row["evidence"] is None:
        return bool(row["no_speech_prob"] > UNHEARD or row["avg_logprob"] < UNLIKELY)
    return bool(row["evidence"] < WEAK and row["evidence_per_token"] < SOLID)
