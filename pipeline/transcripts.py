"""A finished output, recording by recording: each row of the ledger with its segments and words.

Duty: read the tables that a job has left, one part in memory at a time. Changes nothing, and knows no runs.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import UserError
from schemas.segments import SEGMENTS

Row = dict[str, Any]  # of schemas.recordings, schemas.segments, schemas.words


_UNJUDGED: Row = {"second_wer": None, "second_edge_cer": None}


def corpus_speaker(recording_id: str, speaker: str | None) -> str | None:
    """Return a speaker's label among those of all recordings: "Speaker 1" is somebody else in each."""
    return None if speaker is None else f"{recording_id}/{speaker}"


@dataclass(frozen=True, slots=True)
class Transcribed:
    """A recording's row, and the rows of its segments, words and speakers, in order."""

    recording: Row
    segments: tuple[Row, ...]
    words: tuple[Row, ...] = ()
    speakers: tuple[Row, ...] = ()


def transcripts_of(out: str, wanted: Iterable[tuple[str, str]]) -> Iterator[Transcribed]:
    """Yield single recordings, named by their id and part, where they are there."""
    for recording_id, part in wanted:
        row = _of(out, "recordings", part, recording_id)
        if row:
            segments = sorted(_of(out, "segments", part, recording_id), key=lambda item: item["index"])
            yield Transcribed(row[0], tuple(segments))


def recordings(out: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the recordings table part by part. Raises UserError where there is none."""
    folder = storage.join(out, "recordings")
    parts = [name for name in storage.names(folder) if name.startswith("part-") and name.endswith(".parquet")]
    if not parts:
        raise UserError(f"there are no transcripts in {out}", f"bulkscribe transcribe SOURCE --out {out} makes some")
    for name in parts:
        yield _read(storage.join(folder, name), columns)


def reviews(out: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the reviews table part by part; nothing where there is none."""
    folder = storage.join(out, "reviews")
    for name in storage.names(folder):
        if name.startswith("part-") and name.endswith(".parquet"):
            yield _read(storage.join(folder, name), columns)


def opinions(out: str, of_reviews: Sequence[str], of_opinions: Sequence[str]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the reviews part by part, with their opinions, with these columns; nothing where nobody was asked."""
    for table in reviews(out, of_reviews):
        names = sorted(set(table["part"].to_pylist()))
        yield table, pa.concat_tables([_read(storage.join(out, "opinions", name), of_opinions) for name in names])


def parts(out: str, of_recordings: Sequence[str], of_segments: Sequence[str]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield these columns of the recordings, part by part, and those of their segments in the order of recordings."""
    for table in recordings(out, of_recordings):
        rows = table.select(["part", "segments"]).to_pylist()
        names = sorted({row["part"] for row in rows if row["segments"]})
        found = [_read(storage.join(out, "segments", name), of_segments) for name in names]
        segments = pa.concat_tables(found) if found else SEGMENTS.empty_table().select(of_segments)
        yield table, segments.sort_by([("recording_id", "ascending"), ("index", "ascending")])


def transcripts(
    out: str, *, words: bool = False, opinions: bool = False, speakers: bool = False
) -> Iterator[Transcribed]:
    """Yield each recording with its segments, in order; with `words` and `speakers`, where they are there, too.

    With `opinions` segments have `second_wer` and `second_edge_cer`, None where no second opinion on them is there. All
    opinions are in memory then.
    """
    judged = _judged(out) if opinions else {}
    for table in recordings(out):
        rows = table.to_pylist()
        parts = sorted({row["part"] for row in rows if row["segments"]})
        segments = _grouped(out, "segments", parts)
        spoken = _grouped(out, "words", parts) if words else {}
        # Who speaks where nothing is understood is a speaker, too.
        voices = _grouped(out, "speakers", sorted({row["part"] for row in rows if row["part"]})) if speakers else {}
        for row in rows:
            mine = sorted(segments.get(row["recording_id"], ()), key=lambda item: item["index"])
            if opinions:
                seconds = judged.get((row["recording_id"], row["run_id"]), {})
                mine = [segment | seconds.get(segment["index"], _UNJUDGED) for segment in mine]
            yield Transcribed(
                row,
                tuple(mine),
                tuple(sorted(spoken.get(row["recording_id"], ()), key=lambda item: (item["segment"], item["index"]))),
                tuple(voices.get(row["recording_id"], ())),
            )


def _judged(out: str) -> dict[tuple[str, str], dict[int, Row]]:
    """Return the second opinions on each recording, as some run has transcribed it, by segment."""
    found: dict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
    columns = ["recording_id", "index", "wer", "edge_cer"]
    for table, said in opinions(out, ["recording_id", "transcript", "part"], columns):
        transcript_of = dict(zip(table["recording_id"].to_pylist(), table["transcript"].to_pylist(), strict=True))
        for row in said.to_pylist():
            key = row["recording_id"], transcript_of[row["recording_id"]]
            found[key][row["index"]] = {"second_wer": row["wer"], "second_edge_cer": row["edge_cer"]}
    return found


def _of(out: str, table: str, part: str, recording_id: str) -> list[Row]:
    uri = storage.join(out, table, part)
    if not storage.exists(uri):
        return []
    found: list[Row] = _read(uri, filters=pc.field("recording_id") == recording_id).to_pylist()
    return found


def segments(out: str, of_recordings: Sequence[str], of_segments: Sequence[str]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the recordings and the segments part by part, with these columns. UserError where there are none."""
    for table in recordings(out, [*of_recordings, "part"]):
        for part in sorted(set(table["part"].to_pylist())):
            yield table, _read(storage.join(out, "segments", part), of_segments)


def _grouped(out: str, table: str, parts: Sequence[str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for part in parts:
        uri = storage.join(out, table, part)
        if table != "segments" and not storage.exists(uri):
            continue
        for row in _read(uri).to_pylist():
            found[row["recording_id"]].append(row)
    return found


def _read(uri: str, columns: Sequence[str] | None = None, filters: pc.Expression | None = None) -> pa.Table:
    content = io.BytesIO(storage.read_bytes(uri))
    return pq.read_table(content, columns=list(columns) if columns else None, filters=filters)
