"""What language a text reads like, and whether that contradicts what its audio sounds like.

Duty: compare two opinions that come about independently: py3langid's of the text, Whisper's of the audio. Knows no
audio. Why py3langid: docs/languages.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pipeline.types import Guess, Segment

MIN_LETTERS = 15  # of different words; shorter texts are in no language for sure
SURE = 0.9  # probability from which a text's language counts; above it none of 4,000 was wrong (bench/text_language.py)
HEARD = 0.5  # the audio's likeliest language must be as likely, or the audio is in none for sure
POSSIBLE = 0.05  # languages of the audio that are as likely are not contradicted
DENSE = 0x2E80  # scripts from here on write a syllable or a word with a letter
DENSE_LETTERS = 2.5

# Whisper's languages, as py3langid calls them. Others would only take texts away from these.
READ = (
    "af am ar as az ba be bg bn br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha he hi hr ht hu hy id is it ja"
    " jv ka kk km kn ko la lb ln lo lt lv mg mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa si sk sl sn so sq"
    " sr sv sw ta te tg th tk tl tr tt uk ur uz vi yo yue zh"
)
AS_WHISPER = {"jv": "jw"}

# Languages that are taken for each other, by ear or by eye, without anything being wrong.
KIN = (
    "no nn da sv, no nn is fo, hr sr bs sl, bg mk, mk sr, id ms, id jw, id su, jw su, cs sk, es gl, gl pt, es ca,"
    " ca oc, oc fr, fr ht, it la, ru uk be, ru tt ba, nl af, de lb, de yi, hi ur, hi mr ne sa, bn as, fa tg, fa ps,"
    " zh yue, tr az tk, tr uz, kk tt ba, fi et, lt lv, ar mt"
)
RELATED = [set(group.split()) for group in KIN.split(", ")]


def read(text: str) -> Guess | None:
    """Return the language that a text reads like; None where it is too short to tell."""
    return guess(text) if letters(text) >= MIN_LETTERS else None


def guess(text: str) -> Guess:
    """Return the likeliest language of a text, however short."""
    code, probability = _identifier().classify(text.lower() if text.isupper() else text)
    return Guess(AS_WHISPER.get(code, code), float(probability))


def letters(text: str) -> float:
    """Count the letters of a text's different words, those of dense scripts as more."""
    different = set(text.lower().split())
    return sum(DENSE_LETTERS if ord(one) >= DENSE else 1.0 for word in different for one in word if one.isalpha())


def mismatch(segment: Segment) -> bool:
    """Say whether the text is surely in a language that the audio is surely not in; a translation must be English."""
    text, sure = segment.text_language, (segment.text_language_probability or 0) >= SURE
    if text is None or not sure:
        return False
    if segment.task == "translate":
        return not related(text, "en")
    return contradicts(text, segment.languages)


def contradicts(text: str, heard: Sequence[Guess]) -> bool:
    """Say whether audio, by what it sounds like (likeliest first), is surely not in the language of its text."""
    if not heard or heard[0].probability < HEARD:
        return False
    possible = [guess.language for guess in heard if guess.probability >= POSSIBLE]
    return not any(related(text, language) for language in possible)


def related(one: str, other: str) -> bool:
    """Say whether two languages are the same or easily taken for each other."""
    return one == other or any(one in group and other in group for group in RELATED)


@cache
def _identifier() -> Any:
    """Return the identifier with its 4 MB model, loaded once a process."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # here, because commands that only need help stay quick

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(READ.split())
    return identifier
