"""The part files of the tables: what lies in an output, and how a part is read, encoded and changed.

A part has the same name in each of its tables, and its segments part is there even when it is empty, so that a name
missing in one of them is damage. Each part carries the version of this layout. Knows nothing of runs and commits.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.books import Layout
from pipeline.errors import UserError
from pipeline.spool import Spool, Spooled

FORMAT = {b"bulkscribe.format": b"1"}  # in the metadata of each part's schema
DONE = pa.schema(
    [
        ("recording_id", pa.string()),
        ("version", pa.string()),
        ("status", pa.string()),
        ("retryable", pa.bool_()),
        ("heard_s", pa.float64()),  # of audio, or what else the layout counts
        ("part", pa.int32()),  # index of the part that it stands in
    ]
)


def names(out: str, layout: Layout) -> list[str]:
    """Return the names of the parts in `out`. UserError where something else lies there, or a part is not whole."""
    found = {}
    for table in layout.tables:
        folder = storage.join(out, table)
        listed = [name for name in storage.names(folder) if not name.startswith((".", "_"))]
        strange = [name for name in listed if not (name.startswith("part-") and name.endswith(".parquet"))]
        if strange:
            raise UserError(f"{folder} holds files that are not bulkscribe's: {strange[0]}", "choose another --out")
        found[table] = set(listed)
    ledger = found[layout.ledger]
    torn = {name for table in layout.beside for name in ledger ^ found[table]}
    torn |= {name for table in layout.optional for name in found[table] - ledger}
    if torn:
        raise UserError(
            f"{out} is damaged: {min(torn)} is not in each of its tables",
            "put the missing file back, or delete this part from all tables: its recordings are then done again",
        )
    return sorted(ledger)


def scan(out: str, layout: Layout, parts: Sequence[str]) -> tuple[Spooled, set[str]]:
    """Return what is done, and the hashes of the configurations that it was done with.

    What is done are rows of `DONE`: about 120 bytes each, on disk where they are many.
    """
    wanted = [*DONE.names[: DONE.get_field_index("heard_s")], layout.heard]
    spool, hashes = Spool(DONE), set()
    for index, part in enumerate(parts):
        uri = storage.join(out, layout.ledger, part)
        file = pq.ParquetFile(io.BytesIO(storage.read_bytes(uri)))
        if not FORMAT.items() <= (file.schema_arrow.metadata or {}).items():
            raise UserError(f"{uri} was not written by this version of bulkscribe", "choose another --out")
        table = file.read(columns=[*wanted, "config_hash"])
        hashes.update(pc.unique(table["config_hash"]).to_pylist())
        part_of = pa.repeat(pa.scalar(index, pa.int32()), table.num_rows)
        found = table.select(wanted).append_column("part", part_of)
        spool.add(found.rename_columns(DONE.names).cast(DONE))
    return spool.rows(), hashes


def read(out: str, table: str, part: str) -> pa.Table | None:
    """Return a part; None where it is absent."""
    uri = storage.join(out, table, part)
    return pq.read_table(io.BytesIO(storage.read_bytes(uri))) if storage.exists(uri) else None


def replaced(old: pa.Table, new: pa.Table, ids: Sequence[str]) -> pa.Table:
    """Return `old` with its rows of the recordings `ids` taken out, and `new` added."""
    kept = old.filter(pc.invert(pc.is_in(old["recording_id"], value_set=pa.array(ids, pa.string()))))
    return pa.concat_tables([kept.cast(new.schema), new])


def encode(table: pa.Table) -> bytes:
    """Return the table as a part file."""
    buffer = io.BytesIO()
    metadata = {**(table.schema.metadata or {}), **FORMAT}
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    return buffer.getvalue()
