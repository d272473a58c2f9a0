"""Segments -> subtitles (SRT, WebVTT) and JSON, as text.

Duty: where lines and subtitles break, and how their times are shared out. Knows no files, no Arrow and no models.
Input are rows of `schemas.segments`, as dictionaries, in the order of one recording.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.types import AT_LEAST_ONE, setting

Row = Mapping[str, Any]  # of schemas.segments


@dataclass(frozen=True)
class SubtitleOptions:
    """The shape of a subtitle. Full-width characters (Chinese, Japanese, Korean) count as two."""

    max_line_chars: int = setting(
        42, "Longest line of a subtitle; only a single word may be longer.", "characters", within=AT_LEAST_ONE
    )
    max_lines: int = setting(2, "Most lines of a subtitle.", "lines", within=AT_LEAST_ONE)


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: its lines, and when it is shown."""

    start: int  # milliseconds
    end: int  # milliseconds, later than `start`
    lines: tuple[str, ...]
    speaker: str | None = None  # where speakers are told apart


def cues(rows: Sequence[Row], options: SubtitleOptions) -> Iterator[Cue]:
    """Yield the subtitles of one recording, in time, none overlapping. Segments without text give none.

    A segment that is too long becomes several subtitles, which share its time by their characters.
    """
    spoken = [
        (_ms(row["start"]), _ms(row["end"]), text, row.get("speaker")) for row in rows if (text := plain(row["text"]))
    ]
    spoken.sort(key=lambda item: item[0])
    free = 0  # ms from which on no subtitle is shown yet
    for number, (start, end, text, speaker) in enumerate(spoken):
        following = spoken[number + 1][0] if number + 1 < len(spoken) else end
        if start < following < end:
            end = following
        blocks = _layout(text, options)
        start = max(start, free)
        total, said = sum(map(_chars, blocks)), 0
        begin = start
        for block in blocks:
            said += _chars(block)
            free = max(start + (end - start) * said // total, begin + 1)
            yield Cue(begin, free, tuple(block), speaker)
            begin = free


def srt(rows: Sequence[Row], options: SubtitleOptions) -> str:
    """Return the recording as SubRip text."""
    blocks = (
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues(rows, options), start=1)
    )
    return "\n".join(blocks)


def vtt(rows: Sequence[Row], options: SubtitleOptions) -> str:
    """Return the recording as WebVTT text; players show or style what is said by the voice's name."""
    blocks = (
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_voice(cue)}{_escaped(cue.lines)}\n"
        for cue in cues(rows, options)
    )
    return "WEBVTT\n" + "".join(blocks)


def as_json(rows: Sequence[Row], options: SubtitleOptions) -> str:
    """Return the segments with all their columns as a JSON list, a segment a line; what is no number becomes null."""
    lines = (json.dumps(_finite(dict(row)), ensure_ascii=False, allow_nan=False) for row in rows)
    return "[\n" + ",\n".join(lines) + "\n]\n" if rows else "[]\n"


FORMATS: dict[str, Callable[[Sequence[Row], SubtitleOptions], str]] = {
    "srt": srt,
    "vtt": vtt,
    "json": as_json,
}


def plain(text: str) -> str:
    """Return the text in one line, without control characters."""
    return " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000)) if math.isfinite(seconds) else 0


