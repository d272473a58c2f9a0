from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import s3_server

from pipeline import storage
from pipeline.errors import OpenError, UserError
from pipeline.sources import Listing, resolve


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, endpoint: str) -> str:
    """An empty folder, here and in a store."""
    return str(tmp_path) if request.param == "local" else f"s3://audio/{tmp_path.name}"


def fill(folder: str, *names: str) -> None:
    for name in names:
        storage.write_bytes(storage.join(folder, name), name.encode())


def found(listing: Listing, folder: str) -> list[str]:
    return [recording.uri.removeprefix(folder + "/") for recording in listing.recordings]


def manifest(folder: Path, *rows: dict[str, Any], name: str = "list.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def test_a_folder_gives_audio_and_video_and_counts_the_rest(folder: str) -> None:
    fill(folder, "a.mp3", "sub/b.MKV", "sub/notes.txt", "._a.mp3", "noending")
    listing = resolve([folder])
    assert found(listing, folder) == ["a.mp3", "sub/b.MKV"]
    assert (listing.passed_over, listing.doubles) == (3, 0)


def test_a_recording_carries_what_the_store_says(folder: str) -> None:
    fill(folder, "a.mp3")
    (recording,) = resolve([storage.join(folder, "a.mp3")]).recordings
    entry = storage.stat(recording.uri)
    assert (recording.size, recording.version) == (5, entry.version)
    assert recording.id == hashlib.sha256(recording.uri.encode()).hexdigest()[:20]


def test_a_named_file_is_taken_whatever_its_ending(folder: str) -> None:
    fill(folder, "interview.dat")
    assert found(resolve([storage.join(folder, "interview.dat")]), folder) == ["interview.dat"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.mp3", ["a.mp3", "b.mp3"]),
        ("[ab].mp3", ["a.mp3", "b.mp3"]),
        ("?.wav", ["a.wav"]),
        ("*.dat", ["c.dat"]),
        ("*/*.mp3", ["sub/a.mp3"]),
        ("**/*.mp3", ["a.mp3", "b.mp3", "sub/a.mp3", "sub/deep/a.mp3"]),
        ("s*/**/a.mp3", ["sub/a.mp3", "sub/deep/a.mp3"]),
        ("s*", ["sub/a.mp3", "sub/deep/a.mp3"]),
        ("*", ["a.mp3", "a.wav", "b.mp3", "sub/a.mp3", "sub/deep/a.mp3"]),
    ],
)
def test_globs(folder: str, pattern: str, names: list[str]) -> None:
    fill(folder, "a.mp3", "b.mp3", "a.wav", "c.dat", "sub/a.mp3", "sub/deep/a.mp3")
    assert found(resolve([storage.join(folder, pattern)]), folder) == names


def test_a_name_that_exists_is_itself_before_it_is_a_glob(folder: str) -> None:
    fill(folder, "100%d [a]*?.flac", "100%d a!!.flac")
    assert found(resolve([storage.join(folder, "100%d [a]*?.flac")]), folder) == ["100%d [a]*?.flac"]


def test_a_prefix_that_is_no_folder_takes_all_keys_that_begin_so(endpoint: str) -> None:
    fill("s3://audio", "2024-01.mp3", "2024-02/x.mp3", "2023.mp3")
    assert found(resolve(["s3://audio/2024-0"]), "s3://audio") == ["2024-01.mp3", "2024-02/x.mp3"]


def test_a_folder_in_a_store_is_not_its_namesakes(endpoint: str) -> None:
    fill("s3://audio", "show/a.mp3", "show-old/a.mp3")
    assert found(resolve(["s3://audio/show"]), "s3://audio") == ["show/a.mp3"]


def test_named_twice_is_one_recording(folder: str) -> None:
    fill(folder, "a.mp3", "b.mp3")
    listing = resolve([folder, storage.join(folder, "a.mp3"), storage.join(folder, "*.mp3")])
    assert found(listing, folder) == ["a.mp3", "b.mp3"]
    assert listing.doubles == 3


def test_relative_paths_and_file_uris_name_the_same_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(str(tmp_path), "a b.mp3")
    monkeypatch.chdir(tmp_path)
    assert resolve(["a b.mp3", f"file://{tmp_path}/a%20b.mp3"]).doubles == 1


