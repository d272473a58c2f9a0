"""Subtitle files (SubRip, WebVTT) -> cues: what is shown from when to when, as plain text.

Duty: read such files, and see whether a WebVTT file was written by a machine: automatic captions give each word its
time in tags. Its library (pysubs2, extra `clean`) is loaded with the first file. Knows no audio; who finds the files
stands in `pairs.py`.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError, install

SUBTITLES = {".srt": "srt", ".vtt": "vtt"}  # endings, and the library's names for them
_WORD_TIME = re.compile(r"<(?:\d+:)?\d\d:\d\d\.\d+>")
_TAG = re.compile(r"<[^<>\n]*>|\{\\[^{}]*\}")
_SPEAKS = re.compile(r"^\s*(?:-|–|>>+)\s+", re.MULTILINE)  # what marks another speaker in subtitles


@dataclass(frozen=True, slots=True)
class Cue:
    """Text with its times, in seconds of the recording."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Subtitles:
    """A subtitle file."""

    cues: tuple[Cue, ...]  # in time; none empty
    automatic: bool  # its words have times of their own, as only machines write them


def parse(content: str, ending: str) -> Subtitles:
    """Read the content of a file with this ending. ValueError where it is no such file."""
    library = _library()
    try:
        found = library.SSAFile.from_string(_WORD_TIME.sub("", content), format_=SUBTITLES[ending])
    except Exception as error:  # the library's own, and whatever odd lines make its parsers raise
        raise ValueError(f"it cannot be read as {SUBTITLES[ending]}: {error}") from error
    cues = [
        Cue(event.start / 1000, event.end / 1000, text)
        for event in found
        if event.end > event.start and (text := plain(event.text.replace(r"\N", "\n").replace(r"\n", "\n")))
    ]
    if content.strip() and not cues and "-->" not in content and not content.lstrip("\ufeff").startswith("WEBVTT"):
        raise ValueError("there are no times in it")
    cues.sort(key=lambda cue: (cue.start, cue.end))
    return Subtitles(tuple(cues), bool(_WORD_TIME.search(content)))


def plain(text: str) -> str:
    """Return a cue's text in one line: without tags, entities, and the dashes that mark who speaks."""
    bare = html.unescape(_TAG.sub("", text))
    return " ".join(_SPEAKS.sub("", bare).split())


def _library() -> Any:
    try:
        import pysubs2
    except ModuleNotFoundError as error:
        raise UserError("reading subtitles needs pysubs2, which is not installed", install("clean")) from error
    return pysubs2
