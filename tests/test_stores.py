"""What every store must do, tried against local files and real servers of each kind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from botocore.utils import parse_timestamp
from s3_server import s3_server
from store_servers import azurite, gcs_server, seaweed_server

from pipeline import storage
from pipeline.errors import OpenError, UserError
from pipeline.sources import resolve
from pipeline.stores import s3

SERVERS = {
    "s3 (moto)": (s3_server, "s3://audio"),
    "s3 (SeaweedFS)": (seaweed_server, "s3://audio"),
    "gs": (gcs_server, "gs://audio"),
    "az": (azurite, "az://audio"),
}
NUMBERS = itertools.count()


@pytest.fixture(scope="module", params=["local", *SERVERS])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder or bucket of each kind of store; its server runs while its tests do."""
    if request.param == "local":
        yield str(tmp_path_factory.mktemp("store"))
        return
    server, bucket = SERVERS[request.param]
    with server():
        yield bucket


@pytest.fixture
def folder(place: str) -> str:
    """An empty folder."""
    return storage.join(place, f"folder {next(NUMBERS)}")


def test_what_is_written_is_read_back(folder: str) -> None:
    uri = storage.join(folder, "a", "b.bin")
    storage.write_bytes(uri, b"old")
    storage.write_bytes(uri, b"new")
    assert storage.read_bytes(uri) == b"new"
    assert storage.names(storage.join(folder, "a")) == ["b.bin"]


def test_an_absent_file_does_not_exist_and_may_be_deleted(folder: str) -> None:
    uri = storage.join(folder, "no.bin")
    storage.delete(uri)
    assert not storage.exists(uri)


def test_move_replaces_the_target(folder: str) -> None:
    old, new = storage.join(folder, "old"), storage.join(folder, "new")
    storage.write_bytes(old, b"1")
    storage.write_bytes(new, b"2")
    storage.move(old, new)
    assert storage.read_bytes(new) == b"1"
    assert storage.names(folder) == ["new"]


def test_names_of_an_absent_folder_are_none(folder: str) -> None:
    assert storage.names(storage.join(folder, "nothing")) == []


def test_names_leave_out_what_is_in_folders_below(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "b"), b"")
    storage.write_bytes(storage.join(folder, "a"), b"")
    storage.write_bytes(storage.join(folder, "below", "c"), b"")
    assert storage.names(folder) == ["a", "b"]


def test_stat_gives_size_and_a_version_that_changes_with_the_bytes(folder: str) -> None:
    uri = storage.join(folder, "a.wav")
    storage.write_bytes(uri, b"first")
    first = storage.stat(uri)
    storage.write_bytes(uri, b"other")
    second = storage.stat(uri)
    assert (first.size, second.size) == (5, 5)
    assert first.version != second.version


def test_walk_finds_files_at_every_depth_in_order(folder: str) -> None:
    for name in ("b.mp3", "a/x.mp3", "a/deep/er/y.mp3"):
        storage.write_bytes(storage.join(folder, name), b"12")
    found = list(storage.walk(folder if folder.startswith("/") else folder + "/"))
    assert [entry.uri.removeprefix(folder) for entry in found] == ["/a/deep/er/y.mp3", "/a/x.mp3", "/b.mp3"]
    assert found[0] == storage.stat(found[0].uri)
    assert storage.is_dir(storage.join(folder, "a"))
    assert not storage.is_dir(storage.join(folder, "b.mp3"))


@pytest.mark.parametrize("name", [" blanks .mp3", 'it\'s "$x" `y`;.mp3', "100%d [a]*?.mp3", "é#?&=+.mp3"])
def test_odd_names_survive_listing_and_reading(folder: str, name: str) -> None:
    storage.write_bytes(storage.join(folder, name), name.encode())
    (entry,) = storage.walk(folder)
    assert entry.uri == storage.join(folder, name)
    assert storage.read_bytes(entry.uri) == name.encode()


def test_globs_and_prefixes_find_what_they_name(folder: str) -> None:
    for name in ("a/x.mp3", "a/deep/y.mp3", "b/z.wav", "b/notes.txt"):
        storage.write_bytes(storage.join(folder, name), b"1")
    for pattern, found in (
        ("*/*.mp3", ["a/x.mp3"]),
        ("**/*.mp3", ["a/deep/y.mp3", "a/x.mp3"]),
        ("b/", ["b/z.wav"]),
        ("[ab]/[!x]*.*", ["b/notes.txt", "b/z.wav"]),
    ):
        recordings = resolve([f"{folder}/{pattern}"]).recordings
        assert sorted(one.uri.removeprefix(folder + "/") for one in recordings) == found


def test_what_is_absent_cannot_be_listed(place: str) -> None:
    absent = place.replace("audio", "no-such-bucket") if "://" in place else place + "/no"
    with pytest.raises(UserError) as caught:
        list(storage.walk(absent + "/x/"))
    assert caught.value.hint


def test_another_version_is_refused_where_stores_tell_versions(folder: str) -> None:
    if "://" not in folder:
        return  # a local file is read as it is
    uri = storage.join(folder, "a.mp3")
    storage.write_bytes(uri, b"first")
    entry = storage.stat(uri)
    with storage.open_audio(uri, entry.version) as stream:
        assert stream.read() == b"first"
    storage.write_bytes(uri, b"other")
    with pytest.raises(OpenError) as caught, storage.open_audio(uri, entry.version) as stream:
        stream.read()
    assert (caught.value.kind, caught.value.retryable) == ("changed", True)


def test_large_files_come_back_whole(folder: str) -> None:
    uri, data = storage.join(folder, "large"), os.urandom(9_000_001)
    storage.write_bytes(uri, data)
    assert storage.read_bytes(uri) == data
    with storage.open_audio(uri) as stream:
        stream.seek(8_999_999)
        assert stream.read() == data[-2:]


def test_absent_is_not_found(folder: str) -> None:
    with pytest.raises(OpenError) as caught:
        storage.open_audio(storage.join(folder, "no.wav"))
    assert (caught.value.kind, caught.value.retryable) == ("not_found", False)


def test_a_folder_is_no_file(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "sub", "x"), b"")
    with pytest.raises(OpenError):
        storage.open_audio(storage.join(folder, "sub"))


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:04:05.678Z",
        "2026-01-02T03:04:05+02:00",
        "Fri, 02 Jan 2026 03:04:05 GMT",
        1767323045,
        "1767323045",
    ],
)
def test_times_of_s3_are_read_as_botocore_reads_them(text: str | int) -> None:
    assert s3._timestamp(text) == parse_timestamp(text)
