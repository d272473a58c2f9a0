"""A table of results as a file that people and programs open: .parquet, .csv, .json, .jsonl.

Duty: the format that a name asks for, and values that it can hold. Knows nothing of what the table tells.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd

from pipeline import storage
from pipeline.errors import UserError


def check_name(uri: str) -> None:
    """Raise UserError unless the name's ending tells a format."""
    if not uri.lower().endswith(tuple(_WRITERS)):
        raise UserError(f"{storage.redacted(uri)}: unknown format", f"end the name in {', '.join(_WRITERS)}")


def write(table: pd.DataFrame, uri: str) -> None:
    """Write the table. Raises UserError for an unknown ending, or where it cannot be written."""
    check_name(uri)
    writer = next(make for ending, make in _WRITERS.items() if uri.lower().endswith(ending))
    storage.write_bytes(uri, writer(table))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    missing = table.isna() if len(table) else None
    rows = []
    for at, row in enumerate(table.astype(object).to_dict("records")):
        rows.append(
            {str(k): None if missing is not None and missing.iat[at, i] else v for i, (k, v) in enumerate(row.items())}
        )
    return rows


def _json(table: pd.DataFrame) -> bytes:
    return json.dumps(_records(table), ensure_ascii=False, indent=1, default=str).encode() + b"\n"


def _jsonl(table: pd.DataFrame) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in _records(table)).encode()


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()


def _parquet(table: pd.DataFrame) -> bytes:
    """Columns of several types, which a manifest may have, become text."""
    plain = table.copy()
    for name in plain.columns:
        values = plain[name].dropna()
        if values.dtype == object and len({type(value) for value in values}) > 1:
            plain[name] = plain[name].map(
                lambda value: value if isinstance(value, str) else json.dumps(value, default=str), na_action="ignore"
            )
    made: bytes = plain.to_parquet(index=False)
    return made


_WRITERS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".json": _json,
}
