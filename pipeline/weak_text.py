"""What a text beside audio gives away of who wrote it: people, or a machine.

Duty: numbers of a text, and what they say, as the paper of Whisper does it, for the scripts where that makes sense.
Pure functions on text. Knows no audio and no corpus.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import phrases
from pipeline.subtitles import SPACELESS_CHAR

CASED = 30  # letters of scripts with case from which case tells something
SENTENCES = 3  # whose beginnings tell something
WORDS = 20  # from which a text without any punctuation is suspicious
LONG = 100  # words from which one without a comma is
SHOUTED = 0.9  # share of upper-case letters
LOWERED = 0.5  # share of sentences that begin in lower case
RARE = 0.01  # marks a word: people set more of them
DENSE = 2.0  # letters a word, in scripts without spaces between them

STOPS = frozenset(".!?…。！？；;:：؟۔।॥።፧။⸮")
COMMAS = frozenset(",、，،፣؍၊")
_GEORGIAN = "\u10d0", "\u10ff"  # first and last letter: it has upper case in Unicode, and none in print
_UNMARKED = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")  # scripts that do without punctuation, or nearly
_SUBTITLED_WITHOUT = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")  # whose subtitles leave it out, by people's own rules
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'»”’)\]]*\s+(?=\S)")

_MADE = r"(?:captions?|subtitles?|transcripts?|transcription|captioning)"
_TOOLS = (
    r"(?:https?://)?(?:www\.)?(?:otter\.ai|otter|turboscribe(?:\.ai)?|happy ?scribe|sonix(?:\.ai)?|descript|trint|temi|"
    r"veed(?:\.io)?|kapwing|rev\.ai|assembly ?ai|deepgram|(?:openai )?whisper|youtube|google speech[- ]to[- ]text)"
)
# What machines and the services that run them write into their transcripts.
_WATERMARKS = re.compile(
    rf"(?:auto(?:matically)?|machine)[- ]?generated {_MADE}"
    rf"|{_MADE}(?: (?:is|are|was|were))? auto(?:matically)?[- ]?(?:generated|transcribed)"
    rf"|(?:transcribed|subtitled|captioned|generated|created) (?:automatically )?(?:by|with|using) {_TOOLS}\b"
    r"|https?://otter\.ai"
    r"|automatisch (?:generierte|erstellte) untertitel|untertitel (?:wurden )?automatisch (?:generiert|erstellt)"
    r"|sous-titres générés automatiquement|sous-titrage automatique|subtítulos generados automáticamente"
    r"|sottotitoli (?:generati|creati) automaticamente|legendas geradas automaticamente"
    r"|субтитры созданы автоматически|автоматические субтитры"
    r"|字幕由.{0,12}自动生成|自动生成的?字幕|自動生成.{0,4}字幕|자동 생성된? 자막",
    re.IGNORECASE,
)
_CREDIT = re.compile(  # which of the lines that Whisper invents are credits: nobody says these
    r"subtit|caption|untertitel|sous-tit|sottotit|subtít|legend|ondertit|napisy|tekstning|undertekst|textning|altyaz"
    r"|titulk|felirat|tekstitys|субтитр|字幕|자막|transcri|amara\.org",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Signs:
    """Numbers of a text. None where a sign makes no sense: too short, or no such thing in its script."""

    letters: int
    words: int
    upper_share: float | None  # of the letters of scripts with case
    lower_starts: float | None  # share of sentences that begin in lower case
    stops: float | None  # marks that end sentences or parts of them, a word
    commas: float | None  # a word
    watermark: str | None  # what a machine has left in it


def signs(text: str, *, subtitles: bool = False) -> Signs:
    """Look at a text."""
    letters = [one for one in text if one.isalpha()]
    words = count_words(text)
    cased = [one for one in letters if _is_cased(one)]
    with_case = len(cased) >= CASED and 2 * len(cased) > len(letters)
    starts = _starts(text) if with_case else []
    punctuated = _punctuated(letters, subtitles=subtitles) and words > 0
    watermark = _WATERMARKS.search(text)
    return Signs(
        letters=len(letters),
        words=words,
        upper_share=sum(map(str.isupper, cased)) / len(cased) if with_case else None,
        lower_starts=sum(map(str.islower, starts)) / len(starts) if len(starts) >= SENTENCES else None,
        stops=sum(one in STOPS for one in text) / words if punctuated else None,
        commas=sum(one in COMMAS for one in text) / words if punctuated else None,
        watermark=watermark[0] if watermark else None,
    )


def suspicions(found: Signs) -> list[str]:
    """Return why the text was probably written by a machine: none where it could be a person's."""
    said: dict[str, bool] = {
        "watermark": found.watermark is not None,
        "upper_case": found.upper_share is not None and found.upper_share >= SHOUTED,
        "lower_case": found.upper_share == 0,
        "capitals": found.upper_share != 0 and found.lower_starts is not None and found.lower_starts > LOWERED,
        "punctuation": found.words >= WORDS and found.stops is not None and found.stops + (found.commas or 0.0) < RARE,
        "commas": found.words >= LONG and found.commas == 0 and (found.stops or 0.0) >= RARE,
    }
    return [reason for reason, is_so in said.items() if is_so]


def without_credits(text: str) -> tuple[str, int]:
    """Return a text without the lines that only say who wrote it, and how many there were."""
    lines = text.splitlines()
    kept = [line for line in lines if not is_credit(line)]
    return "\n".join(kept), len(lines) - len(kept)


def is_credit(line: str) -> bool:
    """Say whether a line is a known credit of subtitles."""
    return _CREDIT.search(line) is not None and phrases.known().weight(line) == 1.0


def count_words(text: str) -> int:
    """Count words; in scripts without spaces between them, about as many as there would be."""
    letters = sum(map(str.isalnum, text))
    dense = len(SPACELESS_CHAR.findall(text))
    return round(letters / DENSE) if 2 * dense > letters else sum(any(map(str.isalnum, one)) for one in text.split())


def _is_cased(letter: str) -> bool:
    return (letter.isupper() or letter.islower()) and not _GEORGIAN[0] <= letter <= _GEORGIAN[1]


def _starts(text: str) -> list[str]:
    """Return the first letter of each sentence that begins with one that has case."""
    firsts = (next((one for one in part if one.isalnum()), "") for part in _SENTENCE.split(text.replace("\n", " ")))
    return [first for first in firsts if first and _is_cased(first)]


def _punctuated(letters: Sequence[str], *, subtitles: bool) -> bool:
    """Say whether people who write this script punctuate it."""
    without = (*_UNMARKED, *(_SUBTITLED_WITHOUT if subtitles else ()))
    bare = sum(unicodedata.name(letter, "").startswith(without) for letter in letters)
    return 2 * bare <= len(letters)