@pytest.mark.parametrize(
    "name", [b"caf\xe9.mp3", "e\u0301.mp3".encode(), "日本 🎧.mp3".encode(), b" x\ny'\".mp3", b"-i.mp3"]
)
def test_odd_names_can_be_opened_again(tmp_path: Path, name: bytes) -> None:
    with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
        file.write(name)
    (recording,) = resolve([str(tmp_path)]).recordings
    assert recording.uri.encode()  # fit for every table
    assert storage.read_bytes(recording.uri) == name


@pytest.mark.parametrize("source", ["no.mp3", "no-*.mp3", "no/", "s3://audio/no/", "s3://audio/no-*.mp3", "ftp://h/a"])
def test_a_source_that_names_nothing_is_the_users_error(source: str, endpoint: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve([source])
    assert caught.value.hint


def test_a_folder_without_audio_says_what_was_passed_over(tmp_path: Path) -> None:
    fill(str(tmp_path), "a.txt", "b.txt")
    with pytest.raises(UserError) as caught:
        resolve([str(tmp_path)])
    assert "2 files" in caught.value.hint


def test_no_source_is_the_users_error() -> None:
    with pytest.raises(UserError):
        resolve([])


# --- manifests ----------------------------------------------------------------------------------------------------


def test_a_manifests_uris_are_relative_to_its_folder(folder: str) -> None:
    fill(folder, "clips/a.mp3", "b.mp3")
    storage.write_bytes(storage.join(folder, "lists", "x.jsonl"), b'{"uri": "../clips/a.mp3"}\n\n{"uri": "../b.mp3"}')
    listing = resolve([storage.join(folder, "lists", "x.jsonl")])
    assert found(listing, folder) == ["clips/a.mp3", "b.mp3"]
    assert listing.recordings[0].size == len("clips/a.mp3")


def test_initial_prompt_is_of_its_recording(tmp_path: Path) -> None:
    rows = [{"uri": "a", "initial_prompt": " Names: Ada. "}, {"uri": "b"}]
    listing = resolve([manifest(tmp_path, *rows)])
    assert [recording.initial_prompt for recording in listing.recordings] == ["Names: Ada.", None]


def test_language_forces_where_it_is_filled(tmp_path: Path) -> None:
    rows = [{"uri": "a", "language": "de"}, {"uri": "b", "language": ""}, {"uri": "c", "language": None}, {"uri": "d"}]
    listing = resolve([manifest(tmp_path, *rows)])
    assert [recording.language for recording in listing.recordings] == ["de", None, None, None]


def test_an_absent_file_of_a_manifest_is_still_a_recording(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "x.jsonl"), b'{"uri": "no.mp3"}')
    (recording,) = resolve([storage.join(folder, "x.jsonl")]).recordings
    assert (recording.size, recording.version) == (None, "")
    with pytest.raises(OpenError):
        storage.open_audio(recording.uri)


def test_a_manifest_line_may_name_a_store_that_is_unknown(tmp_path: Path) -> None:
    (recording,) = resolve([manifest(tmp_path, {"uri": "ftp://me:secret@host/a.mp3"})]).recordings
    assert recording.uri == "ftp://host/a.mp3"


def test_jsonl_keeps_the_types_of_other_columns(tmp_path: Path) -> None:
    other = {"id": "007", "year": 1999, "big": 2**60, "score": 0.5, "ok": True, "none": None, "tags": ["é", {"n": 1}]}
    (recording,) = resolve([manifest(tmp_path, {"uri": "a", "language": "en", **other})]).recordings
    assert json.loads(recording.metadata) == other


def test_jsonl_not_a_number_is_null(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"uri": "a", "snr": NaN}')
    (recording,) = resolve([str(tmp_path / "x.jsonl")]).recordings
    assert recording.metadata == '{"snr": null}'


def test_csv_columns_become_numbers_only_where_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        "\ufeffuri,id,year,score,version,country\n a .mp3,007,1999,0.5,1.10,NA\n'b'.mp3,8,,2,1.2,\n", encoding="utf-8"
    )
    listing = resolve([str(tmp_path / "x.csv")])
    assert found(listing, str(tmp_path)) == [" a .mp3", "'b'.mp3"]
    assert [json.loads(recording.metadata) for recording in listing.recordings] == [
        {"id": "007", "year": 1999, "score": 0.5, "version": "1.10", "country": "NA"},
        {"id": "8", "year": None, "score": 2.0, "version": "1.2", "country": None},
    ]


