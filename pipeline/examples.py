"""A kept pair -> examples for training of at most 30 s, one after the other over all of its audio, as Whisper's paper
makes them.

An example begins where the one before ends, or at the start of the line that did not fit into that: its start is then
the last that it says. Stretches that cannot be used are rows, too, with their reason: every second is accounted for.
Duty: which stretch has which text. Knows rows and times; no audio.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline import anchors, sequences, text, weak_text
from pipeline.clips import join
from pipeline.cues import Cue
from pipeline.text import Errors
from pipeline.transcripts import Transcribed
from pipeline.types import SHARE, setting

Row = dict[str, Any]  # of schemas.examples

LONGEST_S = sequences.WINDOW_S
_SHORTEST_S = 0.5  # of a stretch that is worth an example
_SLACK_S = 1.0  # by which subtitles may come earlier or later than what they say
_UNTOLD_S = 3.0  # of heard speech beside all text that make an example wrong
_HUSH_S = 0.5  # of heard speech that make one wrong in which nobody shall speak

# Each reason against a stretch of a kept pair.
REASONS: dict[str, str] = {
    "long": "A line of more than 30 s: its text has no times inside.",
    "errors": "Its text has too little in common with what was heard in it.",
    "untold": "Something was heard in it that its text lacks.",
    "quiet": "Nobody speaks; enough such examples are there, or it is short.",
    "audio": "Its audio could not be read again.",
}


@dataclass(frozen=True)
class ExampleOptions:
    """What examples are like."""

    rate: int = setting(16_000, "Sample rate of the examples.", "Hz")
    no_speech: float = setting(0.1, "Share of the stretches without speech that become examples.", within=SHARE)
    prompts: float = setting(
        0.5, "Share of the examples whose sequence begins with the text before them, if any.", within=SHARE
    )


@dataclass(frozen=True, slots=True)
class _Line:
    start: float
    end: float
    text: str
    wrong: str = ""  # a reason
    errors: Errors | None = None  # against what was heard, where that is known of the line


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What becomes one row."""

    start: float
    end: float
    lines: tuple[_Line, ...] = ()
    next: float | None = None  # start of a line that does not fit
    wrong: str = ""


def examples(pair: Row, cues: Sequence[Cue], one: Transcribed, options: ExampleOptions, max_wer: float) -> list[Row]:
    """Return the rows of a kept pair. `pair` is its row; `cues` are its text with times, if it has any."""
    begin = one.recording.get("start_s") or 0.0
    end = begin + (one.recording["duration_s"] or 0.0)
    heard = [(segment["start"], segment["end"], segment["text"]) for segment in one.segments if segment["text"].strip()]
    if not cues and pair["task"] == "translate":
        return [_whole(pair, begin, end, options)]
    lines = _of_cues(cues, begin, end) if cues else _of_parts(pair, one, end, max_wer)
    rows: list[Row] = []
    for stretch in _stretches(lines, begin, end):
        row = _row(pair, len(rows), stretch)
        if stretch.lines and pair["task"] != "translate":
            row["wer"] = _errors(pair, stretch, heard).wer
        row["reasons"] = _reasons(row, stretch, lines, heard, options, max_wer)
        row["prompt"] = rows[-1]["text"] or None if rows and not rows[-1]["reasons"] else None
        rows.append(row | {"sequence": _sequence(row, stretch, options)})
    return rows


def made_of(pair: Row, cues: Sequence[Cue], one: Transcribed, options: ExampleOptions, max_wer: float) -> str:
    """Return a hash of all that decides on a pair's examples, which is much cheaper than making them."""
    told = {name: pair[name] for name in ("text", "language", "task", "source")}
    told |= {name: one.recording.get(name) for name in ("start_s", "duration_s", "version")}
    lines = [[segment["start"], segment["end"], segment["text"]] for segment in one.segments]
    return _hash([told, [asdict(cue) for cue in cues], lines, asdict(options), max_wer])


def content(rows: Sequence[Row], version: str) -> str:
    """Return a hash of what a pair's examples are, of this version of the audio."""
    names = ("start", "end", "sequence", "text", "reasons", "source")
    return _hash([version, [[row[name] for name in names] for row in rows]])


def _hash(told: Any) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _of_cues(cues: Sequence[Cue], begin: float, end: float) -> list[_Line]:
    """Return subtitles as lines that do not overlap; what is shown together becomes one."""
    lines: list[_Line] = []
    for cue in cues:
        start, until = max(cue.start, begin), min(cue.end, end)
        if start >= until or weak_text.is_credit(cue.text):
            continue
        if lines and start < lines[-1].end:
            if until <= lines[-1].end or lines[-1].end - start > 0.5 * (until - start):
                last = lines.pop()
                start, until, said = last.start, max(until, last.end), join(last.text, cue.text)
                lines.append(_Line(start, until, said))
                continue
            start = lines[-1].end
        lines.append(_Line(start, until, cue.text))
    return [_checked(line) for line in lines]


def _of_parts(pair: Row, one: Transcribed, end: float, max_wer: float) -> list[_Line]:
    """Return a text without times as lines with those of what was heard, where it fits."""
    lines: list[_Line] = []
    for part in anchors.parts(pair["text"], one.segments):
        errors = text.compare(part.text, part.heard, pair["language"]).errors
        wrong = "errors" if errors.wer is None or errors.wer > max_wer else ""
        start = max(part.start, lines[-1].end if lines else 0.0)
        lines.append(_checked(_Line(start, max(min(part.end, end), start), part.text, wrong, errors)))
    return [line for line in lines if line.end > line.start]


