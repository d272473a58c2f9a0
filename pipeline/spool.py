"""A table too long for memory: written to a file without a name, of which any rows can be had.

A few rows stay in memory; many lie in TMPDIR, mapped: what is not looked at costs no memory, and the file goes with the
process, however that ends. Knows Arrow and files; nothing of what the rows are.
"""

from __future__ import annotations

import contextlib
import mmap
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import UserError

_IN_MEMORY = 64 << 20  # bytes, up to which no file is written
_TOGETHER = 32_768  # rows of a batch: to find rows costs some microseconds for each batch that holds one of them
_SLICE = 8192  # rows that are read in turn


class Spooled:
    """The rows of a spool, in the order in which they were added."""

    def __init__(self, schema: pa.Schema, batches: Sequence[pa.RecordBatch]) -> None:
        """`batches` may lie in memory or in a mapped file."""
        self._schema, self._batches = schema, batches
        self._starts: list[int] = list(accumulate((batch.num_rows for batch in batches), initial=0))

    @classmethod
    def of(cls, schema: pa.Schema, tables: Iterable[pa.Table]) -> Spooled:
        """Take all of the tables."""
        spool = Spool(schema)
        for table in tables:
            spool.add(table)
        return spool.rows()

    def __len__(self) -> int:
        return self._starts[-1]

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield all rows, some thousands at a time."""
        for batch in self._batches:
            chosen = batch.select(list(columns))
            for at in range(0, batch.num_rows, _SLICE):
                yield pa.Table.from_batches([chosen.slice(at, _SLICE)])

    def value(self, place: int, column: str) -> Any:
        """Return what stands in one place."""
        which = bisect_right(self._starts, place) - 1
        return self._batches[which].column(column)[place - self._starts[which]].as_py()

    def take(self, places: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Return the rows at `places`, in that order: copies, so not too many at a time."""
        which = np.searchsorted(self._starts, places, side="right") - 1
        order = np.argsort(which, kind="stable")
        cuts = np.flatnonzero(np.diff(which[order])) + 1
        parts = [pa.schema([self._schema.field(name) for name in columns]).empty_table()]
        for some in np.split(order, cuts) if len(order) else ():
            at = which[some[0]]
            inside = pa.array(places[some] - self._starts[at])
            parts.append(pa.Table.from_batches([self._batches[at].select(list(columns)).take(inside)]))
        return pa.concat_tables(parts).combine_chunks().take(pa.array(np.argsort(order)))


class Spool:
    """Takes tables of one schema, one after the other."""

    def __init__(self, schema: pa.Schema) -> None:
        """Write nothing yet."""
        self._schema = schema
        self._waiting: list[pa.Table] = []  # for enough to make a batch
        self._batches: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0  # of these
        self._file: _File | None = None

    def add(self, table: pa.Table) -> None:
        """Take the rows of a table. Raises UserError where TMPDIR has no room for them."""
        self._waiting.append(table)
        self._rows += table.num_rows
        if self._rows >= _TOGETHER:
            self._join()

    def rows(self) -> Spooled:
        """Return all that was added; add nothing more."""
        self._join()
        return Spooled(self._schema, self._file.batches() if self._file else self._batches)

    def _join(self) -> None:
        table = pa.concat_tables([self._schema.empty_table(), *self._waiting]).combine_chunks()
        self._waiting, self._rows = [], 0
        self._batches += table.to_batches()
        self._bytes += table.nbytes
        if self._file is None and self._bytes > _IN_MEMORY:
            self._file = _File(self._schema)
        if self._file is not None:
            self._file.write(self._batches)
            self._batches = []


class _File:
    """Batches on disk."""

    def __init__(self, schema: pa.Schema) -> None:
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed when it is mapped)
        except OSError as error:
            raise _no_room(error) from error
        self._writer = pa.ipc.new_file(self._file, schema)

    def write(self, batches: Iterable[pa.RecordBatch]) -> None:
        with self._room():
            for batch in batches:
                self._writer.write(batch)

    def batches(self) -> list[pa.RecordBatch]:
        """Map them; nothing can be written after that."""
        with self._room():
            self._writer.close()
            self._file.flush()
        with self._file:
            mapped = pa.py_buffer(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
        reader = pa.ipc.open_file(pa.BufferReader(mapped))
        return [reader.get_batch(at) for at in range(reader.num_record_batches)]

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError):  # which has the same to say of what is left to write
                self._file.close()
            raise _no_room(error) from error


def _no_room(error: OSError) -> UserError:
    message = f"cannot write a temporary file in {tempfile.gettempdir()}: {error.strerror}"
    return UserError(message, "set TMPDIR to a folder with more space")
