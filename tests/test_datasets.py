"""Audio in Parquet: rows are recordings, read one row group at a time."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import s3_server

from pipeline import datasets, pieces, storage
from pipeline.errors import OpenError, UserError
from pipeline.sources import resolve
from pipeline.stages import CutOptions, cut
from pipeline.types import Outcome, Recording

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"


def dataset(rows: list[dict[str, Any]], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, **options)
    return buffer.getvalue()


def content(recording: Recording) -> bytes:
    with pieces.open_piece(recording.location, recording.version, recording.inside) as stream:
        return stream.read()


def test_rows_of_hugging_faces_layout_are_recordings(tmp_path: Path) -> None:
    rows = [
        {"audio": {"bytes": bytes([n]) * 5, "path": f"clips/{n}.wav"}, "text": f"said {n}", "n": n} for n in range(5)
    ]
    (tmp_path / "train.parquet").write_bytes(dataset(rows, row_group_size=2))
    listing = resolve([str(tmp_path / "train.parquet")])
    assert [one.uri for one in listing.recordings] == [f"{tmp_path}/train.parquet#path=clips/{n}.wav" for n in range(5)]
    assert [content(one) for one in listing.recordings] == [bytes([n]) * 5 for n in range(5)]
    assert json.loads(listing.recordings[3].metadata) == {"reference": "said 3", "text": "said 3", "n": 3}
    assert resolve([listing.recordings[2].uri]).recordings == [listing.recordings[2]]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_plain_column_of_bytes_has_rows_by_number(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"audio": pa.array([b"a", b"b", None], kind)}), tmp_path / "x.parquet")
    recordings = resolve([str(tmp_path / "x.parquet")]).recordings
    assert [one.uri.partition("#")[2] for one in recordings] == ["row=0", "row=1", "row=2"]
    assert [content(one) for one in recordings[:2]] == [b"a", b"b"]
    with pytest.raises(OpenError) as caught:
        content(recordings[2])
    assert caught.value.kind == "no_bytes"


def test_paths_that_are_not_unique_give_way_to_numbers_and_are_never_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    paths = ["a.wav", "a.wav", None, str(secret), "../../etc/passwd"]
    rows = [{"audio": {"bytes": b"x" if n < 3 else None, "path": path}} for n, path in enumerate(paths)]
    (tmp_path / "x.parquet").write_bytes(dataset(rows))
    recordings = resolve([str(tmp_path / "x.parquet")]).recordings
    assert [one.uri.partition("#")[2] for one in recordings] == [
        "row=0", "row=1", "row=2", f"path={secret}", "path=../../etc/passwd"
    ]  # fmt: skip
    for one in recordings[3:]:
        with pytest.raises(OpenError, match="no bytes"):
            content(one)


def test_bytes_beside_a_uri_are_a_manifest_still(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(dataset([{"uri": "a.mp3", "audio": {"bytes": b"x", "path": "p"}}]))
    assert resolve([str(tmp_path / "x.parquet")]).recordings[0].uri == f"{tmp_path}/a.mp3"


def test_audio_in_a_row_is_heard(tmp_path: Path) -> None:
    data = (EXAMPLES / "fr_standard.m4a").read_bytes()  # its index is at its end
    rows = [{"audio": {"bytes": data, "path": "fr.m4a"}, "text": "..."}, {"audio": {"bytes": b"no audio", "path": "x"}}]
    (tmp_path / "x.parquet").write_bytes(dataset(rows))
    ends = []
    for recording in resolve([str(tmp_path / "x.parquet")]).recordings:
        *_, end = cut(recording, CutOptions())
        assert isinstance(end, Outcome)
        ends.append(end)
    assert [end.status for end in ends] == ["ok", "failed"]
    assert ends[0].duration / 16_000 == pytest.approx(35.4, abs=0.1)


def test_one_row_group_is_in_memory_at_a_time(tmp_path: Path) -> None:
    size = 100_000
    rows = [{"audio": {"bytes": bytes([n]) * size, "path": f"{n}"}} for n in range(100)]
    (tmp_path / "x.parquet").write_bytes(dataset(rows, row_group_size=10, compression="none", use_dictionary=False))
    before = pa.total_allocated_bytes()
    recordings = resolve([str(tmp_path / "x.parquet")]).recordings
    assert pa.total_allocated_bytes() - before < 5 * size
    for one in recordings:
        assert content(one)[:1] == bytes([int(storage.piece_name(one.uri) or "")])
        assert pa.total_allocated_bytes() - before < 25 * size
        assert len(datasets._held) == 1


def test_rows_in_a_store_and_of_another_version() -> None:
    with s3_server():
        storage.write_bytes(
            "s3://audio/x.parquet", dataset([{"audio": b"1", "text": "a"}, {"audio": b"2", "text": "b"}])
        )
        recordings = resolve(["s3://audio/*.parquet"]).recordings
        assert [content(one) for one in recordings] == [b"1", b"2"]
        storage.write_bytes("s3://audio/x.parquet", dataset([{"audio": b"3", "text": "a"}]))
        datasets._held.clear()
        with pytest.raises(OpenError) as caught:
            content(recordings[0])
        assert caught.value.kind == "changed"


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_no_parquet_is_the_users_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.parquet"):
        resolve([str(tmp_path / "x.parquet")])


def test_a_damaged_page_is_a_row(tmp_path: Path) -> None:
    data = bytearray(dataset([{"audio": b"a" * 10_000}, {"audio": b"b" * 10_000}], compression="snappy"))
    data[4:200] = b"\xff" * 196
    (tmp_path / "x.parquet").write_bytes(bytes(data))
    *_, end = cut(resolve([str(tmp_path / "x.parquet")]).recordings[0], CutOptions())
    assert isinstance(end, Outcome)
    assert end.failure is not None
    assert (end.status, end.failure.kind) == ("failed", "damaged")
