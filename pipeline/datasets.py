"""Parquet files with audio in them: bytes in a column `audio`, as Hugging Face's datasets have it.

Duty: find the rows without reading their audio, and give the bytes of one. Row groups are read one at a time, and a
process keeps the last one: rows of one group come one after the other. Knows no recordings and no manifests.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from pipeline import storage
from pipeline.errors import OpenError

_ROWS = 4096  # at a time, of the columns that are not audio
_reading = threading.Lock()
_held: dict[tuple[str, str, int, str], Any] = {}  # one row group of audio


@dataclass(frozen=True, slots=True)
class Row:
    """A row with audio."""

    number: int  # in the file, from 0
    path: str | None  # what the dataset calls it, where no other row is called so
    column: str  # leads to the bytes, as `value` takes it
    others: dict[str, Any]  # the other columns


def column_of(schema: Any) -> str | None:
    """Return what leads to the bytes of audio in a file of this Arrow schema: "audio", "audio.bytes", or None."""
    import pyarrow as pa

    if "audio" not in schema.names:
        return None
    kind = schema.field("audio").type
    if _is_bytes(kind):
        return "audio"
    has = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return "audio.bytes" if has else None


def rows(file: Any, column: str) -> Iterator[Row]:
    """Yield the rows of an open Parquet file; their audio is not read."""
    named = column == "audio.bytes" and file.schema_arrow.field("audio").type.get_field_index("path") >= 0
    paths = Counter[int]()
    if named:
        for batch in file.iter_batches(_ROWS, columns=["audio.path"]):
            paths.update(hash(path) for path in _paths(batch))
    others = [field.name for field in file.schema_arrow if not _has_bytes(field.type)]
    number = 0
    for batch in file.iter_batches(_ROWS, columns=[*others, *(["audio.path"] if named else [])]):
        names = _paths(batch) if named else [None] * len(batch)
        plain = batch.select(others).to_pylist() if others else [{}] * len(batch)
        for name, row in zip(names, plain, strict=True):
            yield Row(number, name if name and paths[hash(name)] == 1 else None, column, row)
            number += 1


def value(uri: str, version: str, number: int, column: str) -> bytes:
    """Return the bytes in a row. Raises OpenError where there are none."""
    with _reading:  # one group in memory, however many threads read
        group, place = _place(uri, version, number)
        found = _group(uri, version, group, column)[place].as_py()
    if not found:
        raise OpenError("no_bytes", "the row has no bytes of audio, at most the name of a file")
    return bytes(found)


@lru_cache(maxsize=16)
def _starts(uri: str, version: str) -> tuple[int, ...]:
    """Return the first row of each row group, and how many rows there are."""
    with _opened(uri, version) as file:
        counts = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return tuple(starts)


def _place(uri: str, version: str, number: int) -> tuple[int, int]:
    """Return the row group of a row, and its place in it."""
    starts = _starts(uri, version)
    if number >= starts[-1]:
        raise OpenError("changed", "the file has fewer rows than when it was listed", retryable=True)
    group = max(index for index, start in enumerate(starts) if start <= number)
    return group, number - starts[group]


def _group(uri: str, version: str, group: int, column: str) -> Any:
    """Return the audio of a row group: the one that is held, else it is let go before another is read."""
    import pyarrow.compute as pc

    key = (uri, version, group, column)
    if key not in _held:
        _held.clear()
        with _opened(uri, version) as file:
            found = file.read_row_group(group, columns=[column])["audio"]
        _held[key] = pc.struct_field(found, "bytes") if column == "audio.bytes" else found
    return _held[key]


@contextmanager
def _opened(uri: str, version: str) -> Iterator[Any]:
    """Open a Parquet file of a store. Raises OpenError for what is none."""
    with storage.open_audio(uri, version) as stream, parquet(stream) as file:
        yield file


@contextmanager
def parquet(stream: BinaryIO) -> Iterator[Any]:
    """Read an open file as Parquet. Raises OpenError for what is none, or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        yield pq.ParquetFile(stream)
    except (pa.ArrowException, OSError) as error:
        raise OpenError("damaged", f"it is no Parquet file, or a damaged one: {error}") from error


def _paths(batch: Any) -> list[Any]:
    import pyarrow.compute as pc

    return list(pc.struct_field(batch["audio"], "path").to_pylist())


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if _is_bytes(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(_has_bytes(kind.field(index).type) for index in range(kind.num_fields))
