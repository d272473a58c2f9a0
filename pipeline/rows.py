"""Finished recordings -> rows of the written tables, and back as far as a next job needs it: the only conversion.

The tables have seconds, of the file that a recording lies in. What goes from stage to stage is in `hops.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from pipeline.hops import plain
from pipeline.types import SAMPLE_RATE, Failure, Finished, Omission, Recording, Segment, Span, Word
from pipeline.uris import split_piece
from schemas.recordings import RECORDINGS
from schemas.segments import SEGMENTS
from schemas.speakers import SPEAKERS
from schemas.words import WORDS

TOP = 3  # languages of a recording that its row tells


def failure_columns(failure: Failure | None) -> dict[str, Any]:
    """Return the columns of `schemas.column.FAILURE`."""
    return {
        "error_stage": failure and failure.stage,
        "error_kind": failure and failure.kind,
        "error_message": failure and failure.message,
        "retryable": failure and failure.retryable,
    }


def recording_rows(finished: Iterable[Finished], *, part: str, model: str, config_hash: str, run_id: str) -> pa.Table:
    """Finished recordings -> rows of `schemas.recordings.RECORDINGS`."""
    rows = []
    for item in finished:
        outcome = item.outcome
        recording, media, failure = outcome.recording, outcome.media, outcome.failure
        rows.append(
            {
                "recording_id": recording.id,
                "uri": recording.uri,
                "inside": recording.inside or None,
                "version": recording.version,
                "part": part,
                "size_bytes": recording.size,
                "status": outcome.status,
                **failure_columns(failure),
                "container": media.container,
                "codec": media.codec,
                "sample_rate": media.sample_rate,
                "channels": media.channels,
                "selection": media.selection if outcome.duration else None,
                "start_s": recording.start / SAMPLE_RATE,
                "end_s": None if recording.end is None else recording.end / SAMPLE_RATE,
                "duration_s": outcome.duration / SAMPLE_RATE,
                "speech_s": outcome.speech / SAMPLE_RATE,
                "speechless": [_times(span, recording) for span in outcome.speechless],
                "snr_db": outcome.snr_db,
                "language": item.language,
                "language_probability": item.language_probability,
                "languages": [plain(guess) for guess in item.languages[:TOP]],
                "omissions": [_stretch(omission) for omission in item.omissions],
                "omitted_s": sum(omission.speech for omission in item.omissions) / SAMPLE_RATE,
                "segments": len(item.segments),
                "flagged_segments": sum(bool(segment.flags) for _, segment in item.segments),
                "model": model,
                "config_hash": config_hash,
                "run_id": run_id,
                "metadata": recording.metadata,
            }
        )
    return pa.Table.from_pylist(rows, schema=RECORDINGS)


def recording_of(row: Mapping[str, Any]) -> Recording:
    """Row of `schemas.recordings.RECORDINGS` -> the recording, as far as it can be opened without secrets."""
    size, start, end = row["size_bytes"], row["start_s"], row["end_s"]
    return Recording(
        row["recording_id"],
        row["uri"],
        None if size is None else int(size),
        row["version"],
        address=split_piece(row["uri"])[0] if row["inside"] else "",
        inside=row["inside"] or "",
        start=round(start * SAMPLE_RATE),
        end=None if end is None else round(end * SAMPLE_RATE),
    )


def segment_rows(finished: Iterable[Finished]) -> pa.Table:
    """Finished recordings -> rows of `schemas.segments.SEGMENTS`; what is not computed yet is null."""
    rows = []
    for item in finished:
        for index, (passage, segment) in enumerate(item.segments):
            row = plain(segment)
            row["attempts"] = [plain(attempt) for attempt in segment.attempts]
            row["languages"] = [plain(guess) for guess in segment.languages]
            del row["words"]
            row |= {"recording_id": item.outcome.recording.id, "index": index, "passage": passage}
            rows.append(row | _times(segment, item.outcome.recording))
    return pa.Table.from_pylist(rows, schema=SEGMENTS)


def word_rows(finished: Iterable[Finished]) -> pa.Table:
    """Finished recordings -> rows of `schemas.words.WORDS`."""
    rows = [
        {
            "recording_id": item.outcome.recording.id,
            "segment": index,
            "index": position,
            **_times(word, item.outcome.recording),
            "word": word.text,
            "probability": word.probability,
            "speaker": word.speaker,
        }
        for item in finished
        for index, (_, segment) in enumerate(item.segments)
        for position, word in enumerate(segment.words)
    ]
    return pa.Table.from_pylist(rows, schema=WORDS)


def speaker_rows(finished: Iterable[Finished]) -> pa.Table:
    """Finished recordings -> rows of `schemas.speakers.SPEAKERS`."""
    rows = [
        {
            "recording_id": item.outcome.recording.id,
            "speaker": speaker.label,
            "speech_s": sum(map(len, speaker.spans)) / SAMPLE_RATE,
            "turns": [_times(span, item.outcome.recording) for span in speaker.spans],
            "vector": speaker.vector,
        }
        for item in finished
        for speaker in item.speakers
    ]
    return pa.Table.from_pylist(rows, schema=SPEAKERS)


def _times(item: Span | Segment | Word, recording: Recording) -> dict[str, float]:
    """Return start and end in seconds of the file, which are those of the recording where it is no stretch."""
    return {
        "start": (recording.start + item.start) / SAMPLE_RATE,
        "end": (recording.start + item.end) / SAMPLE_RATE,
    }


def _stretch(omission: Omission) -> dict[str, Any]:
    seconds = {name: getattr(omission, name) / SAMPLE_RATE for name in ("start", "end", "speech")}
    return {"start": seconds["start"], "end": seconds["end"], "speech_s": seconds["speech"], "reason": omission.reason}
