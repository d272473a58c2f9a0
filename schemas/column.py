"""One way to declare a column."""

from __future__ import annotations

import pyarrow as pa


def column(name: str, type_: pa.DataType, doc: str, unit: str = "", *, nullable: bool = True) -> pa.Field:
    """Return a field that carries its sentence (`doc`) and its `unit` as metadata, as Parquet readers can see them."""
    return pa.field(name, type_, nullable=nullable, metadata={"doc": doc, "unit": unit})
