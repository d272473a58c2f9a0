"""Texts beside each other: normalisation, words and characters, and the errors between a reference and a transcript.

Duty: what counts as a word, and how far two texts lie apart. Knows no tables, no recordings and no times. Its libraries
(extra `evaluate`) are loaded with the first text.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal

from pipeline.errors import UserError, install
from pipeline.types import setting

# Scripts written without spaces between words: what Whisper's paper scores by characters, and their kin.
_SPACELESS = "[\\p{Han}\\p{Hiragana}\\p{Katakana}\\p{Thai}\\p{Lao}\\p{Myanmar}\\p{Khmer}\\p{Tibetan}]"

Operation = Literal["equal", "replace", "delete", "insert"]


@dataclass(frozen=True)
class TextOptions:
    """How texts are made comparable."""

    normalizer: str = setting(
        "whisper",
        "What is evened out before texts are compared: whisper (as Whisper's paper does: its English rules for English,"
        " for other languages lower case without symbols and marks), keep-marks (the same, but vowel signs and other"
        " marks stay: right for Hindi, Thai and their kin), no-accents (accents go, too: for references without"
        " them), none (nothing but white space).",
        choices=("whisper", "keep-marks", "no-accents", "none"),
    )


AS_THE_PAPER = TextOptions()


@dataclass(frozen=True, slots=True)
class Errors:
    """Counts of a comparison; they add up over recordings."""

    words: int = 0  # of the reference; characters in scripts without spaces
    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    characters: int = 0  # of the reference, with one space between words
    character_errors: int = 0

    def __add__(self, other: Errors) -> Errors:
        return Errors(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float | None:
        """Word error rate, 0 for none; above 1 where much was invented. None for a reference without words."""
        return self.errors / self.words if self.words else None

    @property
    def cer(self) -> float | None:
        """Character error rate. None for a reference without characters."""
        return self.character_errors / self.characters if self.characters else None


@dataclass(frozen=True, slots=True)
class Pair:
    """A step of an alignment: `reference` is None for an inserted word, `hypothesis` for a deleted one."""

    operation: Operation
    reference: str | None
    hypothesis: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two texts as they were compared."""

    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]
    spaceless: bool  # the words are characters
    errors: Errors


def compare(
    reference: str, hypothesis: str, language: str | None = None, options: TextOptions = AS_THE_PAPER
) -> Comparison:
    """Compare a transcript with its reference. `language` chooses the rules, for both sides.

    Raises UserError where the extra `evaluate` is not installed.
    """
    spaceless = is_spaceless(reference if reference.strip() else hypothesis)
    said = words(reference, language, options, spaceless=spaceless)
    heard = words(hypothesis, language, options, spaceless=spaceless)
    return Comparison(tuple(said), tuple(heard), spaceless, count(said, heard, spaceless=spaceless))


def words(text: str, language: str | None, options: TextOptions, *, spaceless: bool) -> list[str]:
    """Return the normalised words of a text; its characters (grapheme clusters) if `spaceless`."""
    if options.normalizer == "none":
        plain = " ".join(text.split())
        return _graphemes(plain) if spaceless else plain.split()
    code = (language or "").lower().replace("_", "-").partition("-")[0]
    english = code in ("en", "eng", "english") and not spaceless
    return _normalizer(options.normalizer, english, spaceless)(text).split()


def is_spaceless(text: str) -> bool:
    """Say whether most letters of a text are of scripts that are written without spaces between words."""
    letters = sum(map(str.isalpha, text))
    return letters > 0 and 2 * len(_scripts().findall(text)) > letters


def count(reference: Sequence[str], hypothesis: Sequence[str], *, spaceless: bool = False) -> Errors:
    """Count what it takes to make one list of words of the other, in as few steps as can be."""
    editops = _levenshtein().editops(reference, hypothesis)
    tags = [step.tag for step in editops]
    replaced, deleted, inserted = (tags.count(tag) for tag in ("replace", "delete", "insert"))
    between = "" if spaceless else " "
    said, heard = between.join(reference), between.join(hypothesis)
    return Errors(
        words=len(reference),
        hits=len(reference) - replaced - deleted,
        substitutions=replaced,
        deletions=deleted,
        insertions=inserted,
        characters=len(said),
        character_errors=int(_levenshtein().distance(said, heard)),
    )


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    """Return both lists beside each other, step by step."""
    pairs: list[Pair] = []
    for step in _levenshtein().opcodes(reference, hypothesis):
        said: list[str | None] = list(reference[step.src_start : step.src_end])
        heard: list[str | None] = list(hypothesis[step.dest_start : step.dest_end])
        longest = max(len(said), len(heard))
        said += [None] * (longest - len(said))
        heard += [None] * (longest - len(heard))
        pairs += [Pair(step.tag, *both) for both in zip(said, heard, strict=True)]
    return pairs


def equal(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places, in both lists, of the words that the alignment finds equal."""
    return [
        (step.src_start + at, step.dest_start + at)
        for step in _levenshtein().opcodes(reference, hypothesis)
        if step.tag == "equal"
        for at in range(step.src_end - step.src_start)
    ]


# --- libraries ------------------------------------------------------------------------------------------------------


def library(module: str) -> Any:
    """Import a module of the extra `evaluate`. Raises UserError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"comparing texts needs {error.name}, which is not installed", install("evaluate")) from error


@cache
def _levenshtein() -> Any:
    return library("rapidfuzz.distance").Levenshtein


@cache
def _scripts() -> Any:
    return library("regex").compile(_SPACELESS)


def _graphemes(text: str) -> list[str]:
    found: list[str] = library("regex").findall(r"\X", text.replace(" ", ""))
    return found


@cache
def _normalizer(name: str, english: bool, spaceless: bool) -> Callable[[str], str]:
    if english:
        made: Callable[[str], str] = library("whisper_normalizer.english").EnglishTextNormalizer()
        return made
    basic = library("whisper_normalizer.basic").BasicTextNormalizer
    made = basic(remove_diacritics=name == "no-accents", split_letters=spaceless, preserve_marks=name == "keep-marks")
    return made
