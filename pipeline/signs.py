"""What a text and its times tell by themselves: how fast it is said, and how much of it is repetition.

Duty: arithmetic on text and spans, the same for every script. Knows no model, no flags and no thresholds.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.types import SAMPLE_RATE

# Scripts written without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han.
_SPACELESS = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_SYLLABLES = re.compile("[\uac00-\ud7af]")  # Hangul: as dense as these, though with spaces
NGRAM, DENSE_NGRAM = 4, 2  # characters


@lru_cache(maxsize=1)  # all that is told of a segment begins with them
def letters(text: str) -> str:
    """Return what is said of a text: its letters and digits, folded (case, width), without spaces and punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LMN")


def characters_per_second(text: str, speech: int) -> float | None:
    """Return letters and digits a second of `speech`, in samples; None without speech."""
    return per_second(len(letters(text)), speech)


def per_second(count: int, speech: int) -> float | None:
    """Return how many come in a second of `speech`, in samples; None without speech."""
    return count / (speech / SAMPLE_RATE) if speech > 0 else None


def repetition(text: str) -> tuple[int, int]:
    """Return length and period, in letters, of the longest stretch that repeats itself at least once; (0, 0) for none.

    "la la la la" has length 8 and period 2, "no no" 4 and 2. Of equally long stretches the shortest period counts.
    A text that has no letters repeats its signs: "____" has length 4 and period 1.
    """
    codes = np.frombuffer(_counted(text).encode("utf-32-le"), np.uint32)
    longest = period = 0
    for shift in range(1, len(codes) // 2 + 1):
        if len(codes) <= longest:
            break
        equal, needed = codes[shift:] == codes[:-shift], max(shift, longest - shift + 1)
        if np.count_nonzero(equal) < needed:  # mostly so, and quicker to tell
            continue
        run = _longest_run(equal)
        if run >= needed:
            longest, period = run + shift, shift
    return longest, period


def variety(text: str) -> float:
    """Return the share of a text's n-grams of letters that are not repetitions: 1 for none, near 0 for loops.

    Four letters, or two where a letter is a syllable or a word (Chinese, Japanese, Thai, Korean and their kin): bytes
    packed by zlib, the usual measure, look repetitive there whatever is said. Signs count where there are no letters.
    """
    plain = _counted(text)
    dense = len(_SPACELESS.findall(plain)) + len(_SYLLABLES.findall(plain))
    n = DENSE_NGRAM if 2 * dense > len(plain) else NGRAM
    count = len(plain) - n + 1
    return len({plain[i : i + n] for i in range(count)}) / count if count > 0 else 1.0


def _counted(text: str) -> str:
    """Return the letters, or the signs of a text that has none: decoders loop in those, too."""
    plain = letters(text)
    return plain if any(map(str.isalnum, plain)) else "".join(text.split())


def _longest_run(equal: NDArray[np.bool_]) -> int:
    """Return the length of the longest stretch of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], equal, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))
