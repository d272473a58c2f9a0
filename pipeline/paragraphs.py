"""Segments -> plain text in paragraphs, as people write: a new one where the speaker changes, or after a pause.

Duty: where a paragraph ends. Knows no files, no Arrow and no models.
Input are rows of `schemas.segments`, as dictionaries, in the order of one recording.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.subtitles import SENTENCE_END, SPACELESS_CHAR, Row, plain
from pipeline.types import AT_LEAST_ONE, NOT_NEGATIVE, setting

_LONG = 3  # times the pause, or the length, after which a paragraph ends inside a sentence, too
_AFTER_SENTENCE = re.compile(r"(?<=[.!?…؟।॥။។]) +|(?<=[。！？])(?![」』）”’])")


@dataclass(frozen=True)
class ParagraphOptions:
    """Where the paragraphs of `txt` end. A change of the speaker always ends one."""

    pause_s: float = setting(
        1.5, "A pause of this length after a sentence begins a new paragraph in txt.", "s", within=NOT_NEGATIVE
    )
    max_chars: int = setting(
        600, "A sentence that ends beyond this length ends its paragraph in txt.", "characters", within=AT_LEAST_ONE
    )


@dataclass(frozen=True, slots=True)
class Paragraph:
    """What one speaker says without a long pause. `speaker` is None where nobody was told apart."""

    speaker: str | None
    text: str


def txt(rows: Sequence[Row], options: ParagraphOptions) -> str:
    """Return the recording as plain text: paragraphs, an empty line between them, speakers named before theirs."""
    told = (f"{one.speaker}: {one.text}" if one.speaker else one.text for one in paragraphs(rows, options))
    text = "\n\n".join(told)
    return text + "\n" if text else ""


def paragraphs(rows: Sequence[Row], options: ParagraphOptions) -> Iterator[Paragraph]:
    """Yield the paragraphs of one recording. Segments without text give nothing."""
    text, speaker = "", None
    for pause_s, said_by, sentence in _sentences(rows):
        changed = said_by != speaker and bool(text)
        if changed or _ends(text, pause_s, options):
            yield Paragraph(speaker, text)
            text = ""
        text, speaker = _joined(text, sentence), said_by
    if text:
        yield Paragraph(speaker, text)


def _sentences(rows: Sequence[Row]) -> Iterator[tuple[float, str | None, str]]:
    """Yield each sentence, or what a segment has of it: the pause before it in seconds, its speaker, its text."""
    end_s = math.inf
    for row in rows:
        if text := plain(row["text"]):
            pause_s = max(0.0, row["start"] - end_s)
            for sentence in filter(None, _AFTER_SENTENCE.split(text)):
                yield pause_s, row.get("speaker"), sentence
                pause_s = 0.0
            end_s = row["end"]


def _ends(text: str, pause_s: float, options: ParagraphOptions) -> bool:
    """Say whether a paragraph ends after `text`, where so long a pause follows."""
    over = len(text) / max(1, options.max_chars)
    if SENTENCE_END.search(text):
        return pause_s >= options.pause_s or over >= 1
    return bool(text) and (pause_s >= _LONG * options.pause_s or over >= _LONG)


def _joined(before: str, after: str) -> str:
    spaceless = before and SPACELESS_CHAR.match(before[-1]) and SPACELESS_CHAR.match(after[0])
    full_width = before and before[-1] in "。！？、，；：」』）"
    return before + after if not before or spaceless or full_width else f"{before} {after}"
