"""A finished output -> what a second opinion is asked about: each recording with its question.

Duty: read the tables for doubtful segments, and tell which of the answers that are there already are outdated. Memory:
a part of the tables, and the texts of doubtful segments and of their neighbours. Knows no audio and no models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import doubts, transcripts
from pipeline.doubts import DoubtOptions, Question
from pipeline.recordings import Index, Recordings
from pipeline.types import SAMPLE_RATE

_RECORDING = ["recording_id", "part", "segments", "run_id", "selection", "start_s", "duration_s"]
_SEGMENT = ["recording_id", *doubts.TOLD]


@dataclass(frozen=True)
class Asked:
    """What is asked about an output."""

    recordings: Recordings  # with a question each, if one without stretches
    outdated: frozenset[str]  # ids of those whose answers are to another transcript


def questions(out: str, recordings: Recordings, options: DoubtOptions, known: Collection[str] | None) -> Asked:
    """Return the `recordings` that the output has, with what is doubtful in their segments. See `doubts.stretches`."""
    asked: dict[str, str] = {}
    runs: dict[str, str] = {}
    wanted = Index(recordings)
    for table, segments in transcripts.parts(out, _RECORDING, _SEGMENT):
        rows = table.filter(pa.array(wanted.find(table["recording_id"].to_pylist()) >= 0))
        for id_, question in of_tables(rows, segments, options, known):
            asked[id_], runs[id_] = question.json(), question.transcript
    return Asked(_with(recordings, asked), frozenset(_outdated(out, runs)))


def of_tables(
    recordings: pa.Table, segments: pa.Table, options: DoubtOptions, known: Collection[str] | None
) -> Iterator[tuple[str, Question]]:
    """Yield each of the recordings with what is asked about it, by the rows of their segments, which are in order."""
    found = _doubtful(segments.select(_SEGMENT), options)
    for row in recordings.select(_RECORDING).to_pylist():
        near = found.get(row["recording_id"], [])
        begin, duration = (round((row[name] or 0.0) * SAMPLE_RATE) for name in ("start_s", "duration_s"))
        stretches = doubts.stretches(near, options, begin=begin, duration=duration, known=known)
        doubtful = sum(segment["doubtful"] for segment in near)
        yield row["recording_id"], Question(row["run_id"], row["selection"], duration, doubtful, stretches)


def _doubtful(segments: pa.Table, options: DoubtOptions) -> dict[str, list[dict[str, Any]]]:
    """Return of each recording its doubtful segments, marked as such, with their neighbours, in order."""
    rules = segments.select(list(doubts.RULE)).to_pylist()
    marked = np.fromiter((bool(doubts.reasons(row, options)) for row in rules), np.bool_, len(rules))
    near = marked.copy()
    near[1:] |= marked[:-1]
    near[:-1] |= marked[1:]
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in segments.append_column("doubtful", pa.array(marked)).filter(pa.array(near)).to_pylist():
        found[row["recording_id"]].append(row)
    return found


def _with(recordings: Recordings, asked: dict[str, str]) -> Recordings:
    """Return those of the recordings that have a question, with it."""

    def tables() -> Iterator[pa.Table]:
        for table in recordings.tables():
            texts = pa.array([asked.get(id_) for id_ in table["id"].to_pylist()], pa.string())
            at = table.schema.get_field_index("asked")
            yield table.set_column(at, table.schema.field(at), texts).filter(pc.is_valid(texts))

    return Recordings.of_tables(tables())


def _outdated(out: str, runs: dict[str, str]) -> Iterator[str]:
    for table in transcripts.reviews(out, ["recording_id", "transcript"]):
        for row in table.to_pylist():
            if runs.get(row["recording_id"], row["transcript"]) != row["transcript"]:
                yield row["recording_id"]
