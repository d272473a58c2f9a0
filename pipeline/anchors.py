"""A text without times beside what was heard with times: which part of the text is said when.

Duty: carry the ends of heard segments over to the text, but only those that are sure: where the words on both sides of
an end are the same in both texts, and neighbours there, too. What lies between two sure ends stays together. So a
part's times are a machine's, but which words belong to it is not guessed. Knows no audio and no tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import text
from pipeline.clips import join
from pipeline.phrases import fold

Row = Mapping[str, Any]  # of schemas.segments


@dataclass(frozen=True, slots=True)
class Part:
    """What is said between two times, in seconds; and what was heard there."""

    start: float
    end: float
    text: str
    heard: str


def parts(said: str, segments: Sequence[Row]) -> list[Part]:
    """Return the text in parts, in order; all of it, and all that was heard. None where nothing was heard."""
    spaceless = text.is_spaceless(said)
    words, places = _words(said, spaceless=spaceless)
    heard: list[str] = []
    ends: list[int] = []  # of the segments that have words, in `heard`
    spoken: list[Row] = []
    for segment in segments:
        more, _ = _words(segment["text"], spaceless=spaceless)
        if more:
            heard += more
            ends.append(len(heard))
            spoken.append(segment)
    matches = {theirs: ours for ours, theirs in text.equal(words, heard)}
    found: list[Part] = []
    first, at = 0, 0  # segment, place in the text
    for number, end in enumerate(ends):
        last = number == len(ends) - 1
        before, after = matches.get(end - 1), matches.get(end)
        if not last and (before is None or after is None or after != before + 1):
            continue
        until = len(said) if last or after is None else places[after]
        group = spoken[first : number + 1]
        own = ""
        for segment in group:
            own = join(own, segment["text"])
        found.append(Part(group[0]["start"], group[-1]["end"], " ".join(said[at:until].split()), own))
        first, at = number + 1, until
    return found


def _words(said: str, *, spaceless: bool) -> tuple[list[str], list[int]]:
    """Return the folded words of a text that have letters, and where each begins."""
    found = [(fold(match[0]), match.start()) for match in re.finditer(r"\S" if spaceless else r"\S+", said)]
    return [word for word, _ in found if word], [place for word, place in found if word]
