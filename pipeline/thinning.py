"""A commit of a data set without some of its recordings: tables and shards are thinned, no audio is read again.

Duty: which files hold these recordings, and what is left of them. Knows layouts and rows; commits nothing.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import parts, storage
from pipeline.layouts import LAYOUTS, File

ORIGINS_TABLE = "origins"


def without(table: pa.Table, recording_ids: Collection[str]) -> pa.Table:
    """Return the rows of other recordings."""
    theirs = pc.is_in(table["recording_id"], value_set=pa.array(recording_ids, pa.string()))
    return table.filter(pc.invert(theirs))


def thinned(out: str, table: str, part: str, recording_ids: Collection[str]) -> tuple[list[File], list[str]]:
    """Return the files of a commit that change without these recordings, and those of which nothing is left.

    `table` is that of its clips, `part` the name of its parts.
    """
    files, gone = _shards(out, _read(out, table, part), recording_ids)
    for name in (ORIGINS_TABLE, table):
        rest = without(_read(out, name, part), recording_ids)
        files.append((f"{name}/{part}", parts.encode(rest)))
    if not without(_read(out, ORIGINS_TABLE, part), recording_ids).num_rows:
        files, gone = [], [*gone, *(path for path, _ in files)]
    return files, gone


def _shards(out: str, clips: pa.Table, recording_ids: Collection[str]) -> tuple[list[File], list[str]]:
    leave, stay = defaultdict[str, set[str]](set), set[str]()
    for row in clips.select(["clip_id", "recording_id", "shards"]).to_pylist():
        for shard in row["shards"]:
            if row["recording_id"] in recording_ids:
                leave[shard].add(row["clip_id"])
            else:
                stay.add(shard)
    ways = {layout.place("", "", "", "").partition("/")[0]: layout.without for layout in LAYOUTS.values()}
    files = []
    for shard in sorted(leave.keys() & stay):
        thin = ways[shard.partition("/")[0]]
        assert thin is not None, f"{shard} has one clip"
        files.append((shard, thin(storage.read_bytes(storage.join(out, shard)), leave[shard])))
    return files, sorted(leave.keys() - stay)


def _read(out: str, table: str, part: str) -> pa.Table:
    return pq.read_table(io.BytesIO(storage.read_bytes(storage.join(out, table, part))))
