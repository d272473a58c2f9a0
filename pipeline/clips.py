"""Segments and words of a recording -> clips: stretches of a few seconds that begin and end where nobody speaks.

Duty: what is said together in a clip, by the times and the punctuation of the text alone. A clip keeps the room around
it up to what is said before and after, in which the audio itself may still choose the edges. Pure functions on rows of
the tables; times in seconds. Knows no audio, no files and no thresholds of quality.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Row = Mapping[str, Any]  # of schemas.segments and schemas.words

_ENDS = frozenset(".!?…。！？｡؟۔।॥።။។")  # of sentences
_CLOSERS = frozenset("\"'”’»›)]}」』）〉》】")  # what may stand behind the end of one
_UNSPACED = (
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "THAI",
    "LAO",
    "MYANMAR",
    "KHMER",
    "TIBETAN",
)  # scripts, by names of letters
# What a cut costs, beside 1 for each clip that is twice or half as long as wanted.
_BREAK = {"sentence": 0.0, "unheard sentence": 0.6, "pause": 0.8, "short pause": 1.5, "none": 5.0}
_SHORT = 6.0  # what a clip below the least length costs


@dataclass(frozen=True)
class ClipOptions:
    """How long clips are and what may not be in one clip; the presets of pseudo-label choose these."""

    min_s: float = 3.0
    max_s: float = 30.0
    target_s: float = 15.0
    max_pause_s: float = 2.0  # a longer one is never inside a clip
    room_s: float = 0.5  # that the edges may take on each side
    by_speaker: bool = False  # a clip has one speaker


@dataclass(frozen=True, slots=True)
class Clip:
    """What is said between `start` and `end`; nothing else is between `before` and `after`. Seconds."""

    start: float
    end: float
    before: float  # end of what is said before, or of the recording's start
    after: float
    text: str
    segments: tuple[Row, ...]  # that it has words of
    words: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class _Unit:
    """A word; or a whole segment where there are no words."""

    start: float
    end: float
    text: str
    segment: Row
    word: Row | None

    @property
    def kind(self) -> tuple[Any, ...]:
        """What must not change inside a clip: what is doubtful spoils nothing beside it."""
        segment = self.segment
        return segment["language"], segment["task"], bool(segment["flags"])


_Part = tuple[float, float, str, Row | None]


def cut(
    segments: Sequence[Row], words: Sequence[Row], end: float, options: ClipOptions, *, begin: float = 0.0
) -> list[Clip]:
    """Return the clips of a recording, which lasts from `begin` to `end`, in order; every word is in exactly one.

    Where a segment has no words, the segment is taken as a whole.
    """
    units = list(_units(segments, words))
    clips: list[Clip] = []
    first = 0
    for run in _runs(units, options):
        for piece in _pieces(run, options):
            last = first + len(piece)
            before = units[first - 1].end if first else begin
            after = units[last].start if last < len(units) else max(end, piece[-1].end)
            clips.append(_clip(piece, before, after))
            first = last
    return clips


def join(left: str, right: str) -> str:
    """Put two texts beside each other, with a space where their scripts have one."""
    left, right = left.strip(), right.strip()
    if not left or not right:
        return left or right
    return left + right if unspaced(left[-1]) and unspaced(right[0]) else f"{left} {right}"


def ends_sentence(text: str) -> bool:
    """Say whether a sentence ends here."""
    bare = text.rstrip()
    while bare and bare[-1] in _CLOSERS:
        bare = bare[:-1]
    return bool(bare) and bare[-1] in _ENDS


def unspaced(character: str) -> bool:
    """Say whether a character is of a script without spaces between words."""
    if unicodedata.category(character)[0] == "P" and unicodedata.east_asian_width(character) in "WF":
        return True
    return unicodedata.name(character, "").startswith(_UNSPACED)


def letters(text: str) -> int:
    """Count what is pronounced: letters, digits and marks; no spaces and no punctuation."""
    return sum(unicodedata.category(character)[0] in "LNM" for character in text)


def _units(segments: Sequence[Row], words: Sequence[Row]) -> Iterator[_Unit]:
    of: dict[int, list[Row]] = {}
    for word in words:
        of.setdefault(word["segment"], []).append(word)
    at = -math.inf  # times never run backwards
    for segment in segments:
        parts: list[_Part] = [(word["start"], word["end"], word["word"], word) for word in of.get(segment["index"], ())]
        whole: _Part = (segment["start"], segment["end"], segment["text"], None)
        for start, end, text, spoken in parts or [whole]:
            start = max(start, at)
            at = max(end, start)
            yield _Unit(start, at, text, segment, spoken)


def _runs(units: Sequence[_Unit], options: ClipOptions) -> Iterator[Sequence[_Unit]]:
    """Yield stretches that may be in one clip, but for their length."""
    first = 0
    for at, (left, right) in enumerate(pairwise(units), 1):
        other = left.kind != right.kind or right.start - left.end > options.max_pause_s
        if options.by_speaker and left.segment["speaker"] != right.segment["speaker"]:
            other = True
        if other:
            yield units[first:at]
            first = at
    if units:
        yield units[first:]


def _pieces(run: Sequence[_Unit], options: ClipOptions) -> Iterator[Sequence[_Unit]]:
    """Yield the run cut at the cheapest places: the least sum of what cuts and lengths cost."""
    places = _places(run, options)
    best = [0.0] + [float("inf")] * len(places)  # cost of all that is before each place
    came = [0] * (len(places) + 1)
    ends = [0, *places]
    for to in range(1, len(ends)):
        cut_cost = 0.0 if ends[to] == len(run) else _BREAK[_break(run, ends[to])]
        for start in range(to - 1, -1, -1):
            length = run[ends[to] - 1].end - run[ends[start]].start + 2 * options.room_s
            if length > options.max_s and start < to - 1:
                break
            cost = best[start] + cut_cost + _length_cost(length, options)
            if cost < best[to]:
                best[to], came[to] = cost, start
    chosen, at = [], len(places)
    while at:
        chosen.append((ends[came[at]], ends[at]))
        at = came[at]
    for start, end in reversed(chosen):
        yield run[start:end]


def _places(run: Sequence[_Unit], options: ClipOptions) -> list[int]:
    """Return where a cut may be: at ends of sentences and pauses, and anywhere only where these are too far apart."""
    good = [at for at in range(1, len(run)) if _break(run, at) != "none"]
    places: list[int] = []
    for left, right in pairwise([0, *good, len(run)]):
        if run[right - 1].end - run[left].start + 2 * options.room_s > options.max_s:
            places += range(left + 1, right)
        places.append(right)
    return places


def _break(run: Sequence[_Unit], at: int) -> str:
    pause = run[at].start - run[at - 1].end
    if ends_sentence(run[at - 1].text):
        return "sentence" if pause >= 0.1 else "unheard sentence"
    return "pause" if pause >= 0.3 else "short pause" if pause >= 0.1 else "none"


def _length_cost(length: float, options: ClipOptions) -> float:
    if length < options.min_s:
        return _SHORT * (1 + (options.min_s - length) / options.min_s)
    return max(length / options.target_s, options.target_s / length) - 1


def _clip(units: Sequence[_Unit], before: float, after: float) -> Clip:
    segments = tuple({id(unit.segment): unit.segment for unit in units}.values())
    text = ""
    for left, unit in zip([None, *units], units, strict=False):
        # A word brings its own space; segments, and words of another segment, have lost theirs.
        same = left is not None and unit.word is not None and left.segment is unit.segment
        text = text + unit.text if same else join(text, unit.text)
    words = tuple(unit.word for unit in units if unit.word is not None)
    return Clip(units[0].start, units[-1].end, before, after, text.strip(), segments, words)
