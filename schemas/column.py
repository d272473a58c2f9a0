"""One way to declare a column, and columns that several tables have."""

from __future__ import annotations

import pyarrow as pa


def column(name: str, type_: pa.DataType, doc: str, unit: str = "", *, nullable: bool = True) -> pa.Field:
    """Return a field that carries its sentence (`doc`) and its `unit` as metadata, as Parquet readers can see them."""
    return pa.field(name, type_, nullable=nullable, metadata={"doc": doc, "unit": unit})


# Of whatever can fail: why.
FAILURE = (
    column("error_stage", pa.string(), "Where it failed: open, decode, worker. Null when ok."),
    column("error_kind", pa.string(), "A stable word for counting failures. Null when ok."),
    column("error_message", pa.string(), "The cause in its own words (ffmpeg's, the store's). Null when ok."),
    column("retryable", pa.bool_(), "Whether it was of passing kind; --retry-failed takes those up again."),
)

# Of whatever a run writes: which run, and what it was told.
RUN = (
    column(
        "config_hash", pa.string(), "Hash of everything that changes rows; runs/*.json spells it out.", nullable=False
    ),
    column("run_id", pa.string(), "The run that wrote this row: runs/RUN_ID.json.", nullable=False),
)
