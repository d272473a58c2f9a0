"""What was heard against what was said: word errors, languages, and text where nothing is said.

Knows neither bulkscribe nor its peers: it is given recordings with references and what a system made of them. Word
errors are pooled after Whisper's normalisation: its English one for en, its basic one otherwise, by character for zh
and ja, without accents where `ref_note` says that the reference has none.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jiwer
from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

ENGLISH, BASIC, CHARACTERS = EnglishTextNormalizer(), BasicTextNormalizer(), BasicTextNormalizer(split_letters=True)
NOT_SPEECH = ("music", "noise", "silence")  # kinds of the parts of a composed recording
EDGE_S = 0.3  # a word this close to speech is not held to be inside a part without it


Entries = list[dict[str, Any]]  # lines of a manifest: uri, text (null: unknown, "": nothing is said), language


def entries_of(folder: Path, only: Container[str] | None = None) -> Entries:
    """Return the recordings that the folder's manifest names: all, or those whose name is in `only`."""
    lines = (folder / "manifest.jsonl").open(encoding="utf-8")
    return [entry for entry in map(json.loads, lines) if only is None or entry["uri"] in only]


def question(folder: Path, entry: dict[str, Any], *, detect: bool) -> dict[str, Any]:
    """Return what a system is told of a recording: where it is, and its language, but not to `detect`."""
    return {
        "uri": str((folder / entry["uri"]).absolute()),
        "language": None if detect else entry["language"],
        "multilingual": entry["language"] is None,
    }


@dataclass(frozen=True)
class Line:
    """A segment of text: start and end in seconds, and whether the system's own scores cast doubt on it."""

    start: float
    end: float
    text: str
    doubtful: bool


@dataclass(frozen=True)
class Heard:
    """What a system made of one recording."""

    language: str | None
    duration_s: float
    lines: Sequence[Line]

    @staticmethod
    def of(row: dict[str, Any]) -> Heard:
        """Return what a worker's answer says (see `workers.py`)."""
        return Heard(row["language"], row["duration_s"], [Line(**line) for line in row["lines"]])


@dataclass
class Figures:
    """Counts that add up over recordings."""

    recordings: int = 0
    audio_s: float = 0.0
    cpu_s: float = 0.0
    reference_words: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    languages: int = 0  # recordings whose language is known
    languages_right: int = 0
    speechless: int = 0  # recordings in which nothing is said
    with_text: int = 0  # of these
    with_sure_text: int = 0  # of these: text that nothing marks as doubtful
    words_in_gaps: int = 0  # words inside the music, noise and silence of recordings that have speech, too

    def __add__(self, other: Figures) -> Figures:
        return Figures(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    @property
    def word_errors(self) -> float:
        """Errors per 100 words of the references."""
        return 100 * (self.substitutions + self.deletions + self.insertions) / max(1, self.reference_words)

    @property
    def cpu_s_per_hour(self) -> float:
        return 3600 * self.cpu_s / max(1e-9, self.audio_s)

    def sentences(self, *, detect: bool) -> list[str]:
        """Return what there is to say; of languages only where they had to be detected."""
        said = [f"{self.audio_s / 60:.1f} min"]
        if self.reference_words:
            said.append(
                f"word errors {self.word_errors:.2f} % of {self.reference_words}"
                f" ({self.substitutions} wrong, {self.deletions} left out, {self.insertions} put in)"
            )
            said.append(f"{self.words_in_gaps} words in music, noise and silence")
        if self.languages and detect:
            said.append(f"language right {100 * self.languages_right / self.languages:.1f} %")
        if self.speechless:
            said.append(f"{self.speechless} without speech: text in {self.with_text}")
            said.append(f"text without a flag in {self.with_sure_text}")
        if self.cpu_s:
            said.append(f"{self.cpu_s_per_hour:.0f} CPU s/h")
        return said

    def as_json(self) -> dict[str, Any]:
        """Return the counts and the rates."""
        rates = {"word_errors_percent": round(self.word_errors, 3), "cpu_s_per_hour": round(self.cpu_s_per_hour, 1)}
        return asdict(self) | rates


def compare(entry: dict[str, Any], heard: Heard, gaps: Iterable[tuple[float, float]]) -> Figures:
    """Return the figures of one recording: an entry of a manifest, what was heard, and its parts without speech."""
    figures = Figures(recordings=1, audio_s=heard.duration_s, words_in_gaps=words_inside(heard.lines, gaps))
    text = " ".join(line.text for line in heard.lines)
    if entry["text"]:
        reference = normalise(entry["text"], entry)
        words = jiwer.process_words(reference, normalise(text, entry))
        figures.reference_words = len(reference.split())
        figures.substitutions, figures.deletions = words.substitutions, words.deletions
        figures.insertions = words.insertions
    elif entry["text"] == "":
        figures.speechless = 1
        figures.with_text = int(bool(text.strip()))
        figures.with_sure_text = int(any(line.text.strip() and not line.doubtful for line in heard.lines))
    if entry["language"]:
        figures.languages, figures.languages_right = 1, int(heard.language == entry["language"])
    return figures


def normalise(text: str, entry: dict[str, Any]) -> str:
    """Return the text as Whisper's evaluation compares it."""
    language = entry["language"]
    plain = (ENGLISH if language == "en" else CHARACTERS if language in ("zh", "ja") else BASIC)(text)
    if entry.get("ref_note"):
        plain = "".join(c for c in unicodedata.normalize("NFD", plain) if not unicodedata.combining(c))
    return " ".join(plain.split())


def gaps_of(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the parts without speech, in seconds, of each recording that the folder's segments.jsonl describes."""
    gaps: dict[str, list[tuple[float, float]]] = {}
    path = folder / "segments.jsonl"
    for part in map(json.loads, path.open(encoding="utf-8") if path.exists() else ()):
        if part["kind"] in NOT_SPEECH:
            gaps.setdefault(part["uri"], []).append((part["start"] + EDGE_S, part["end"] - EDGE_S))
    return gaps


def words_inside(lines: Iterable[Line], gaps: Iterable[tuple[float, float]]) -> int:
    """Count the words whose middle lies in a gap, taking the words of a line to be spread evenly over it."""
    gaps, count = list(gaps), 0
    for line in lines:
        words = len(line.text.split())
        for i in range(words):
            middle = line.start + (i + 0.5) / words * (line.end - line.start)
            count += any(start < middle < end for start, end in gaps)
    return count
