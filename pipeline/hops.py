"""Dataclasses <-> Arrow between the stages: the schemas of the hops, and the only conversion.

Times are integer samples here. The written tables are those of `rows.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.types import (
    Attempt,
    Failure,
    Guess,
    Look,
    Media,
    Outcome,
    Passage,
    Recording,
    Segment,
    Span,
    Transcript,
    Voice,
    Word,
)

_SPAN = pa.struct([("start", pa.int64()), ("end", pa.int64())])
_RECORDING = [
    ("id", pa.string()),
    ("uri", pa.string()),
    ("size", pa.int64()),
    ("version", pa.string()),
    ("language", pa.string()),
    ("initial_prompt", pa.string()),
    ("metadata", pa.string()),
    ("address", pa.string()),
    ("inside", pa.string()),
    ("start", pa.int64()),
    ("end", pa.int64()),
    ("asked", pa.string()),
]
_MEDIA = [
    ("container", pa.string()),
    ("codec", pa.string()),
    ("sample_rate", pa.int32()),
    ("channels", pa.int32()),
    ("tracks", pa.int32()),
    ("stated_s", pa.float64()),
    ("selection", pa.string()),
]
_FAILURE = [("stage", pa.string()), ("kind", pa.string()), ("message", pa.string()), ("retryable", pa.bool_())]
_OUTCOME = pa.struct(
    [
        ("recording", pa.struct(_RECORDING)),
        ("passages", pa.int32()),
        ("duration", pa.int64()),
        ("speech", pa.int64()),
        ("speechless", pa.list_(_SPAN)),
        ("media", pa.struct(_MEDIA)),
        ("failure", pa.struct(_FAILURE)),
        ("snr_db", pa.float64()),
        ("sound", pa.int64()),
    ]
)
_ATTEMPT = [("temperature", pa.float64()), ("avg_logprob", pa.float64()), ("compression_ratio", pa.float64())]
_GUESS = [("language", pa.string()), ("probability", pa.float64())]
_WORD = [("start", pa.int64()), ("end", pa.int64()), ("text", pa.string()), ("probability", pa.float64())]
_SEGMENT = [
    ("start", pa.int64()),
    ("end", pa.int64()),
    ("text", pa.string()),
    ("language", pa.string()),
    ("language_probability", pa.float64()),
    ("task", pa.string()),
    ("avg_logprob", pa.float64()),
    ("compression_ratio", pa.float64()),
    ("no_speech_prob", pa.float64()),
    ("temperature", pa.float64()),
    ("attempts", pa.list_(pa.struct(_ATTEMPT))),
    ("tokens", pa.int32()),
    ("evidence", pa.float64()),
    ("evidence_per_token", pa.float64()),
    ("text_logprob", pa.float64()),
    ("unlikely_share", pa.float64()),
    ("speech_ratio", pa.float64()),
    ("characters_per_second", pa.float64()),
    ("tokens_per_second", pa.float64()),
    ("repetition", pa.int32()),
    ("repetition_period", pa.int32()),
    ("variety", pa.float64()),
    ("hallucination_probability", pa.float64()),
    ("flags", pa.list_(pa.string())),
    ("words", pa.list_(pa.struct(_WORD))),
    ("languages", pa.list_(pa.struct(_GUESS))),
    ("text_language", pa.string()),
    ("text_language_probability", pa.float64()),
    ("phrase_weight", pa.float64()),
]
_VOICE = [
    ("window", pa.int32()),
    ("spans", pa.list_(_SPAN)),
    ("alone", pa.int64()),
    ("vector", pa.list_(pa.float32())),
]

RECORDING_HOP = pa.schema(_RECORDING)
# A row with `outcome` is the closing row of its recording; the others are passages, or what the engine answers.
PASSAGE_HOP = pa.schema(
    [
        ("recording_id", pa.string()),
        ("index", pa.int32()),
        ("start", pa.int64()),
        ("pcm", pa.large_binary()),  # int16 little-endian, mono, 16 kHz
        ("spans", pa.list_(_SPAN)),
        ("language", pa.string()),
        ("initial_prompt", pa.string()),
        ("outcome", _OUTCOME),
    ]
)
TRANSCRIPT_HOP = pa.schema(
    [
        ("recording_id", pa.string()),
        ("passage", pa.int32()),
        ("span", _SPAN),
        ("speech", pa.list_(_SPAN)),
        ("segments", pa.list_(pa.struct(_SEGMENT))),
        ("language", pa.string()),
        ("language_probability", pa.float64()),
        ("languages", pa.list_(pa.struct(_GUESS))),
        ("silent", pa.list_(_SPAN)),
        ("voices", pa.list_(pa.struct(_VOICE))),
        ("outcome", _OUTCOME),
    ]
)
LOOK_HOP = pa.schema(
    [
        ("recording_id", pa.string()),
        ("passage", pa.int32()),
        ("span", _SPAN),
        ("speech", pa.int64()),
        ("no_speech_prob", pa.float64()),
        ("languages", pa.list_(pa.struct([("language", pa.string()), ("probability", pa.float64())]))),
        ("outcome", _OUTCOME),
    ]
)


def recordings_table(recordings: Iterable[Recording]) -> pa.Table:
    """Recordings -> table of `RECORDING_HOP`."""
    objects = list(recordings)
    columns = [pa.array([getattr(one, name) for one in objects], kind) for name, kind in _RECORDING]
    return pa.Table.from_arrays(columns, schema=RECORDING_HOP)


def read_recordings(table: pa.Table) -> Iterator[Recording]:
    """Table of `RECORDING_HOP` -> recordings."""
    return (Recording(**row) for row in table.to_pylist())


def passages_table(items: Iterable[Passage | Outcome]) -> pa.Table:
    """Passages and closing words -> table of `PASSAGE_HOP`; the PCM is copied once, as bytes."""
    return pa.Table.from_pylist([_passage_row(item) for item in items], schema=PASSAGE_HOP)


def read_passages(table: pa.Table) -> Iterator[Passage | Outcome]:
    """Table of `PASSAGE_HOP` -> passages (their PCM is a view into the table) and closing words."""
    rows = table.drop_columns("pcm").to_pylist()
    for row, pcm in zip(rows, table["pcm"], strict=True):
        if row["outcome"] is not None:
            yield _outcome(row["outcome"])
        else:
            yield Passage(
                recording_id=row["recording_id"],
                index=row["index"],
                start=row["start"],
                pcm=np.frombuffer(pcm.as_buffer(), np.int16),
                spans=_spans(row["spans"]),
                language=row["language"],
                initial_prompt=row["initial_prompt"],
            )


def transcripts_table(items: Iterable[Transcript | Outcome]) -> pa.Table:
    """Transcripts and closing words -> table of `TRANSCRIPT_HOP`."""
    return pa.Table.from_pylist([_transcript_row(item) for item in items], schema=TRANSCRIPT_HOP)


def looks_table(items: Iterable[Look | Outcome]) -> pa.Table:
    """Looks and closing words -> table of `LOOK_HOP`."""
    return pa.Table.from_pylist([_look_row(item) for item in items], schema=LOOK_HOP)


def read_answers(table: pa.Table) -> Iterator[Transcript | Look | Outcome]:
    """Table of `TRANSCRIPT_HOP` or `LOOK_HOP` -> what it holds."""
    return read_looks(table) if table.schema.names == LOOK_HOP.names else read_transcripts(table)


def read_looks(table: pa.Table) -> Iterator[Look | Outcome]:
    """Table of `LOOK_HOP` -> looks and closing words."""
    for row in table.to_pylist():
        outcome = row.pop("outcome")
        if outcome is not None:
            yield _outcome(outcome)
        else:
            languages = tuple((one["language"], one["probability"]) for one in row["languages"])
            yield Look(**row | {"span": Span(**row["span"]), "languages": languages})


def read_transcripts(table: pa.Table) -> Iterator[Transcript | Outcome]:
    """Table of `TRANSCRIPT_HOP` -> transcripts and closing words."""
    for row in table.to_pylist():
        outcome = row.pop("outcome")
        if outcome is not None:
            yield _outcome(outcome)
        else:
            row |= {
                "span": Span(**row["span"]),
                "speech": _spans(row["speech"]),
                "segments": tuple(map(_segment, row["segments"])),
                "languages": _guesses(row["languages"]),
                "silent": _spans(row["silent"]),
                "voices": tuple(_voice(voice) for voice in row["voices"] or ()),
            }
            yield Transcript(**row)


_NAMES = {
    kind: tuple(field.name for field in fields(kind))
    for kind in (Attempt, Failure, Guess, Look, Media, Outcome, Recording, Segment, Span, Transcript, Voice, Word)
}


def plain(item: Any) -> dict[str, Any]:
    """Return a dataclass of ours as a dict, not what is nested in it: `asdict` copies deeply, and takes far longer."""
    return {name: getattr(item, name) for name in _NAMES[type(item)]}


def _passage_row(item: Passage | Outcome) -> dict[str, Any]:
    if isinstance(item, Outcome):
        return _closing_row(item)
    return {
        "recording_id": item.recording_id,
        "index": item.index,
        "start": item.start,
        "pcm": item.pcm.tobytes(),
        "spans": [plain(span) for span in item.spans],
        "language": item.language,
        "initial_prompt": item.initial_prompt,
    }


def _transcript_row(item: Transcript | Outcome) -> dict[str, Any]:
    if isinstance(item, Outcome):
        return _closing_row(item)
    return plain(item) | {
        "span": plain(item.span),
        "speech": [plain(span) for span in item.speech],
        "segments": [_segment_row(segment) for segment in item.segments],
        "languages": [plain(guess) for guess in item.languages],
        "silent": [plain(span) for span in item.silent],
        "voices": [plain(voice) | {"spans": [plain(span) for span in voice.spans]} for voice in item.voices],
    }


def _look_row(item: Look | Outcome) -> dict[str, Any]:
    if isinstance(item, Outcome):
        return _closing_row(item)
    languages = [{"language": code, "probability": probability} for code, probability in item.languages]
    return plain(item) | {"span": plain(item.span), "languages": languages}


def _segment_row(segment: Segment) -> dict[str, Any]:
    return plain(segment) | {
        "attempts": [plain(attempt) for attempt in segment.attempts],
        "words": [plain(word) for word in segment.words],
        "languages": [plain(guess) for guess in segment.languages],
    }


def _closing_row(outcome: Outcome) -> dict[str, Any]:
    nested = {
        "recording": plain(outcome.recording),
        "speechless": [plain(span) for span in outcome.speechless],
        "media": plain(outcome.media),
        "failure": plain(outcome.failure) if outcome.failure else None,
    }
    return {"recording_id": outcome.recording.id, "outcome": plain(outcome) | nested}


def _guesses(rows: list[dict[str, Any]]) -> tuple[Guess, ...]:
    return tuple(Guess(**row) for row in rows)


def _spans(rows: list[dict[str, int]]) -> tuple[Span, ...]:
    return tuple(Span(**row) for row in rows)


def _voice(row: dict[str, Any]) -> Voice:
    return Voice(**row | {"spans": _spans(row["spans"]), "vector": tuple(row["vector"])})


def _outcome(row: dict[str, Any]) -> Outcome:
    return Outcome(
        recording=Recording(**row["recording"]),
        passages=row["passages"],
        duration=row["duration"],
        speech=row["speech"],
        speechless=_spans(row["speechless"]),
        media=Media(**row["media"]),
        failure=Failure(**row["failure"]) if row["failure"] else None,
        snr_db=row["snr_db"],
        sound=row["sound"],
    )


def _segment(row: dict[str, Any]) -> Segment:
    return Segment(
        **row
        | {
            "attempts": tuple(Attempt(**attempt) for attempt in row["attempts"]),
            "flags": tuple(row["flags"]),
            "words": tuple(Word(**word) for word in row["words"]),
            "languages": _guesses(row["languages"]),
        }
    )