def test_csv_names_may_hold_commas_quotes_and_newlines(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('language,uri\nno,"a, ""b""\nc.mp3"\n')
    (recording,) = resolve([str(tmp_path / "x.csv")]).recordings
    assert recording.uri == f'{tmp_path}/a, "b"\nc.mp3'
    assert recording.language == "no"


def test_parquet_keeps_types_and_leaves_bytes_out(folder: str, tmp_path: Path) -> None:
    table = pa.table(
        {
            "uri": ["a.mp3"],
            "n": pa.array([3], pa.int8()),
            "x": [0.25],
            "when": [datetime.date(2024, 2, 29)],
            "tags": [["a", "b"]],
            "audio": [{"bytes": b"RIFF", "path": "p"}],
        }
    )
    pq.write_table(table, tmp_path / "local.parquet")
    uri = storage.join(folder, "x.PARQUET")
    storage.write_bytes(uri, (tmp_path / "local.parquet").read_bytes())
    (recording,) = resolve([uri]).recordings
    assert json.loads(recording.metadata) == {"n": 3, "x": 0.25, "when": "2024-02-29", "tags": ["a", "b"]}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.jsonl", b'{"uri": "a"}\n{"uri": \n', "line 2"),
        ("x.jsonl", b'{"uri": "a"}\n["a"]\n', "line 2"),
        ("x.jsonl", b'{"uri": "a"}\n\n{"file": "a"}\n', "line 3: there is no `uri`"),
        ("x.jsonl", b'{"uri": ""}\n', "line 1"),
        ("x.jsonl", b'{"uri": 7}\n', "line 1"),
        ("x.jsonl", b'{"uri": "\\ud800"}\n', "line 1"),
        ("x.jsonl", b'{"uri": "a", "language": 1}\n', "line 1"),
        ("x.jsonl", b'{"uri": "\xe9"}\n', "line 1"),
        ("x.jsonl", b'{"uri": "a", "start": -1}\n', "line 1: the start is -1"),
        ("x.jsonl", b'{"uri": "a", "end": "1:30"}\n', "line 1: the end is '1:30'"),
        ("x.jsonl", b'{"uri": "a", "end": true}\n', "line 1: the end is True"),
        ("x.jsonl", b'{"uri": "a", "start": 1e400}\n', "line 1: the start is inf"),
        ("x.jsonl", b'{"uri": "a", "start": 2, "end": 2.0}\n', "line 1: the end, 2 s, is not after the start"),
        ("x.jsonl", b"", "is empty"),
        ("x.csv", b"", "is empty"),
        ("x.csv", b"uri\n", "is empty"),
        ("x.csv", b"file,language\na,en\n", "there is no `uri`"),
        ("x.csv", b"uri,a\nx,1\ny,1,2\n", "line 3"),
        ("x.csv", b"uri,a\nx,1,2\ny,1,2\n", "more fields"),
        ("x.csv", b"uri\n\xe9\n", "utf-8"),
        ("x.parquet", b"PAR1 no", "x.parquet"),
    ],
)
def test_a_bad_manifest_is_the_users_error(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        resolve([str(tmp_path / name)])
    assert caught.value.hint


def test_stretches_of_one_file_are_several_recordings(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        "uri,start,end,text\na,,,all\na,1.50,3,b\na,3,,c\na,0,2e1,d\na,1.5,3.0,again\na,0.0,,same\n"
    )
    listing = resolve([str(tmp_path / "x.csv")])
    assert [(one.start, one.end) for one in listing.recordings] == [
        (0, None),
        (24_000, 48_000),
        (48_000, None),
        (0, 320_000),
    ]
    assert len({one.id for one in listing.recordings}) == 4
    assert {one.uri for one in listing.recordings} == {f"{tmp_path}/a"}
    assert listing.recordings[0].id == hashlib.sha256(f"{tmp_path}/a".encode()).hexdigest()[:20]
    assert json.loads(listing.recordings[1].metadata) == {"text": "b"}
    assert listing.doubles == 2


def test_of_two_namings_the_first_counts(tmp_path: Path) -> None:
    first, second = {"uri": "a", "language": "de"}, {"uri": "./a", "language": "en"}
    listing = resolve([manifest(tmp_path, first, second)])
    assert [recording.language for recording in listing.recordings] == ["de"]
    assert listing.doubles == 1
