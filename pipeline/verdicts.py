"""Pairs of audio and text -> which are worth training on, and why the others are not: rows of the pairs table.

Duty: a look at each text alone, then beside what was heard, then beside all others; reasons come from numbers, so that
another choice needs no audio. Texts stay in memory, and 2 KB for each that is different. Knows no files and no audio.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from pipeline import text, text_language, weak_text
from pipeline.dedup import TextGroups
from pipeline.errors import UserError
from pipeline.manifests import as_json
from pipeline.pairs import Pair
from pipeline.transcripts import Transcribed
from pipeline.types import AT_LEAST_ONE, NOT_NEGATIVE, SAMPLE_RATE, SHARE, Guess, setting
from schemas.pairs import PAIRS

Row = dict[str, Any]  # of schemas.pairs

DISTINCT = 8  # words from which a text that comes again is a copy; people do say short ones again
_READ = 1000  # characters of a text whose language is read: no more makes it surer
_TOGETHER = 4096  # rows that are objects at a time
_TRAVELLING = ("text", "reference", "subtitles", "cues")  # what metadata needs not hold twice

# Each reason with what it says of a pair, in the order in which they are told.
REASONS: dict[str, str] = {
    "no_text": "It has no text, or the text could not be read.",
    "empty": "The text has no letters.",
    "watermark": "A machine that transcribes has left its name in the text, or a time for each word.",
    "upper_case": "The text is in capitals: a machine's, or hardly anybody's.",
    "lower_case": "The text has no capitals at all, in a script that has some.",
    "capitals": "Sentences begin in lower case.",
    "punctuation": "The text has hardly a mark that ends a sentence, and no commas.",
    "commas": "The text is long and has no comma.",
    "synthetic": "The speech is a machine's, as the pair itself says.",
    "source": "Its source was dropped.",
    "untranscribed": "The transcripts do not have its audio, or it could not be read.",
    "silent": "Nothing was heard in its audio.",
    "language": "The text is not in the language of the audio, nor a translation into English.",
    "errors": "The text has too little in common with what was heard.",
    "copy": "A kept pair has nearly this text.",
    "audio": "Its audio could not be read again.",
    "unaligned": "No example came of it: the text has no times, and fits nowhere surely in what was heard.",
}


@dataclass(frozen=True)
class JudgeOptions:
    """What drops a pair; nothing of it is lost, and other choices need no audio."""

    allow: tuple[str, ...] = setting((), "Reasons that shall drop nothing, such as commas,copy.")
    max_wer: float = setting(
        0.9,
        "Most word errors of a text against what was heard, a word; for rare languages more (inf for all).",
        within=NOT_NEGATIVE,
    )
    max_copies: int = setting(
        1, f"Pairs that are kept of nearly the same text, where it has {DISTINCT} words or more.", within=AT_LEAST_ONE
    )
    similarity: float = setting(
        0.8, "Share of common 5-letter pieces from which texts count as nearly the same.", within=SHARE
    )
    drop_synthetic: bool = setting(False, "Drop speech of which metadata says that a machine speaks.")


@dataclass(frozen=True, slots=True)
class Score:
    """A text against what was heard."""

    compared: str  # hash of both
    compared_words: int
    word_errors: int
    wer: float | None
    cer: float | None


class Verdicts:
    """Takes pairs, then transcripts if there are any; knows then what becomes of each pair."""

    def __init__(self, options: JudgeOptions, old: Mapping[str, Score]) -> None:
        """`old`: scores of an earlier run, by recording."""
        self._options, self._old = options, old
        self._texts = TextGroups(options.similarity)
        self._chunks: list[pa.Table] = []
        self._places: dict[str, int] = {}
        self._heard: dict[str, Row] = {}
        self.listened = False  # whether there were transcripts
        self.compared = 0  # texts that no earlier run had compared

    def look(self, pairs: Iterable[Pair]) -> None:
        """Take the pairs, once."""
        rows: list[Row] = []
        for pair in pairs:
            self._places[pair.recording.id] = len(self._places)
            rows.append(self._plain(pair))
            if len(rows) == _TOGETHER:
                self._chunks.append(pa.Table.from_pylist(rows, PAIRS))
                rows = []
        if rows:
            self._chunks.append(pa.Table.from_pylist(rows, PAIRS))

    def hear(self, transcripts: Iterable[Transcribed]) -> None:
        """Take what was heard; recordings that are no pair's are passed over. UserError for translations."""
        self.listened = True
        for one in transcripts:
            if any(segment["task"] == "translate" for segment in one.segments):
                raise UserError("the transcripts are translations", "transcribe the pairs without --task translate")
            place = self._places.get(one.recording["recording_id"])
            if place is not None:
                chunk, at = self._chunks[place // _TOGETHER], place % _TOGETHER
                row = {name: chunk[name][at].as_py() for name in _NEEDED}
                self._heard[row["recording_id"]] = self._beside(row, one)

    def settle(self, dropped: frozenset[str], after: Mapping[str, Row]) -> Iterator[list[Row]]:
        """Yield the rows, many at a time. `after`: what became of a pair's audio, by recording."""
        groups = self._texts.groups()
        copies: Counter[int] = Counter()
        for chunk in self._chunks:
            rows = chunk.to_pylist()
            for row in rows:
                row |= self._heard.get(row["recording_id"], {}) | after.get(row["recording_id"], {})
                if row["text_group"] is not None:
                    row["text_group"] = int(groups[row["text_group"]])
                self._judge(row, dropped, copies)
            yield rows

    def sources(self) -> set[str]:
        """Return all sources."""
        return {source for chunk in self._chunks for source in chunk["source"].unique().to_pylist()}

    def _plain(self, pair: Pair) -> Row:
        """Return what the text alone tells."""
        recording = pair.recording
        said, taken_out = weak_text.without_credits(pair.text or "")
        found = weak_text.signs(said, subtitles=pair.timed)
        read = text_language.read(said[:_READ])
        told = json.loads(recording.metadata)
        row: Row = dict.fromkeys(PAIRS.names)
        row |= asdict(found) | {
            "recording_id": recording.id,
            "uri": recording.uri,
            "source": pair.source,
            "keep": False,
            "reasons": [],
            "task": "transcribe",
            "language": pair.language or (read.language if read else None),
            "duration_s": _length(pair),
            "text": None if pair.text is None else said,
            "text_error": pair.fault or None,
            "cues": len(pair.cues) if pair.timed else None,
            "credits": taken_out,
            "synthetic": pair.synthetic,
            "declared_language": pair.language,
            "text_language": read.language if read else None,
            "text_language_probability": read.probability if read else None,
            "text_group": self._texts.add(said) if found.letters else None,
            "metadata": as_json({k: v for k, v in told.items() if k not in _TRAVELLING}),
        }
        if pair.automatic and row["watermark"] is None:
            row["watermark"] = "a time for each word"
        return row

    def _beside(self, row: Row, one: Transcribed) -> Row:
        """Return what the audio tells: its language, and how far the text lies from what was heard."""
        recording = one.recording
        languages = [Guess(each["language"], each["probability"]) for each in recording["languages"] or ()]
        first = languages[0] if languages else None
        language = first.language if first else recording["language"] or row["language"]
        heard = " ".join(segment["text"].strip() for segment in one.segments)
        found: Row = {
            "transcribed": recording["status"],
            "duration_s": recording["duration_s"] if recording["status"] != "failed" else row["duration_s"],
            "language": language,
            "audio_language": first.language if first else None,
            "audio_language_probability": first.probability if first else None,
            "heard": heard,
        }
        sure = (row["text_language_probability"] or 0.0) >= text_language.SURE
        if sure and text_language.contradicts(row["text_language"], languages):
            english = row["text_language"] == "en"
            return found | ({"task": "translate"} if english else {"reasons": ["language"]})
        if row["letters"] and heard:
            found |= asdict(self._score(row["recording_id"], row["text"], heard, language))
        return found

    def _score(self, recording_id: str, said: str, heard: str, language: str | None) -> Score:
        key = hashlib.sha256(json.dumps([said, heard, language]).encode()).hexdigest()[:16]
        old = self._old.get(recording_id)
        if old is not None and old.compared == key:
            return old
        self.compared += 1
        errors = text.compare(said, heard, language).errors
        return Score(key, errors.words, errors.errors, errors.wer, errors.cer)

    def _judge(self, row: Row, dropped: frozenset[str], copies: Counter[int]) -> None:
        """Say what becomes of a pair, in its row."""
        options = self._options
        wrong = set(row["reasons"]) | set(weak_text.suspicions(_signs(row)))
        known = row["transcribed"] if self.listened else "ok"
        checks = {
            "no_text": row["text"] is None,
            "empty": row["text"] is not None and not row["letters"],
            "synthetic": options.drop_synthetic and bool(row["synthetic"]),
            "source": row["source"] in dropped,
            "untranscribed": known in (None, "failed"),
            "silent": self.listened and known in ("ok", "partial") and not row["heard"],
            "errors": row["wer"] is not None and row["wer"] > options.max_wer,
        }
        wrong |= {reason for reason, is_so in checks.items() if is_so}
        wrong -= set(options.allow)
        if not wrong and row["words"] >= DISTINCT and "copy" not in options.allow:
            copies[row["text_group"]] += 1
            wrong |= {"copy"} if copies[row["text_group"]] > options.max_copies else set()
        if not wrong and row["examples"] == 0:  # judged last: what came of the audio must not decide who is a copy
            wrong = {"audio" if row["audio_error"] is not None else "unaligned"}
        row["transcribed"] = row["transcribed"] or ("missing" if self.listened else None)
        row["reasons"] = [reason for reason in REASONS if reason in wrong]
        row["keep"] = not wrong


_NEEDED = ("recording_id", "text", "letters", "language", "text_language", "text_language_probability", "duration_s")
SCORED = ("recording_id", *(field.name for field in fields(Score)))


def old_scores(tables: Iterable[pa.Table]) -> dict[str, Score]:
    """Return the scores in tables of an earlier run, by recording."""
    found = {}
    for table in tables:
        for row in table.select(SCORED).to_pylist():
            if row["compared"] is not None:
                recording_id = row.pop("recording_id")
                found[recording_id] = Score(**row)
    return found


def _signs(row: Row) -> weak_text.Signs:
    return weak_text.Signs(**{field.name: row[field.name] for field in fields(weak_text.Signs)})


def _length(pair: Pair) -> float | None:
    """Return the seconds of a pair as far as it tells them itself."""
    recording = pair.recording
    if recording.end is not None:
        return (recording.end - recording.start) / SAMPLE_RATE
    return max(cue.end for cue in pair.cues) - recording.start / SAMPLE_RATE if pair.cues else None


def first_reason(reasons: Sequence[str]) -> str:
    """Return what a pair counts for where each counts once."""
    return reasons[0] if reasons else "kept"
