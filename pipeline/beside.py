"""An alignment as lines to read: the reference above the transcript, with the errors marked below.

Duty: columns, their widths, and what is left out between errors. Knows no terminals and no colours.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby

from pipeline.text import Pair

_MARKS = {"equal": "", "replace": "S", "delete": "D", "insert": "I"}
_CONTEXT = 6  # equal words that are shown on each side of an error
_LEFT_OUT = "..."

_Column = tuple[str, str, str]  # reference, transcript, mark


def beside(pairs: Sequence[Pair], width: int, lines: int = 8) -> Iterator[str]:
    """Yield lines of at most `width` columns: REF, HYP and the marks S, D, I, in turns, `lines` turns at most.

    Wrong words are in capitals, and stars stand for a word that is not there.
    """
    blocks = list(_wrapped(list(_columns(pairs)), width - len("REF  ")))
    for block in blocks[:lines]:
        for name, row in zip(("REF", "HYP", "   "), zip(*block, strict=True), strict=True):
            widths = [max(map(_width, column)) for column in block]
            cells = (cell + " " * (size - _width(cell)) for cell, size in zip(row, widths, strict=True))
            yield f"{name}  {' '.join(cells)}".rstrip()
    if len(blocks) > lines:
        yield f"     ({len(blocks) - lines} more lines)"


def _columns(pairs: Sequence[Pair]) -> Iterator[_Column]:
    runs = [(wrong, list(group)) for wrong, group in groupby(pairs, lambda pair: pair.operation != "equal")]
    for place, (wrong, run) in enumerate(runs):
        if wrong:
            yield from map(_wrong, run)
            continue
        before, after = _CONTEXT if place else 0, _CONTEXT if place < len(runs) - 1 else 0
        if len(run) <= before + after + 1 or len(runs) == 1:
            before, after = len(run), 0
        yield from (_equal(pair) for pair in run[:before])
        if before + after < len(run):
            yield _LEFT_OUT, _LEFT_OUT, ""
            yield from (_equal(pair) for pair in run[len(run) - after :])


def _equal(pair: Pair) -> _Column:
    return pair.reference or "", pair.hypothesis or "", ""


def _wrong(pair: Pair) -> _Column:
    said, heard = (pair.reference or "").upper(), (pair.hypothesis or "").upper()
    stars = "*" * max(_width(said), _width(heard))
    return said or stars, heard or stars, _MARKS[pair.operation]


def _wrapped(columns: Sequence[_Column], width: int) -> Iterator[list[_Column]]:
    block: list[_Column] = []
    used = 0
    for column in columns:
        size = max(map(_width, column)) + 1
        if block and used + size > width:
            yield block
            block, used = [], 0
        block.append(column)
        used += size
    if block:
        yield block


def _width(text: str) -> int:
    """Count columns of a terminal: full-width characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
