"""Known inventions: lines that Whisper writes where nobody speaks, such as credits of subtitles.

Duty: find a text in a list of such lines, whole, and judge by its surroundings whether it was invented. People say some
of these lines, too; a match alone proves nothing. The list is `phrases.csv` beside this module; a corpus may bring its
own (`bulkscribe phrases`). Knows no audio and no tables.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pipeline.errors import UserError
from pipeline.types import SAMPLE_RATE, Segment

COLUMNS = ("language", "weight", "text")
REST = 60  # folded characters that a line's `*` may stand for: a name or two, not a sentence
LONG = 300  # characters: nothing that long is looked up
SENTENCE = re.compile(r"(?<=[.!?…。！？؟।])\s*|\n")

WEAK = 20.0  # nats of evidence below which a text hangs on the audio by little
SOLID = 4.0  # nats a token from which the audio has said the words
UNHEARD = 0.5  # no-speech probability from which the window is doubtful
SLOW = 4.0  # letters a second: known lines are short, and invented ones often stretch over silence
OUTSIDE = 0.5  # share under speech below which a segment mostly lies in silence
ENOUGH = 1.7  # weight, and half a point for each sign


@dataclass(frozen=True)
class Phrases:
    """Lines by their folded text, each with a weight in (0, 1]: how surely it is an invention where doubts arise."""

    exact: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)  # lines that end in `*`

    def weight(self, text: str) -> float | None:
        """Return the weight of a text that is a line of the list, or several of them; None for any other text."""
        if len(text) > LONG:
            return None
        whole = self._line(text)
        if whole is not None:
            return whole
        lines = [self._line(part) for part in SENTENCE.split(text) if fold(part)]
        known = [weight for weight in lines if weight is not None]
        return min(known) if known and len(known) == len(lines) else None

    def with_lines(self, other: Phrases) -> Phrases:
        """Return both lists in one; a line of both has the weight that `other` gives it."""
        return Phrases({**self.exact, **other.exact}, {**self.starts, **other.starts})

    def fingerprint(self) -> str:
        """Return a hash of the lines and their weights."""
        content = repr((sorted(self.exact.items()), sorted(self.starts.items())))
        return hashlib.sha256(content.encode()).hexdigest()

    def _line(self, text: str) -> float | None:
        folded = fold(text)
        if folded in self.exact:
            return self.exact[folded]
        if not folded.startswith(tuple(self.starts)):
            return None
        fitting = [(len(start), weight) for start, weight in self.starts.items() if folded.startswith(start)]
        return max((weight for length, weight in fitting if len(folded) - length <= REST), default=None)


def fold(text: str) -> str:
    """Return the letters and digits of a text, without case, marks, width and spaces."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return "".join(one for one in plain if one.isalnum())


def invented(segment: Segment, *, last: bool) -> bool:
    """Say whether a segment that is a known line was invented; `last`: nothing follows it in the recording.

    Signs against it: little evidence, a doubtful window, time without speech, a line that is drawn out, the end of the
    recording. The better known a line is as an invention, the fewer it takes; evidence that is solid acquits it.
    """
    weight = segment.phrase_weight
    if weight is None or (segment.evidence_per_token or 0.0) >= SOLID:
        return False
    seconds = (segment.end - segment.start) / SAMPLE_RATE
    signs = (
        segment.evidence is not None and segment.evidence < WEAK,
        segment.no_speech_prob > UNHEARD,
        segment.speech_ratio is not None and segment.speech_ratio < OUTSIDE,
        len(fold(segment.text)) < SLOW * seconds,
        last,
    )
    return weight + 0.5 * sum(signs) >= ENOUGH


@cache
def known() -> Phrases:
    """Return the list that ships."""
    return parse((Path(__file__).parent / "phrases.csv").read_text(encoding="utf-8"), "phrases.csv")


def parse(content: str, name: str) -> Phrases:
    """Read a list: a CSV with the columns of `COLUMNS`, any others beside them. `name` is for messages.

    Raises UserError for what is no such list.
    """
    rows = csv.DictReader(io.StringIO(content))
    missing = {"weight", "text"} - set(rows.fieldnames or ())
    if missing:
        raise UserError(
            f"{name} is no list of phrases: it lacks {', '.join(sorted(missing))}", "bulkscribe phrases OUT"
        )
    return _phrases((row["text"] or "", _weight(row["weight"], name, number)) for number, row in enumerate(rows, 2))


def _weight(value: str | None, name: str, line: int) -> float:
    try:
        weight = float(value or "")
    except ValueError:
        weight = 0.0
    if not 0 < weight <= 1:
        raise UserError(f"{name}, line {line}: the weight {value!r} is not in (0, 1]", "1 is sure, 0.5 doubtful")
    return weight


def _phrases(lines: Iterable[tuple[str, float]]) -> Phrases:
    exact: dict[str, float] = {}
    starts: dict[str, float] = {}
    for text, weight in lines:
        folded, into = fold(text), starts if text.rstrip().endswith("*") else exact
        if folded:
            into[folded] = max(weight, into.get(folded, 0.0))
    return Phrases(exact, starts)
