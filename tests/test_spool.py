"""What is put into a spool comes out, wherever it lies, and leaves nothing behind."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.spool import Spool, Spooled

SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.string())])


def _tables(seed: int) -> list[pa.Table]:
    rng, tables, number = random.Random(seed), [], 0
    for _ in range(60):
        count = rng.choice([0, 1, 7, 300])
        texts = [None if rng.random() < 0.2 else "x" * rng.randrange(20) for _ in range(count)]
        tables.append(pa.table({"number": range(number, number + count), "text": texts}, SCHEMA))
        number += count
    return tables


@pytest.mark.parametrize("in_memory", [0, 20_000, 1 << 30])
def test_rows_come_back_in_order_and_in_any_other(
    in_memory: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seed = random.randrange(2**31)
    print("seed", seed)  # noqa: T201
    monkeypatch.setattr("pipeline.spool._IN_MEMORY", in_memory)
    monkeypatch.setattr("pipeline.spool._TOGETHER", 500)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    given = pa.concat_tables(_tables(seed))
    rows = Spooled.of(SCHEMA, _tables(seed))
    assert not list(tmp_path.iterdir()), "the file has a name that a killed process would leave behind"
    assert len(rows) == given.num_rows
    assert pa.concat_tables(rows.tables(SCHEMA.names)).equals(given)
    assert pa.concat_tables(rows.tables(["text"])).equals(given.select(["text"]))
    places = np.random.default_rng(seed).integers(0, given.num_rows, 1000)
    assert rows.take(places, SCHEMA.names).equals(given.take(pa.array(places)))
    assert [rows.value(place, "text") for place in places] == given["text"].take(pa.array(places)).to_pylist()


def test_nothing_is_a_spool_too() -> None:
    rows = Spool(SCHEMA).rows()
    assert len(rows) == 0
    assert list(rows.tables(SCHEMA.names)) == []
    assert rows.take(np.empty(0, np.int64), ["text"]).schema.names == ["text"]


def test_a_disk_without_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.spool._IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "wb"))  # noqa: SIM115 (as the real one)
    with pytest.raises(UserError, match="No space left") as caught:
        Spooled.of(SCHEMA, _tables(1))
    assert "TMPDIR" in caught.value.hint
