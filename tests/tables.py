"""What a finished output must be: whole in itself, and equal to another's."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage

KEYS = {
    "recordings": ("recording_id",),
    "segments": ("recording_id", "index"),
    "words": ("recording_id", "segment", "index"),
    "speakers": ("recording_id", "speaker"),
}
OF_THE_RUN = {"part", "run_id"}  # differ between equal outputs
TIMES = {"start", "end", "duration_s", "speech_s"}  # exact; other numbers with a point are scores
TOLERANCE = 1e-4


def read_table(out: str, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table, read part by part: `file` is the part that a row came from."""
    folder = storage.join(out, table)
    found = []
    for name in storage.names(folder):
        rows = pq.read_table(io.BytesIO(storage.read_bytes(storage.join(folder, name)))).to_pylist()
        found += [row | {"file": name} for row in rows]
    return found


def assert_whole(out: str) -> None:
    """Fail unless each recording has one row, and its segments and words, complete, in the part that it names."""
    recordings = read_table(out, "recordings")
    assert _doubled(row["recording_id"] for row in recordings) == []
    assert [row["uri"] for row in recordings if row["part"] != row["file"]] == []
    part_of = {row["recording_id"]: row["part"] for row in recordings}
    segments, words, speakers = (read_table(out, table) for table in ("segments", "words", "speakers"))
    assert [row for row in segments + words + speakers if part_of.get(row["recording_id"]) != row["file"]] == []
    indices: dict[str, list[int]] = {id_: [] for id_ in part_of}
    for row in segments:
        indices[row["recording_id"]].append(row["index"])
    assert {id_: sorted(found) for id_, found in indices.items()} == {
        row["recording_id"]: list(range(row["segments"])) for row in recordings
    }
    places = {(row["recording_id"], row["index"]) for row in segments}
    assert [row for row in words if (row["recording_id"], row["segment"]) not in places] == []
    assert _doubled((row["recording_id"], row["segment"], row["index"]) for row in words) == []
    assert _doubled((row["recording_id"], row["speaker"]) for row in speakers) == []
    left = set(storage.names(storage.join(out, "_staging")))
    assert left - {"lease.json"} == set()  # a dead driver leaves its lease


def assert_same_tables(out_a: str, out_b: str) -> None:
    """Fail unless both outputs hold the same: ids, times, texts and flags equal, scores within 1e-4, in any order."""
    for table, key in KEYS.items():
        tables = []
        for out in (out_a, out_b):
            rows = read_table(out, table)
            tables.append({tuple(row.pop(name) for name in key): row for row in rows})
            assert len(tables[-1]) == len(rows), f"{out}: {table} has a key twice"
        a, b = tables
        assert sorted(a) == sorted(b), f"{table}: the keys differ"
        for at in a:
            for name in (a[at].keys() | b[at].keys()) - OF_THE_RUN - {"file"}:
                difference = _difference(name, a[at].get(name), b[at].get(name))
                assert not difference, f"{table} {at}: {difference}"


def _difference(name: str, a: Any, b: Any) -> str:
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return next(filter(None, (_difference(name, *pair) for pair in zip(a, b, strict=True))), "")
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return next(filter(None, (_difference(key, a[key], b[key]) for key in a)), "")
    close = isinstance(a, float) and isinstance(b, float) and name not in TIMES
    same = math.isclose(a, b, rel_tol=0, abs_tol=TOLERANCE) if close else a == b
    return "" if same else f"{name} is {a!r} and {b!r}"


def _doubled(keys: Any) -> list[Any]:
    return [key for key, count in Counter(keys).items() if count > 1]


def read_runs(out: str) -> list[dict[str, Any]]:
    """Return the files of the runs, by time."""
    folder = storage.join(out, "runs")
    return [json.loads(storage.read_bytes(storage.join(folder, name))) for name in storage.names(folder)]


def write_part(out: str, table: str, part: str, content: pa.Table) -> None:
    """Write a part file as some other program might."""
    buffer = io.BytesIO()
    pq.write_table(content, buffer)
    storage.write_bytes(storage.join(out, table, part), buffer.getvalue())
