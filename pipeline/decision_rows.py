"""Surveys <-> rows of `schemas.decisions.DECISIONS`: `rows.py` for the table of `filter`, and the manifest of the kept.

All that a decision is made from stands in a row, so that a row can be decided upon again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from pipeline.decisions import length_s, share
from pipeline.rows import failure_columns
from pipeline.types import SAMPLE_RATE, Failure, Look, Media, Outcome, Recording, Span, Survey
from schemas.decisions import DECISIONS


def decision_rows(surveys: Iterable[Survey], *, part: str, model: str, config_hash: str, run_id: str) -> pa.Table:
    """Surveys -> rows of DECISIONS."""
    stamp = {"part": part, "model": model, "config_hash": config_hash, "run_id": run_id}
    return pa.Table.from_pylist([_row(one) | stamp for one in surveys], schema=DECISIONS)


def read_surveys(table: pa.Table) -> Iterator[Survey]:
    """Rows of DECISIONS -> surveys, with the decision that stands there."""
    return map(_survey, table.to_pylist())


def manifest_line(row: dict[str, Any], sure: float) -> str:
    """Return a row of DECISIONS as a line of a manifest: the columns of the one that it came from, and its language.

    The language, which `transcribe` then does not detect, is the one that was asked for, else one that is `sure`.
    """
    language = row["asked_language"] or (row["language"] if (row["language_probability"] or 0) >= sure else None)
    line = json.loads(row["metadata"]) | {"uri": row["uri"]}
    if row["inside"]:
        line |= {"inside": row["inside"]}
    if row["start_s"] or row["end_s"] is not None:
        line |= {"start": row["start_s"]} | ({} if row["end_s"] is None else {"end": row["end_s"]})
    line |= {
        name: value for name, value in (("language", language), ("initial_prompt", row["initial_prompt"])) if value
    }
    return json.dumps(line, ensure_ascii=False)


def _row(one: Survey) -> dict[str, Any]:
    outcome = one.outcome
    recording, media, failure = outcome.recording, outcome.media, outcome.failure
    heard = bool(outcome.duration)
    language, probability = one.languages[0] if one.languages else (None, None)
    return {
        "recording_id": recording.id,
        "uri": recording.uri,
        "version": recording.version,
        "start_s": recording.start / SAMPLE_RATE,
        "end_s": None if recording.end is None else recording.end / SAMPLE_RATE,
        "inside": recording.inside,
        "keep": one.keep,
        "reason": one.reason,
        "size_bytes": recording.size,
        "status": outcome.status,
        **failure_columns(failure),
        "container": media.container,
        "codec": media.codec,
        "sample_rate": media.sample_rate,
        "channels": media.channels,
        "selection": media.selection if heard else None,
        "duration_s": length_s(outcome),
        "looked_s": outcome.duration / SAMPLE_RATE,
        "looks": len(one.looks) + len(outcome.speechless),
        "speech_share": share(outcome.speech, outcome) if heard else None,
        "sound_share": share(outcome.sound, outcome) if heard else None,
        "silence_share": share(outcome.duration - outcome.speech - outcome.sound, outcome) if heard else None,
        "no_speech_prob": one.no_speech_prob,
        "language": language,
        "language_probability": probability,
        "languages": [{"language": code, "probability": value} for code, value in one.languages],
        "listened": [_look_row(look, recording.start) for look in one.looks],
        "asked_language": recording.language,
        "initial_prompt": recording.initial_prompt,
        "metadata": recording.metadata,
    }


def _look_row(look: Look, origin: int) -> dict[str, Any]:
    language, probability = look.languages[0]
    return {
        "start": (origin + look.span.start) / SAMPLE_RATE,
        "end": (origin + look.span.end) / SAMPLE_RATE,
        "speech_s": look.speech / SAMPLE_RATE,
        "no_speech_prob": look.no_speech_prob,
        "language": language,
        "language_probability": probability,
    }


def _survey(row: dict[str, Any]) -> Survey:
    recording = Recording(
        row["recording_id"],
        row["uri"],
        row["size_bytes"],
        row["version"],
        row["asked_language"],
        row["initial_prompt"],
        row["metadata"],
        inside=row["inside"],
        start=_samples(row["start_s"]),
        end=None if row["end_s"] is None else _samples(row["end_s"]),
    )
    media = Media(
        row["container"],
        row["codec"],
        row["sample_rate"],
        row["channels"],
        stated_s=row["start_s"] + row["duration_s"],
        selection=row["selection"] or "mix",
    )
    failure = (
        Failure(row["error_stage"], row["error_kind"], row["error_message"], row["retryable"])
        if row["error_kind"] is not None
        else None
    )
    looks = tuple(_look(recording, index, look) for index, look in enumerate(row["listened"]))
    outcome = Outcome(
        recording,
        passages=len(looks),
        duration=_samples(row["looked_s"]),
        speech=_samples((row["speech_share"] or 0.0) * row["looked_s"]),
        speechless=(Span(0, 0),) * (row["looks"] - len(looks)),  # where they lay is not kept
        media=media,
        failure=failure,
        sound=_samples((row["sound_share"] or 0.0) * row["looked_s"]),
    )
    languages = tuple((one["language"], one["probability"]) for one in row["languages"])
    return Survey(outcome, looks, row["no_speech_prob"], languages, row["reason"])


def _look(recording: Recording, index: int, row: dict[str, Any]) -> Look:
    span = Span(_samples(row["start"]) - recording.start, _samples(row["end"]) - recording.start)
    languages = ((row["language"], row["language_probability"]),)
    return Look(recording.id, index, span, _samples(row["speech_s"]), row["no_speech_prob"], languages)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)
