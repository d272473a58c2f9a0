"""Many recordings, as columns: a job of ten million must fit a driver, and as objects each takes five times as much.

Duty: a sequence of Recordings that makes each when it is asked for, and the index that finds one by its id. Knows
nothing of where recordings come from, nor of what is done with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import hops
from pipeline.types import Recording

_CHUNK = 8192  # recordings that are objects at a time


class Recordings(Sequence[Recording]):
    """An immutable sequence of recordings in an Arrow table of `hops.RECORDING_HOP`: about 150 bytes and a URI each."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @classmethod
    def of(cls, recordings: Iterable[Recording]) -> Recordings:
        """Take recordings from an iterator, which may be long; those that are columns already stay what they are."""
        if isinstance(recordings, Recordings):
            return recordings
        iterator, parts = iter(recordings), [cls(hops.recordings_table([]))]
        while chunk := list(islice(iterator, _CHUNK)):
            parts.append(cls(hops.recordings_table(chunk)))
        return cls.joined(parts)

    @classmethod
    def joined(cls, parts: list[Recordings]) -> Recordings:
        """Put several together, in order. `parts` is emptied: column after column moves, and is never there twice."""
        chunked = pa.concat_tables([part.table for part in parts])
        schema, columns = chunked.schema, []
        parts.clear()
        for name in schema.names:
            columns.append(chunked[name].combine_chunks())
            chunked = chunked.drop_columns(name)
        return cls(pa.Table.from_arrays(columns, schema=schema))

    def unique(self) -> Recordings:
        """Return the first of each id, in order."""
        ids = self.table["id"]
        if len(np.unique(_hashes(ids))) == len(self):  # takes a quarter of the memory of what follows
            return self
        numbers = pc.dictionary_encode(ids.combine_chunks()).indices.to_numpy()  # by first appearance
        highest = np.maximum.accumulate(numbers)
        return self.where(np.append(True, highest[1:] > highest[:-1]))

    def where(self, chosen: NDArray[np.bool_]) -> Recordings:
        """Return those for which `chosen` is true."""
        return self if chosen.all() else Recordings(self.table.filter(pa.array(chosen)))

    def take(self, places: NDArray[np.int64]) -> Recordings:
        """Return those at `places`, in that order."""
        return Recordings(self.table.take(pa.array(places)))

    def shuffled(self) -> Recordings:
        """Return the same in any order."""
        return self.take(np.random.default_rng().permutation(len(self)))

    def in_language(self, language: str | None) -> Recordings:
        """Return the same, with `language` forced on those that say none."""
        if language is None:
            return self
        at = self.table.schema.get_field_index("language")
        column = pc.fill_null(self.table["language"], language)
        return Recordings(self.table.set_column(at, self.table.schema.field(at), column))

    def languages(self) -> set[str]:
        """Return the languages that are forced."""
        return set(pc.unique(self.table["language"]).drop_null().to_pylist())

    def sizes(self) -> NDArray[np.int64]:
        """Return the sizes in bytes, -1 where a store does not say."""
        sizes: NDArray[np.int64] = pc.fill_null(self.table["size"], -1).to_numpy()
        return sizes

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Recording]:
        for at in range(0, len(self), _CHUNK):
            yield from hops.read_recordings(self.table.slice(at, _CHUNK))

    @overload
    def __getitem__(self, index: int) -> Recording: ...
    @overload
    def __getitem__(self, index: slice) -> Recordings: ...
    def __getitem__(self, index: int | slice) -> Recording | Recordings:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        at = range(len(self))[index]  # negative ones, and IndexError
        return next(hops.read_recordings(self.table.slice(at, 1)))

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of equal recordings."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


def pack(recordings: Recordings, limit: int, bytes_limit: int = 64 << 20) -> Iterator[Recordings]:
    """Yield blocks of recordings, the largest first: at most `limit` recordings or about `bytes_limit` bytes each.

    Long ones start first so that none of them is still alone at work when all others are done; short ones travel
    together because a block costs some 20 ms a stage, whatever is in it.
    """
    sizes = np.maximum(recordings.sizes(), 0)
    order = np.argsort(-sizes, kind="stable")
    ends = np.cumsum(sizes[order])  # bytes up to and with each
    start = 0
    while start < len(order):
        before = ends[start] - sizes[order[start]]
        end = max(start + 1, int(np.searchsorted(ends, before + bytes_limit, side="right")))
        end = min(end, start + limit)
        yield recordings.take(order[start:end])
        start = end


class Index:
    """Finds the place of an id among many: 16 bytes an id, beside the ids themselves."""

    def __init__(self, ids: pa.ChunkedArray) -> None:
        """`ids` are strings, each once."""
        self._ids = ids.combine_chunks()
        hashes = _hashes(ids)
        self._places = np.argsort(hashes)
        self._hashes = hashes[self._places]

    def get(self, id_: str) -> int | None:
        """Return the place of an id, None where it is not among them."""
        key = np.int64(hash(id_))
        at = int(np.searchsorted(self._hashes, key))
        while at < len(self._hashes) and self._hashes[at] == key:
            place = int(self._places[at])
            if self._ids[place].as_py() == id_:  # two ids may have one hash
                return place
            at += 1
        return None


def _hashes(ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return Python's hash of each: another in each process, one for equal ids."""
    texts = (id_ for at in range(0, len(ids), _CHUNK) for id_ in ids.slice(at, _CHUNK).to_pylist())
    return np.fromiter(map(hash, texts), np.int64, len(ids))
