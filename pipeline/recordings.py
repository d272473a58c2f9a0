"""Many recordings, as columns: a job of ten million must fit a driver, and as objects each takes five times as much.

Duty: a sequence of Recordings that makes each when it is asked for, and the index that finds one by its id. Knows
nothing of where recordings come from, nor of what is done with them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import hops
from pipeline.spool import Spooled
from pipeline.types import Recording

_CHUNK = 8192  # recordings that are objects at a time
_COLUMNS = hops.RECORDING_HOP.names

Places = NDArray[np.int64]


class Recordings(Sequence[Recording]):
    """An immutable sequence of recordings: some or all of those in a spool, in any order.

    What is chosen from a long one costs eight bytes a recording; the rest lies in the spool, once.
    """

    def __init__(self, spooled: Spooled, places: Places | None = None, language: str | None = None) -> None:
        """Take those at `places` of the spool (all: None); `language` is forced on those that say none."""
        self._spooled, self._places, self._language = spooled, places, language

    @classmethod
    def of(cls, recordings: Iterable[Recording]) -> Recordings:
        """Take recordings from an iterator, which may be long; those that are columns already stay what they are."""
        return recordings if isinstance(recordings, Recordings) else cls.of_tables(_tables(iter(recordings)))

    @classmethod
    def of_tables(cls, tables: Iterable[pa.Table]) -> Recordings:
        """Take recordings as tables of `hops.RECORDING_HOP`."""
        return cls(Spooled.of(hops.RECORDING_HOP, tables))

    def tables(self, columns: Sequence[str] = _COLUMNS) -> Iterator[pa.Table]:
        """Yield these columns of all, some thousand recordings at a time."""
        for table in self._chosen(columns):
            yield _forced(table, self._language) if self._language and "language" in columns else table

    def table(self, columns: Sequence[str] = _COLUMNS) -> pa.Table:
        """Return these columns of all as one table: for blocks, not for lists of millions."""
        none = hops.RECORDING_HOP.empty_table().select(list(columns))
        return pa.concat_tables([none, *self.tables(columns)]).combine_chunks()

    def unique(self) -> Recordings:
        """Return the first of each id, in order."""
        hashes = self.hashes()
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]]) + 1
        if not len(again):
            return self
        kept, last, met = np.ones(len(self), np.bool_), None, set[str]()
        before, after = (self.take(order[places]).ids() for places in (again - 1, again))
        for place, one, other in zip(order[again].tolist(), before, after, strict=True):
            if hashes[place] != last:
                last, met = hashes[place], {one}
            kept[place] = other not in met  # two ids may have one hash
            met.add(other)
        return self.where(kept)

    def where(self, chosen: NDArray[np.bool_]) -> Recordings:
        """Return those for which `chosen` is true."""
        return self if chosen.all() else self.take(np.flatnonzero(chosen))

    def take(self, places: Places) -> Recordings:
        """Return those at `places`, in that order."""
        chosen = places if self._places is None else self._places[places]
        return Recordings(self._spooled, chosen, self._language)

    def shuffled(self) -> Recordings:
        """Return the same in any order."""
        return self.take(np.random.default_rng().permutation(len(self)))

    def among(self, ids: Collection[str]) -> NDArray[np.bool_]:
        """Say of each whether its id is one of a few."""
        return np.fromiter(map(ids.__contains__, self.ids()), np.bool_, len(self))

    def in_language(self, language: str | None) -> Recordings:
        """Return the same, with `language` forced on those that say none."""
        return Recordings(self._spooled, self._places, self._language or language)

    def languages(self) -> set[str]:
        """Return the languages that are forced."""
        found = (pc.unique(table["language"]).drop_null().to_pylist() for table in self.tables(["language"]))
        return {language for some in found for language in some}

    def sizes(self) -> NDArray[np.int64]:
        """Return the sizes in bytes, -1 where a store does not say."""
        found = [pc.fill_null(table["size"], -1).to_numpy() for table in self.tables(["size"])]
        return np.concatenate([np.empty(0, np.int64), *found])

    def ids(self) -> Iterator[str]:
        """Yield the ids."""
        for table in self.tables(["id"]):
            yield from table["id"].to_pylist()

    def id_at(self, place: int) -> str:
        """Return the id at a place, and make nothing else."""
        id_: str = self._spooled.value(place if self._places is None else int(self._places[place]), "id")
        return id_

    def hashes(self) -> NDArray[np.int64]:
        """Return Python's hash of each id: another in each process, one for equal ids."""
        return np.fromiter(map(hash, self.ids()), np.int64, len(self))

    def _chosen(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        if self._places is None:
            yield from self._spooled.tables(columns)
        else:
            for at in range(0, len(self), _CHUNK):
                yield self._spooled.take(self._places[at : at + _CHUNK], columns)

    def __len__(self) -> int:
        return len(self._spooled if self._places is None else self._places)

    def __iter__(self) -> Iterator[Recording]:
        for table in self.tables():
            yield from hops.read_recordings(table)

    @overload
    def __getitem__(self, index: int) -> Recording: ...
    @overload
    def __getitem__(self, index: slice) -> Recordings: ...
    def __getitem__(self, index: int | slice) -> Recording | Recordings:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        at = range(len(self))[index]  # negative ones, and IndexError
        return next(iter(self.take(np.array([at]))))

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
    """Finds the places of ids among many recordings: 16 bytes a recording."""

    def __init__(self, recordings: Recordings) -> None:
        """`recordings` are each there once."""
        self._recordings = recordings
        hashes = recordings.hashes()
        self._places = np.argsort(hashes)
        self._hashes = hashes[self._places]

    def get(self, id_: str) -> int | None:
        """Return the place of an id, None where it is not among them."""
        key = np.int64(hash(id_))
        at = int(np.searchsorted(self._hashes, key))
        while at < len(self._hashes) and self._hashes[at] == key:
            place = int(self._places[at])
            if self._recordings.id_at(place) == id_:  # two ids may have one hash
                return place
            at += 1
        return None

    def find(self, ids: Sequence[str]) -> Places:
        """Return the place of each id, -1 where it is not among them: for many, a few times as fast as one by one."""
        keys = np.fromiter(map(hash, ids), np.int64, len(ids))
        at = np.searchsorted(self._hashes, keys)
        at[at == len(self._hashes)] = 0
        found = np.full(len(ids), -1)
        met = np.flatnonzero(self._hashes[at] == keys) if len(self._hashes) else np.empty(0, np.int64)
        places = self._places[at[met]]
        for one, place, id_ in zip(met.tolist(), places.tolist(), self._recordings.take(places).ids(), strict=True):
            found[one] = place if id_ == ids[one] else (-1 if (other := self.get(ids[one])) is None else other)
        return found


def _tables(recordings: Iterator[Recording]) -> Iterator[pa.Table]:
    while chunk := list(islice(recordings, _CHUNK)):
        yield hops.recordings_table(chunk)


def _forced(table: pa.Table, language: str) -> pa.Table:
    at = table.schema.get_field_index("language")
    return table.set_column(at, table.schema.field(at), pc.fill_null(table["language"], language))