def _checked(line: _Line) -> _Line:
    too_long = line.end - line.start > LONGEST_S - sequences.STEP_S
    return replace(line, wrong="long") if too_long and not line.wrong else line


def _stretches(lines: Sequence[_Line], begin: float, end: float) -> Iterator[_Stretch]:
    """Yield stretches of at most 30 s (but for a line that is longer), gapless from the beginning to the end."""
    at, number = begin, 0
    while at < end:
        if number < len(lines) and lines[number].wrong and lines[number].start <= at:
            yield _Stretch(at, lines[number].end, (), None, lines[number].wrong)
            at, number = lines[number].end, number + 1
            continue
        hole = next((line.start for line in lines[number:] if line.wrong), end)
        until = min(at + LONGEST_S, hole, end)
        inside = []
        while number < len(lines) and not lines[number].wrong and lines[number].end <= until:
            inside.append(lines[number])
            number += 1
        cut = number < len(lines) and not lines[number].wrong and lines[number].start < until
        following = lines[number].start if cut else None
        if following is not None and not inside:
            if following > at:
                yield _Stretch(at, following)
            at = following
            continue
        yield _Stretch(at, until, tuple(inside), following)
        at = until if following is None else following


def _row(pair: Row, index: int, stretch: _Stretch) -> Row:
    said = ""
    for line in stretch.lines:
        said = join(said, line.text)
    return {
        "clip_id": f"{pair['recording_id']}-{index:05d}",
        "recording_id": pair["recording_id"],
        "index": index,
        "start": stretch.start,
        "end": stretch.end,
        "kept": False,
        "reasons": [],
        "sequence": "",
        "text": said,
        "prompt": None,
        "language": pair["language"] if said else None,
        "task": pair["task"],
        "no_speech": not said and not stretch.wrong,
        "source": pair["source"],
        "wer": None,
        "split": "train",
        "shards": [],
        "sample_rate": None,
        "audio_error": None,
    }


def _errors(pair: Row, stretch: _Stretch, heard: Sequence[tuple[float, float, str]]) -> Errors:
    """Return how far the text of a stretch lies from what was heard: in its lines, or in the middle of it."""
    known = [line.errors for line in stretch.lines if line.errors is not None]
    if known:
        return sum(known, Errors())
    said = " ".join(line.text for line in stretch.lines)
    until = stretch.end if stretch.next is None else stretch.next
    inside = (words for start, end, words in heard if stretch.start <= (start + end) / 2 < until)
    return text.compare(said, " ".join(inside), pair["language"]).errors


def _reasons(
    row: Row,
    stretch: _Stretch,
    lines: Sequence[_Line],
    heard: Sequence[tuple[float, float, str]],
    options: ExampleOptions,
    max_wer: float,
) -> list[str]:
    if stretch.wrong:
        return [stretch.wrong]
    length = stretch.end - stretch.start
    if row["no_speech"]:
        untold = _untold(stretch, (), heard) > _HUSH_S
        quiet = length < _SHORTEST_S or _chance(row, "no speech") >= options.no_speech
        return ["untold"] if untold else ["quiet"] if quiet else []
    if row["wer"] is not None and row["wer"] > max_wer:
        return ["errors"]
    return ["untold"] if _untold(stretch, lines, heard) > _UNTOLD_S else []


def _untold(stretch: _Stretch, lines: Sequence[_Line], heard: Sequence[tuple[float, float, str]]) -> float:
    """Return the seconds in which something was heard beside all text."""
    told = [(line.start - _SLACK_S, line.end + _SLACK_S) for line in lines]
    told = [(since, until) for since, until in told if since < stretch.end and until > stretch.start]
    total = 0.0
    for start, end, _ in heard:
        free, end = max(start, stretch.start), min(end, stretch.end)  # up to `free` all is told, or counted
        for since, until in told:
            if free >= end:
                break
            total += max(0.0, min(since, end) - free)
            free = max(free, until)
        total += max(0.0, end - free)
    return total


def _whole(pair: Row, begin: float, end: float, options: ExampleOptions) -> Row:
    """Return the one example of a text of which no part has a time."""
    line = _Line(begin, end, " ".join(pair["text"].split()))
    wrong = "long" if end - begin > LONGEST_S else ""
    row = _row(pair, 0, _Stretch(begin, end, (line,), None, wrong))
    return row | {
        "reasons": [wrong] if wrong else [],
        "sequence": sequences.untimed(row["text"], row["language"], row["task"]),
    }


def _sequence(row: Row, stretch: _Stretch, options: ExampleOptions) -> str:
    if stretch.wrong:
        return ""
    prompt = row["prompt"] if _chance(row, "prompt") < options.prompts else None
    if row["no_speech"]:
        return sequences.nobody(prompt)
    lines = [sequences.Line(line.start - row["start"], line.end - row["start"], line.text) for line in stretch.lines]
    if stretch.next is not None:
        lines.append(sequences.Line(stretch.next - row["start"], None, ""))
    return sequences.transcript(lines, row["language"], row["task"], prompt)


def _chance(row: Row, what: str) -> float:
    """Return a number in [0, 1) that is an example's own, whatever else there is."""
    digest = hashlib.sha256(f"{row['clip_id']} {what}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
