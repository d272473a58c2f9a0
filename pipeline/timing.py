"""Times of segments and words against references that have times.

Duty: which edge of the transcript belongs to which edge of the reference, and how far apart they are. Knows no tables.

Both texts become one list of plain words, and these are aligned. Of a pair of equal words the starts are compared
where both sides know one, and the ends likewise: of every word where both have word times, else of those words with
which a segment begins or ends. So nothing is assumed of how either side was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import text
from pipeline.references import Reference, Timed

WITHIN_MS = (50, 100, 200)
_PLAIN = text.TextOptions(normalizer="keep-marks")


@dataclass(frozen=True)
class TimeErrors:
    """Seconds that an edge of the transcript lies after the reference's, by what the reference has times of."""

    word_starts: tuple[float, ...] = ()
    word_ends: tuple[float, ...] = ()
    segment_starts: tuple[float, ...] = ()
    segment_ends: tuple[float, ...] = ()
    words: int = 0  # of references with times
    segments: int = 0

    def __add__(self, other: TimeErrors) -> TimeErrors:
        return TimeErrors(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def summary(self) -> dict[str, dict[str, float | int]]:
        """Return what to tell, by kind of edge; kinds of which nothing could be compared are left out."""
        asked = {"word_starts": self.words, "word_ends": self.words}
        asked |= {"segment_starts": self.segments, "segment_ends": self.segments}
        return {name: _told(getattr(self, name), count) for name, count in asked.items() if getattr(self, name)}


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: float | None = None
    end: float | None = None


def time_errors(
    reference: Reference, segments: Sequence[Mapping[str, Any]], words: Sequence[Mapping[str, Any]]
) -> TimeErrors:
    """Compare the times of a recording; rows of the tables, in order. Nothing comes of a reference without times."""
    if not (reference.words or reference.segments):
        return TimeErrors()
    spaceless = text.is_spaceless(reference.text or " ".join(word.text for word in reference.words))
    spoken = [Timed(row["start"], row["end"], row["word"]) for row in words]
    spoken = spoken or [Timed(row["start"], row["end"], row["text"]) for row in segments]
    heard = _tokens(spoken, spaceless)
    word_starts, word_ends = _edges(_tokens(reference.words, spaceless), heard)
    segment_starts, segment_ends = _edges(_tokens(reference.segments, spaceless), heard)
    return TimeErrors(
        word_starts, word_ends, segment_starts, segment_ends, len(reference.words), len(reference.segments)
    )


def _tokens(timed: Iterable[Timed], spaceless: bool) -> list[_Token]:
    tokens: list[_Token] = []
    for one in timed:
        found = text.words(one.text, None, _PLAIN, spaceless=spaceless)
        last = len(found) - 1
        tokens += [
            _Token(word, one.start if index == 0 else None, one.end if index == last else None)
            for index, word in enumerate(found)
        ]
    return tokens


def _edges(said: Sequence[_Token], heard: Sequence[_Token]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return how much later the starts and the ends were heard, for equal words of which both sides know them."""
    pairs = text.equal([token.text for token in said], [token.text for token in heard])
    both = [(said[i], heard[j]) for i, j in pairs]
    starts = tuple(b.start - a.start for a, b in both if a.start is not None and b.start is not None)
    ends = tuple(b.end - a.end for a, b in both if a.end is not None and b.end is not None)
    return starts, ends


def _told(errors: Sequence[float], asked: int) -> dict[str, float | int]:
    signed = np.array(errors)
    size = np.abs(signed)
    found: dict[str, float | int] = {
        "compared": len(signed),
        "in_reference": asked,
        "mean_absolute_s": float(size.mean()),
        "median_absolute_s": float(np.median(size)),
        "median_s": float(np.median(signed)),
    }
    # Half a microsecond of grace: times are decimals, and 0.25 - 0.20 is more than 0.05.
    return found | {f"within_{limit}_ms": float((size <= limit / 1000 + 5e-7).mean()) for limit in WITHIN_MS}
