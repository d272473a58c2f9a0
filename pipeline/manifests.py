"""Manifests: .csv, .jsonl and .parquet files with one recording a line -> Lines.

Duty: the formats and their faults, each told with its line. Knows nothing of what the URIs point to.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipeline import storage
from pipeline.errors import OpenError, UserError
from pipeline.types import SAMPLE_RATE

Row = tuple[int, dict[str, Any]]  # number of the line (of the row in Parquet), the columns
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
TEXTS = ("language", "initial_prompt")  # columns that steer how a recording is transcribed
STRETCH = ("start", "end")  # columns that say which part of it is, in seconds
_LONGEST_S = 1e9  # what is later is no time of a recording
_STRETCH_HINT = "write seconds from the start of the recording, as 12.5, or nothing"
WORDS = ("text", "reference", "translation")  # what is said: words, even where all lines are numbers


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a manifest."""

    number: int  # from 1; of a csv the first row below the names is 2
    uri: str  # as written
    language: str | None
    initial_prompt: str | None
    metadata: str  # JSON object of the other columns
    start: int = 0  # samples
    end: int | None = None
    inside: str = ""  # where in the file the piece lies that the uri names, as `filter` has written it


def read_manifest(uri: str) -> Iterator[Line]:
    """Yield the manifest's lines. Raises UserError where it cannot be read, has no `uri`, or is broken."""
    shown = storage.canonical(uri)
    return (_line(shown, number, row) for number, row in read_rows(uri))


def read_rows(uri: str) -> Iterator[Row]:
    """Yield each line's number and columns, whatever they are called. Raises UserError as `read_manifest` does."""
    shown = storage.canonical(uri)
    read = next(reader for ending, reader in _READERS.items() if shown.lower().endswith(ending))
    empty = True
    try:
        with storage.open_audio(uri) as stream:
            for number, row in read(shown, stream):
                empty = False
                yield number, row
    except OpenError as error:
        raise UserError(f"cannot read the manifest {shown}: {error}", "is it there, under that name?") from error
    if empty:
        raise UserError(f"the manifest {shown} is empty", "it needs a column `uri` and a line for each recording")


def _line(manifest: str, number: int, row: dict[str, Any]) -> Line:
    if "uri" not in row:
        found = ", ".join(map(str, row)) or "nothing"
        raise UserError(
            f"{manifest}, line {number}: there is no `uri`", f"the columns are: {found}; rename one to `uri`"
        )
    uri = row.pop("uri")
    if not isinstance(uri, str) or not uri:
        raise UserError(f"{manifest}, line {number}: the uri is {uri!r}", "each line needs the name of a file")
    texts = {name: _text(row.pop(name, None), f"{manifest}, line {number}: the {name}") for name in TEXTS}
    start, end = _stretch(row, f"{manifest}, line {number}")
    inside = str(row.pop("inside", "")) if storage.split_piece(uri)[1] else ""
    return Line(number, uri, texts["language"], texts["initial_prompt"], as_json(row), start, end, inside)


def _stretch(row: dict[str, Any], where: str) -> tuple[int, int | None]:
    """Take start and end out of the row; return them in samples."""
    start, end = (_seconds(row.pop(name, None), f"{where}: the {name}") for name in STRETCH)
    first, last = round((start or 0.0) * SAMPLE_RATE), None if end is None else round(end * SAMPLE_RATE)
    if last is not None and last <= first:
        raise UserError(f"{where}: the end, {end:g} s, is not after the start, {start or 0:g} s", _STRETCH_HINT)
    return first, last


def _seconds(value: Any, what: str) -> float | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < _LONGEST_S:
        raise UserError(f"{what} is {value!r}", _STRETCH_HINT)
    return seconds


def _text(value: Any, what: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise UserError(f"{what} is {value!r}", "write text ('en' for a language), or nothing")
    return (value or "").strip() or None


def as_json(row: dict[str, Any]) -> str:
    """Dump metadata with types kept as far as JSON has them: dates and other values become text, not-a-number null."""
    text = json.dumps(_finite(row), ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can carry
        return json.dumps(_finite(row), default=str)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _jsonl(uri: str, stream: BinaryIO) -> Iterator[Row]:
    for number, line in enumerate(io.BufferedReader(stream), 1):  # type: ignore[type-var]
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except json.JSONDecodeError as error:
            reason = f"{error.msg} at character {error.pos + 1}"
            raise UserError(f"{uri}, line {number}: {reason}", "each line of a .jsonl is one JSON object") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{uri}, line {number}: {error}", "a .jsonl is text in UTF-8") from error
        if not isinstance(row, dict):
            raise UserError(f"{uri}, line {number} is no JSON object", "each line of a .jsonl is one JSON object")
        yield number, row


def _csv(uri: str, stream: BinaryIO) -> Iterator[Row]:
    import pandas as pd

    try:
        # As text: "007" and "NA" are what they say, until a whole column proves to be numbers.
        table = pd.read_csv(stream, dtype=str, na_filter=False, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        return
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{uri}: {error}".strip(), "a .csv is text in UTF-8, separated by commas") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"{uri}: its lines have more fields than its first line has names", "name every column")
    columns = {str(name): _typed(name, table[name].tolist()) for name in table}
    for index, values in enumerate(zip(*columns.values(), strict=True)):
        yield index + 2, dict(zip(columns, values, strict=True))


def _typed(name: Any, texts: list[str]) -> list[Any]:
    """Turn a column into numbers if nothing of its text is lost by that; what is empty is null."""
    filled = [text for text in texts if text]
    convert: Callable[[str], Any] = str
    if name in ("uri", *TEXTS, *WORDS):
        pass
    elif filled and all(map(_INTEGER.fullmatch, filled)):
        convert = int
    elif filled and all(map(_is_float, filled)):
        convert = float
    return [convert(text) if text else None for text in texts]


def _is_float(text: str) -> bool:
    try:
        return repr(float(text)) == text or bool(_INTEGER.fullmatch(text))
    except ValueError:
        return False


def _parquet(uri: str, stream: BinaryIO) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(stream)
        # Bytes are no words about a recording; audio in them would fill the memory.
        names = [field.name for field in file.schema_arrow if not _has_bytes(field.type)]
        number = 0
        for batch in file.iter_batches(batch_size=4096, columns=names):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pa.ArrowInvalid as error:
        raise UserError(f"{uri}: {error}", "it is no Parquet file, or a damaged one") from error


def _has_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(_has_bytes(kind.field(index).type) for index in range(kind.num_fields))


_READERS: dict[str, Callable[[str, BinaryIO], Iterable[Row]]] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
MANIFESTS = tuple(_READERS)