def _clock(ms: int, point: str) -> str:
    minutes, ms = divmod(ms, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{ms // 1000:02}{point}{ms % 1000:03}"


def _voice(cue: Cue) -> str:
    return f"<v {_escaped([plain(cue.speaker)])}>" if cue.speaker else ""


def _escaped(lines: Sequence[str]) -> str:
    return "\n".join(lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _chars(lines: Sequence[str]) -> int:
    return sum(map(len, lines))


# --- where a line may break -----------------------------------------------------------------------------------------

# Scripts that are written without spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han.
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\u1780-\u17ff\u19e0-\u19ff"
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
SPACELESS_CHAR = re.compile(f"[{_SPACELESS}]")
_KATAKANA = re.compile("[\u30a1-\u30fa\u30fc-\u30fe\u31f0-\u31ff]")  # a run of these is a word
# What must not stand at the start of a line: closing marks, small kana, length and repetition marks, and vowels that
# belong to the letter before them.
_NO_START = re.compile(
    "[!%),.:;?\\]}\u00a2\u00b0\u00bb\u2019\u201d\u2026\u2030\u2032\u2033\u203a\u3001-\u3003\u3005\u3009\u300b\u300d"
    "\u300f\u3011\u3015\u3017\u3019\u301b\u301c-\u301f\u303b\u3041\u3043\u3045\u3047\u3049\u3063\u3083\u3085\u3087"
    "\u308e\u3095\u3096\u309b-\u309e\u30a1\u30a3\u30a5\u30a7\u30a9\u30c3\u30e3\u30e5\u30e7\u30ee\u30f5\u30f6"
    "\u30fb-\u30fe\u31f0-\u31ff\uff01\uff05\uff09\uff0c\uff0e\uff1a\uff1b\uff1f\uff3d\uff5d\uff60-\uff65\uff67-\uff70"
    "\uff9e\uff9f\u0e2f\u0e30\u0e32\u0e33\u0e45\u0e46\u0eaf\u0eb0\u0eb2\u0eb3\u0ec6\u104a\u104b\u17d4-\u17da]"
)
# What must not stand at the end of a line: opening marks, and vowels that are written before their letter.
_NO_END = re.compile(
    "[(\\[{\u00a3\u00a5\u00ab\u2018\u201c\u2039\u3008\u300a\u300c\u300e\u3010\u3014\u3016\u3018\u301a\u301d"
    "\uff04\uff08\uff3b\uff5b\uff5f\uff62\uffe1\uffe5$\u0e40-\u0e44\u0ec0-\u0ec4]"
)
_JOINERS = "\u200d\u1039\u17d2"  # zero-width joiner; the marks that stack the next letter in Myanmar and Khmer
SENTENCE_END = re.compile(r"[.!?…。！？।॥။។]['\")\]»”’」』）]*$")
_CLAUSE_END = re.compile(r"[.,;:!?…。、，！？；：।॥။၊។]['\")\]»”’」』）]*$")


def _units(text: str) -> list[tuple[str, bool]]:
    """Cut the text into what must stay on one line; each with whether a space stands before it."""
    units: list[tuple[str, bool]] = []
    for word in text.split(" "):
        begin = 0
        for i in range(1, len(word)):
            if _breaks(word[i - 1], word[i]):
                units.append((word[begin:i], begin == 0 and bool(units)))
                begin = i
        units.append((word[begin:], begin == 0 and bool(units)))
    return units


def _breaks(before: str, after: str) -> bool:
    """Say whether a line may end between two characters that no space parts."""
    if not (SPACELESS_CHAR.match(before) or SPACELESS_CHAR.match(after)):
        return False
    if unicodedata.category(after).startswith("M") or before in _JOINERS or after in _JOINERS:
        return False
    if _KATAKANA.match(before) and _KATAKANA.match(after):
        return False
    return not (_NO_START.match(after) or _NO_END.match(before))


def _width(text: str) -> int:
    """Count characters, full-width ones twice."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


@dataclass(frozen=True, slots=True, order=True)
class _Layout:
    """The best way to lay out the units up to some place: as few subtitles as can be, then the least badness."""

    cues: int
    badness: float
    lines: int  # of the last subtitle
    begin: int  # first unit of its last line
    before: _Layout | None  # the layout that this line was added to


def _layout(text: str, options: SubtitleOptions) -> list[list[str]]:
    """Break the text into subtitles of lines, as few as can be, of even length, rather after a sentence than in it.

    The best layouts up to each unit, one for each number of lines in the last subtitle, are found from those before.
    """
    units = _units(text)
    widths = [_width(unit) + spaced for unit, spaced in units]
    best: list[dict[int, _Layout]] = [{0: _Layout(0, 0.0, options.max_lines, 0, None)}]
    for end in range(1, len(units) + 1):
        found: dict[int, _Layout] = {}
        width = 0
        for begin in range(end - 1, -1, -1):
            width += widths[begin]
            line = width - units[begin][1]
            if line > options.max_line_chars and begin < end - 1:
                break
            slack = float(max(0, options.max_line_chars - line) ** 2)
            breaking = _break_badness(units[begin - 1][0], options.max_line_chars) if begin else (0.0, 0.0)
            for before in best[begin].values():
                for layout in _added(before, begin, slack, breaking, options.max_lines):
                    if layout.lines not in found or layout < found[layout.lines]:
                        found[layout.lines] = layout
        best.append(found)
    return _blocks(min(best[-1].values()), units)


def _added(
    before: _Layout, begin: int, slack: float, breaking: tuple[float, float], max_lines: int
) -> Iterator[_Layout]:
    """Yield the layout with one line more: in the same subtitle if it has room, and in a new one."""
    in_cue, between_cues = breaking
    if before.lines < max_lines:
        yield _Layout(before.cues, before.badness + slack + in_cue, before.lines + 1, begin, before)
    yield _Layout(before.cues + 1, before.badness + slack + between_cues, 1, begin, before)


def _break_badness(last: str, limit: int) -> tuple[float, float]:
    """Return how bad it is to break after the unit `last`: a line inside a subtitle, and between two subtitles."""
    step = (limit / 6) ** 2
    if SENTENCE_END.search(last):
        return 0.0, 0.0
    return (0.0, 2 * step) if _CLAUSE_END.search(last) else (step, 8 * step)


def _blocks(layout: _Layout, units: list[tuple[str, bool]]) -> list[list[str]]:
    blocks: list[list[str]] = []
    end, place = len(units), layout
    room = 0  # lines that the subtitle being filled still misses, from its last to its first
    while place.before is not None:
        line = "".join((" " if spaced else "") + unit for unit, spaced in units[place.begin : end]).removeprefix(" ")
        if not room:
            blocks.insert(0, [])
            room = place.lines
        blocks[0].insert(0, line)
        room -= 1
        end, place = place.begin, place.before
    return blocks
