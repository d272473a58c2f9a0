"""The files that tell what a cleaning has decided: the pairs, the sources, the waterfall, and the manifest of the kept.

    CLEANED/pairs/part-*.parquet   one row a pair      CLEANED/sources.csv     the worst sources first
    CLEANED/waterfall.csv          hours by reason, language and source        CLEANED/kept.jsonl    what is kept

They are made anew as a whole, because one pair more may change what becomes of others. Duty: their content as bytes,
and what an earlier run has left. Knows rows and storage; judges nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import parts, storage
from pipeline.decision_rows import manifest_line
from pipeline.errors import OpenError, UserError
from pipeline.layouts import File
from pipeline.manifests import read_rows
from pipeline.recordings import Recordings
from pipeline.tallies import Row, Tallies
from pipeline.types import SAMPLE_RATE
from schemas.pairs import PAIRS

PAIRS_TABLE = "pairs"
SOURCES, WATERFALL, KEPT = "sources.csv", "waterfall.csv", "kept.jsonl"
_PART_ROWS = 65_536


def pairs(out: str) -> Iterator[pa.Table]:
    """Yield the pairs that a run has left in `out`, part by part."""
    for name in _parts(out):
        yield pq.read_table(io.BytesIO(storage.read_bytes(storage.join(out, PAIRS_TABLE, name))))


def files(chunks: Iterable[list[Row]], recordings: Recordings, found: Tallies) -> Iterator[File]:
    """Yield the files of all rows, which come in the order of the recordings; `found` adds them up on the way."""
    number, waiting, lines = 0, list[Row](), list[str]()
    listed = iter(recordings)
    for rows in chunks:
        found.add(rows)
        for row, recording in zip(rows, listed, strict=False):
            if row["keep"]:
                start, end = recording.start, recording.end
                lines.append(
                    manifest_line(
                        {
                            "uri": recording.uri,
                            "inside": recording.inside,
                            "start_s": start / SAMPLE_RATE,
                            "end_s": None if end is None else end / SAMPLE_RATE,
                            "asked_language": recording.language,
                            "language": None,
                            "language_probability": None,
                            "initial_prompt": recording.initial_prompt,
                            "metadata": row["metadata"],
                        },
                        sure=1.0,
                    )
                )
        waiting += rows
        while len(waiting) >= _PART_ROWS:
            yield _part(number, waiting[:_PART_ROWS])
            number, waiting = number + 1, waiting[_PART_ROWS:]
    if waiting:
        yield _part(number, waiting)
    yield SOURCES, _csv(found.sources())
    yield WATERFALL, _csv(found.waterfall())
    yield KEPT, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")


def changed(out: str, made: Mapping[str, bytes]) -> tuple[list[File], list[str]]:
    """Return those files that are not in `out` as they are, and the parts there that belong to none of them."""
    gone = [f"{PAIRS_TABLE}/{name}" for name in _parts(out) if f"{PAIRS_TABLE}/{name}" not in made]
    return [(path, data) for path, data in made.items() if not _is_there(out, path, data)], gone


def dropped_sources(given: str, known: set[str]) -> frozenset[str]:
    """Return the sources that `--drop-sources` names: with commas, or a file with a line or a row each.

    UserError for one that no pair comes from.
    """
    if given in known:
        return frozenset({given})
    if given.lower().endswith((".csv", ".jsonl", ".parquet")):
        names = {str(row.get("source", "")) for _, row in read_rows(given)}
    elif storage.local_path(given) is not None and storage.exists(given):
        names = {line.strip() for line in storage.read_bytes(given).decode("utf-8-sig").splitlines()}
    else:
        names = {name.strip() for name in given.split(",")}
    names.discard("")
    if strange := sorted(names - known):
        raise UserError(f"no pair comes from {strange[0]!r}", f"CLEANED/{SOURCES} lists the sources")
    return frozenset(names)


def _parts(out: str) -> list[str]:
    return [name for name in storage.names(storage.join(out, PAIRS_TABLE)) if name.endswith(".parquet")]


def _part(number: int, rows: list[Row]) -> File:
    plain = [{name: row[name] for name in PAIRS.names} for row in rows]
    return f"{PAIRS_TABLE}/part-{number:05d}.parquet", parts.encode(pa.Table.from_pylist(plain, PAIRS))


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()


def _is_there(out: str, path: str, data: bytes) -> bool:
    uri = storage.join(out, *path.split("/"))
    try:
        return storage.exists(uri) and storage.read_bytes(uri) == data
    except OpenError:
        return False
