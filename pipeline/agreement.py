"""How far a second text of the same audio agrees with the first, segment by segment.

Duty: which words of the second text fall to which part of the first, and how many of them differ, over a part and at
its edges. Knows texts only; no tables, no times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from pipeline import text
from pipeline.text import Errors

EDGE = 3  # words at each end of a segment; twice as many characters in scripts without spaces
NEAR = 4  # words of a neighbour that may be heard with it; likewise


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the second text agrees with a segment. All is None where the segment has no words."""

    words: int  # of the segment; characters in scripts without spaces
    wer: float | None = None
    cer: float | None = None
    edge_cer: float | None = None  # of its first or last words, whichever is worse


def agreements(
    segments: Sequence[str], heard: str, language: str, before: str = "", after: str = ""
) -> list[Agreement]:
    """Compare the texts of `segments`, which follow each other, with what was `heard` in their place.

    Words of the neighbours, `before` and `after`, may have been heard, too: they count for nothing.
    """
    spaceless = text.is_spaceless(" ".join(segments))
    factor = 2 if spaceless else 1

    def words(one: str) -> list[str]:
        found = text.words(one, language, text.AS_THE_PAPER, spaceless=spaceless)
        return [word for word in found if any(map(str.isalnum, word))]  # English rules leave dots for words

    said = [words(one) for one in segments]
    aside = words(before)[-NEAR * factor :], words(after)[: NEAR * factor]
    shares = _shares([aside[0], *said, aside[1]], words(heard))[1:-1]
    return [_agreement(*pair, EDGE * factor, spaceless) for pair in zip(said, shares, strict=True)]


def _agreement(said: list[str], heard: list[str], edge: int, spaceless: bool) -> Agreement:
    if not said:
        return Agreement(0)
    errors = text.count(said, heard, spaceless=spaceless)
    edge = min(edge, -(-len(said) // 2))
    parts = [said[:edge], said[edge : len(said) - edge], said[max(edge, len(said) - edge) :]]
    first, _, last = _shares(parts, heard, aside=False)
    ends: list[Errors] = [text.count(parts[0], first, spaceless=spaceless)]
    if parts[2]:
        ends.append(text.count(parts[2], last, spaceless=spaceless))
    return Agreement(len(said), errors.wer, errors.cer, max(one.cer or 0.0 for one in ends))


def _shares(parts: Sequence[list[str]], heard: list[str], *, aside: bool = True) -> list[list[str]]:
    """Divide `heard` among `parts`, as the shortest way from all of them to it has it.

    What was inserted between two parts falls to the first, but not to the part before all segments, if there is one.
    """
    part_of = list(chain.from_iterable([number] * len(part) for number, part in enumerate(parts)))
    shares: list[list[str]] = [[] for _ in parts]
    steps = text.align(list(chain.from_iterable(parts)), heard)
    places = list(accumulate((step.reference is not None for step in steps), initial=0))  # in the parts, before a step
    first = 1 if aside else 0
    for step, place in zip(steps, places, strict=False):
        if step.hypothesis is None:
            continue
        if step.reference is not None:
            shares[part_of[place]].append(step.hypothesis)
            continue
        left = part_of[place - 1] if place else (0 if parts[0] else first)
        right = part_of[place] if place < len(part_of) else left
        shares[right if left < first <= right else left].append(step.hypothesis)
    return shares
