"""Texts without e-mail addresses, telephone numbers and numbers of payment cards.

Duty: find them in the text of a recording, also where a number runs on into the next segment, and put a word in their
place. Knows no tables and no files. What is a valid address, telephone number or check digit its libraries say (extra
`redact`), which are loaded with the first text.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pipeline.errors import UserError, install
from pipeline.subtitles import Row
from pipeline.types import setting

KINDS = ("email", "phone", "card")
_JOINED_S = 2.0  # a number may go on in the next segment when that begins within this time
_APART = " ¦ "  # stands between texts that nothing joins: in no number
_SEVEN_DIGITS = re.compile(r"\d(?:\D{0,3}\d){6}")  # a shorter one is nobody's telephone number but a service's
_EMAIL = re.compile(r"[^\s@<>()\[\]\",;:¦]+@[^\s@<>()\[\]\",;:¦]+")
_CARD = re.compile(r"(?<![\d.,])[2-6]\d*(?:(?:[ \-–]|, ?)\d+)*(?![\d%])")
_DATE = re.compile(r"\d{1,2}[ ./-]\d{1,2}[ ./-](?:19|20)\d\d|(?:19|20)\d\d[ ./-]\d{1,2}[ ./-]\d{1,2}")
_DECIMALS = re.compile(r"\d[.,]$")  # what follows is a fraction
_CARD_DIGITS = range(13, 20)  # ISO/IEC 7812
# How the digits of a card are written in groups, beside all in one and each for itself.
_CARD_GROUPS = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 4, 1), (6, 13)}


@dataclass(frozen=True)
class RedactionOptions:
    """What is taken out of texts."""

    redact: bool = setting(
        False,
        "Put [email], [phone] and [card] in the place of e-mail addresses, telephone numbers and card numbers, and say"
        " how many. Needs the extra `redact`.",
    )
    phone_regions: tuple[str, ...] = setting(
        (),
        "With --redact: countries (US,GB) whose telephone numbers are found without their +CODE, too; by default the"
        " one where most speak the language of the segment.",
    )


@dataclass(frozen=True, slots=True)
class _Found:
    kind: str
    start: int
    end: int


def redacted(rows: Sequence[Row], options: RedactionOptions) -> tuple[list[Row], Counter[str]]:
    """Return the segments of a recording with their texts redacted, and what was found, by kind.

    Of what begins in a segment and goes on in the next, the word stands in the first one.
    """
    text, starts = _together(rows)
    found = list(_apart(_emails(text), _cards(text), _phones(text, _regions(rows, starts, options))))
    texts = [row["text"] for row in rows]
    for one in reversed(found):
        for at in range(len(rows)):
            begin, end = one.start - starts[at], one.end - starts[at]
            if begin < len(texts[at]) and end > 0:
                word = f"[{one.kind}]" if begin >= 0 else ""
                texts[at] = texts[at][: max(0, begin)] + word + texts[at][end:]
    made: list[Row] = [{**row, "text": text} for row, text in zip(rows, texts, strict=True)]
    return made, Counter(one.kind for one in found)


def check(options: RedactionOptions) -> None:
    """UserError for a region that is none, or where the libraries are missing."""
    if options.redact:
        known = _library("phonenumbers").SUPPORTED_REGIONS
        for region in options.phone_regions:
            if region not in known:
                raise UserError(f"--phone-regions: {region} is no country", "write two capital letters: US,GB,DE")


def _together(rows: Sequence[Row]) -> tuple[str, list[int]]:
    """Return the texts of all segments as one, and where each begins in it."""
    text, starts = "", []
    for number, row in enumerate(rows):
        if number:
            near = row["start"] - rows[number - 1]["end"] < _JOINED_S
            text += " " if near else _APART
        starts.append(len(text))
        text += row["text"]
    return text, starts


def _apart(*kinds: Iterable[_Found]) -> Iterator[_Found]:
    """Yield what was found, in order; where two overlap, the kind that is named first."""
    taken: list[_Found] = []
    for found in kinds:
        earlier = list(taken)
        taken += [one for one in found if not any(one.start < e.end and e.start < one.end for e in earlier)]
    free = 0
    for one in sorted(taken, key=lambda one: one.start):
        if one.start >= free:
            yield one
            free = one.end


def _emails(text: str) -> Iterator[_Found]:
    for match in _EMAIL.finditer(text) if "@" in text else ():
        for end in range(len(match[0]), 0, -1):  # a sentence's own marks may stand behind it
            if _is_email(match[0][:end]):
                yield _Found("email", match.start(), match.start() + end)
                break
            if match[0][end - 1].isalnum():
                break


def _is_email(text: str) -> bool:
    library = _library("email_validator")
    try:
        library.validate_email(text, check_deliverability=False)
    except library.EmailNotValidError:
        return False
    return True


def _cards(text: str) -> Iterator[_Found]:
    for match in _CARD.finditer(text):
        groups = tuple(map(len, re.findall(r"\d+", match[0])))
        usual = len(groups) == 1 or set(groups) == {1} or groups in _CARD_GROUPS
        digits = re.sub(r"\D", "", match[0])
        if usual and len(digits) in _CARD_DIGITS and _library("stdnum.luhn").is_valid(digits):
            yield _Found("card", *match.span())


def _phones(text: str, regions: Sequence[tuple[str | None, range]]) -> Iterator[_Found]:
    """Yield numbers with a country's code wherever they stand, and others where they are of the region told for it."""
    if not _SEVEN_DIGITS.search(text):
        return
    library = _library("phonenumbers")
    for region in dict.fromkeys(region for region, _ in regions):
        places = [place for one, place in regions if one == region]
        for match in library.PhoneNumberMatcher(text, region, leniency=library.Leniency.VALID):
            here = any(match.start in place for place in places)
            if here and not _DATE.fullmatch(match.raw_string) and _is_meant(match, text, region):
                yield _Found("phone", match.start, match.end)


def _is_meant(match: Any, text: str, region: str | None) -> bool:
    """Say whether it is written as a telephone number: as an ordinary number it would have no + or 0 before it."""
    if _DECIMALS.search(text[: match.start]):
        return False
    if match.raw_string.startswith(("+", "(", "0")):
        return True
    library = _library("phonenumbers")
    strict = library.PhoneNumberMatcher(
        text[match.start : match.end], region, leniency=library.Leniency.STRICT_GROUPING
    )
    return bool(strict.has_next())


def _regions(rows: Sequence[Row], starts: Sequence[int], options: RedactionOptions) -> list[tuple[str | None, range]]:
    """Return each stretch of the joined text with a region whose numbers are looked for there."""
    ends = [*starts[1:], 1 << 62]
    return [
        (region, range(start, end))
        for row, start, end in zip(rows, starts, ends, strict=False)
        for region in options.phone_regions or (_region_of(row["language"]),)
    ]


@cache
def _region_of(language: str) -> str | None:
    """Return the country where most speak the language, None where nobody says so: CLDR's likely subtags."""
    likely = _library("babel.core").get_global("likely_subtags").get(language, "")
    region = likely.rpartition("_")[2]
    return region if region in _library("phonenumbers").SUPPORTED_REGIONS else None


@cache
def _library(name: str) -> Any:
    """Import a library of the extra; UserError where it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"--redact needs {name.partition('.')[0]}", install("redact")) from error
