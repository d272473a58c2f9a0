"""A data set on its way: what is done, commits of whole shards, and the index files and the card at the end.

    DATASET/clips/part-*.parquet     one row a candidate clip (`Kind.table`): numbers, reasons, the files that hold it
    DATASET/origins/part-*.parquet   one row a recording: what became of its clips
    DATASET/data, webdataset, ...    shards of clips (layouts.py)      DATASET/README.md   the card
    DATASET/runs, DATASET/_staging   as in an output of transcribe

The law of the ledger: each recording of the transcripts has its row, and each kept clip lies in the data set, exactly
once, whatever dies. A commit is a shard with the rows of all recordings in it; a recording lies in one split, and so in
one commit. Knows Arrow and storage; nothing of ffmpeg, texts and gates.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import commits, parts, run_files, storage
from pipeline.candidates import SPLITS
from pipeline.deaths import Deaths
from pipeline.errors import UserError
from pipeline.layouts import CLIP_COLUMNS, File, Kind, chosen
from pipeline.lease import Lease
from pipeline.readings import Encoded, Reading
from pipeline.rows import failure_columns
from pipeline.run_files import config_hash
from pipeline.thinning import thinned, without
from schemas.clips import CLIPS
from schemas.origins import ORIGINS

Row = dict[str, Any]

CARD = "README.md"
_HASH = b"bulkscribe.config"  # in the metadata of each part's schema


CLIPS_OF_TRANSCRIPTS = Kind("clips", CLIPS, CLIP_COLUMNS)


class Dataset:
    """A data set, open for one run. Use it as a context manager; `open` makes it."""

    def __init__(
        self, out: str, run: dict[str, Any], formats: Sequence[str], shard_bytes: int, lease: Lease, kind: Kind
    ) -> None:
        """Take what `open` has prepared."""
        self._out, self._run, self._lease, self._kind = out, run, lease, kind
        self._layouts, self._limit = chosen(formats), shard_bytes
        self._suffix: str = run["config"]["audio"]
        self._batches: dict[str, _Batch] = {split: _Batch() for split in SPLITS}
        self._number = 0
        self._closed = False
        self._old: dict[str, str] = {}  # parts of recordings that are to be done again
        self.done: dict[str, str | None] = {}  # recordings, and what their clips were made of
        for part in _part_names(out, "origins"):
            for row in self._read("origins", part, ["recording_id", "status", "made_of"]).to_pylist():
                if run["retry_failed"] and row["status"] == "failed":
                    self._old[row["recording_id"]] = part
                else:
                    self.done[row["recording_id"]] = row["made_of"]
        self.deaths = Deaths(out, lambda id_: id_ not in self.done)
        self.deaths.start_anew(lambda id_: id_ not in self.done and id_ not in self._old)

    @classmethod
    def open(
        cls,
        out: str,
        config: Mapping[str, Any],
        *,
        formats: Sequence[str],
        shard_bytes: int,
        retry_failed: bool = False,
        take_over: bool = False,
        kind: Kind = CLIPS_OF_TRANSCRIPTS,
    ) -> Dataset:
        """Finish or undo what a dead run has left in `out`, and read what is done there.

        With `retry_failed` recordings of which no audio came count as not done. Raises UserError when another run
        writes there, or it holds clips of another configuration.
        """
        run_id = run_files.new_run_id()
        lease = Lease.take(out, run_id, over=take_over)
        try:
            commits.recover(out)
            for other in sorted(_hashes(out) - {config_hash(config)}):
                raise _other_config(out, other, config)
            record = {
                "run_id": run_id,
                "status": "running",
                "holds": kind.table,
                "started_at": run_files.now(),
                "config_hash": config_hash(config),
                "config": dict(config),
                "retry_failed": retry_failed,
                "versions": run_files.versions(),
            }
            return cls(out, record, formats, shard_bytes, lease, kind)
        except BaseException:
            lease.release()
            raise

    def begin(self) -> None:
        """Write the file of this run: there is something to do."""
        run_files.write(self._out, self._run["run_id"], self._run)

    def add(self, reading: Reading, split: str) -> None:
        """Take a recording, once; commit its split's shard when that is full."""
        batch = self._batches[split]
        batch.readings.append(reading)
        batch.bytes += sum(clip.size for clip in reading.kept)
        batch.rows += len(reading.rows)
        if batch.bytes >= self._limit or batch.rows >= _MOST_ROWS:
            self._commit(split)

    def remove(self, recording_ids: Collection[str]) -> None:
        """Take recordings out, with their clips; the rest of their shards stays, without audio being read again."""
        for part in _part_names(self._out, "origins"):
            held = self._read("origins", part, ["recording_id"])["recording_id"].to_pylist()
            if ids := set(held) & set(recording_ids):
                self.replace(*thinned(self._out, self._kind.table, part, ids))
        for recording_id in recording_ids:
            self.done.pop(recording_id, None)

    def replace(self, files: Sequence[File], gone: Sequence[str] = ()) -> None:
        """Write files beside the data set, and remove others, as one step."""
        self._lease.confirm()
        commits.commit(self._out, files, gone)

    @property
    def finished(self) -> bool:
        """Whether an earlier run has come to its end; what it left undone since is not counted."""
        return storage.exists(storage.join(self._out, CARD))

    def finish(self, card: bytes, counts: Mapping[str, Any]) -> None:
        """Write the index files and the card, which tell what is in the tables."""
        self._lease.confirm()
        for split in SPLITS:
            if next(self.kept(split), None) is None:
                continue
            for _, layout, _ in self._layouts:
                rows = (row | {"suffix": self._suffix} for row in self.kept(split))
                commits.commit(self._out, layout.index(split, rows))
        commits.commit(self._out, [(CARD, card)])
        self.deaths.forget()
        self._run |= {"status": "finished", "ended_at": run_files.now(), "counts": dict(counts)}
        run_files.write(self._out, self._run["run_id"], self._run)

    def flush(self) -> None:
        """Commit what is there."""
        for split in SPLITS:
            self._commit(split)

    def kept(self, split: str) -> Iterator[Row]:
        """Yield the rows of the kept clips of a split, in the order of their commits."""
        for table in self.tables(self._kind.table):
            chosen = pc.and_(table["kept"], pc.equal(table["split"], split))
            yield from table.filter(chosen).to_pylist()

    def tables(self, table: str, columns: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield a table part by part."""
        for name in _part_names(self._out, table):
            yield self._read(table, name, columns)

    def close(self) -> None:
        """Give the data set back; what is committed stays, the rest is done again by the next run."""
        if not self._closed:
            for reading in [reading for batch in self._batches.values() for reading in batch.readings]:
                reading.close()
            self._lease.release()
            self._closed = True

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, table: str, part: str, columns: Sequence[str] = ()) -> pa.Table:
        data = storage.read_bytes(storage.join(self._out, table, part))
        return pq.read_table(io.BytesIO(data), columns=list(columns) or None)

    def _commit(self, split: str) -> None:
        batch = self._batches[split]
        if not batch.readings:
            return
        self._number += 1
        name = f"{self._run['run_id']}-{self._number:05d}"
        self._lease.confirm()
        commits.commit(self._out, self._files(split, name, batch.readings))
        for reading in batch.readings:
            self.done[reading.recording["recording_id"]] = reading.made_of
            reading.close()
        self._batches[split] = _Batch()

    def _files(self, split: str, name: str, readings: Sequence[Reading]) -> Iterator[File]:
        """Yield the files of a commit: shards of about the size asked for, then the rows."""
        held: dict[str, list[str]] = {}
        for number, clips in enumerate(_shards([clip for one in readings for clip in one.kept], self._limit)):
            shard = f"{name}-{number:03d}"
            for _, layout, own in self._layouts:
                for clip in clips:
                    place = layout.place(split, shard, clip.row["clip_id"], clip.suffix)
                    if place not in held.setdefault(clip.row["clip_id"], []):
                        held[clip.row["clip_id"]].append(place)
                if own:
                    yield from layout.shard(split, shard, clips, self._kind.columns)
        rows = [row | {"shards": held.get(row["clip_id"], [])} for one in readings for row in one.rows]
        yield from self._without([one.recording["recording_id"] for one in readings])
        yield f"{self._kind.table}/part-{name}.parquet", self._part(self._kind.schema, rows)
        yield f"origins/part-{name}.parquet", self._part(ORIGINS, [_origin(one, split) for one in readings])

    def _without(self, ids: Sequence[str]) -> Iterator[File]:
        """Yield the parts that hold recordings which are done again, without them; no shard holds any of these."""
        again = [id_ for id_ in ids if id_ in self._old]
        for part in sorted({self._old[id_] for id_ in again}):
            for table in (self._kind.table, "origins"):
                yield f"{table}/{part}", parts.encode(without(self._read(table, part), again))

    def _part(self, schema: pa.Schema, rows: Sequence[Row]) -> bytes:
        table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema)
        metadata = {**(schema.metadata or {}), _HASH: self._run["config_hash"].encode()}
        return parts.encode(table.replace_schema_metadata(metadata))


_MOST_ROWS = 200_000  # candidates in memory at a time


@dataclass
class _Batch:
    """Recordings of a split that wait for their commit."""

    readings: list[Reading] = field(default_factory=list)
    bytes: int = 0
    rows: int = 0


def _shards(clips: Sequence[Encoded], limit: int) -> Iterator[list[Encoded]]:
    shard: list[Encoded] = []
    size = 0
    for clip in clips:
        if shard and size + clip.size > limit:
            yield shard
            shard, size = [], 0
        shard.append(clip)
        size += clip.size
    if shard:
        yield shard


def _origin(reading: Reading, split: str) -> Row:
    row, failure = reading.recording, reading.failure
    return {
        "recording_id": row["recording_id"],
        "uri": row["uri"],
        "version": row["version"],
        "split": split,
        "status": reading.status,
        **failure_columns(failure),
        "sample_rate": reading.rate,
        "clips": len(reading.rows),
        "kept": len(reading.kept),
        "kept_s": sum(clip.row["end"] - clip.row["start"] for clip in reading.kept),
        "made_of": reading.made_of,
        "metadata": row["metadata"],
    }


def _part_names(out: str, table: str) -> list[str]:
    names = storage.names(storage.join(out, table))
    return [name for name in names if name.startswith("part-") and name.endswith(".parquet")]


def _hashes(out: str) -> set[str]:
    """Return the configurations that the parts of a data set were made with."""
    found = Counter[str]()
    for name in _part_names(out, "origins"):
        uri = storage.join(out, "origins", name)
        metadata = pq.read_schema(io.BytesIO(storage.read_bytes(uri))).metadata or {}
        if _HASH not in metadata:
            raise UserError(f"{uri} was not written by this version of bulkscribe", "choose another --out")
        found[metadata[_HASH].decode()] += 1
    return set(found)


def _other_config(out: str, hash_: str, config: Mapping[str, Any]) -> UserError:
    old = run_files.find_config(out, hash_)
    told = run_files.differences(old, config) if old is not None else []
    why = "; ".join(told) or "of other options"
    return UserError(f"{out} holds a data set made otherwise: {why}", "choose another --out, or give the same options")
