"""Trouble of stores: what passes is tried again and resumed, what lasts is an OpenError."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from faulty_store import PAGE, FaultyStore, faulty_store

from pipeline import storage
from pipeline.errors import OpenError
from pipeline.storage import StoreOptions
from pipeline.stores import gcs

KINDS = ["s3", "gs", "az", "web", "web without ranges"]
DATA = os.urandom(6_000_000)  # more than one request's worth


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three attempts, with short pauses."""
    monkeypatch.setattr("pipeline.stores.trying._FIRST_PAUSE_S", 0.01)
    kept = storage.configured()
    storage.configure(StoreOptions(store_attempts=3))
    yield
    storage.configure(kept)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of store."""
    return str(request.param)


@pytest.fixture
def store(kind: str) -> Iterator[FaultyStore]:
    """A store that fails on demand."""
    with faulty_store(DATA, ranged=kind != "web without ranges") as server:
        yield server


@pytest.fixture
def uri(kind: str, store: FaultyStore) -> str:
    """Its object."""
    return f"{store.endpoint}/a.mp3" if kind.startswith("web") else f"{kind}://audio/a.mp3"


@pytest.mark.parametrize("fault", ["truncate", "reset", "503", "500", "429"])
def test_what_passes_is_not_noticed(store: FaultyStore, uri: str, fault: str) -> None:
    store.faults = [fault]
    assert storage.read_bytes(uri) == DATA
    assert store.faults == []


def test_a_store_that_falls_silent_is_asked_again(
    store: FaultyStore, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("s3", "azure", "web"):
        monkeypatch.setattr(f"pipeline.stores.{name}.READ_S", 0.5)
    monkeypatch.setitem(gcs._ONCE, "timeout", (1, 0.5))
    store.faults = ["hang"]
    assert storage.read_bytes(uri) == DATA


def test_breaks_are_resumed_where_the_store_can(kind: str, store: FaultyStore, uri: str) -> None:
    store.faults = ["truncate"]
    assert storage.read_bytes(uri) == DATA
    asked = [int((text or "bytes=0-").removeprefix("bytes=").partition("-")[0]) for text in store.ranges]
    assert max(asked) > 0  # asked for, even where it is not answered
    assert storage.stat(uri).size == len(DATA)


def test_many_breaks_are_survived_as_long_as_bytes_come(kind: str, store: FaultyStore, uri: str) -> None:
    if kind == "web without ranges":
        store.faults = ["truncate"] * 2  # each means reading from the start: these are counted
    elif kind == "gs":
        store.faults = ["truncate", "truncate", ""] * 2  # bytes come in whole requests
    else:
        store.faults = ["truncate"] * 6
    assert storage.read_bytes(uri) == DATA


def test_a_server_without_ranges_is_not_read_again_for_ever() -> None:
    with faulty_store(DATA, ranged=False) as store:
        store.faults = ["truncate"] * 9
        with pytest.raises(OpenError) as caught:
            storage.read_bytes(f"{store.endpoint}/a.mp3")
        assert (caught.value.kind, caught.value.retryable) == ("unavailable", True)
        assert len(store.ranges) == 3


def test_lasting_trouble_is_retryable(store: FaultyStore, uri: str) -> None:
    store.faults = ["503"] * 30
    for call in (storage.stat, storage.read_bytes):
        with pytest.raises(OpenError) as caught:
            call(uri)
        assert (caught.value.kind, caught.value.retryable) == ("unavailable", True)


def test_a_store_that_is_gone_is_retryable(store: FaultyStore, uri: str) -> None:
    store.shutdown()
    store.server_close()
    with pytest.raises(OpenError) as caught:
        storage.stat(uri)
    assert (caught.value.kind, caught.value.retryable) == ("unavailable", True)


@pytest.mark.parametrize(("status", "word"), [("403", "forbidden"), ("404", "not_found")])
def test_refusals_last(store: FaultyStore, uri: str, status: str, word: str) -> None:
    store.faults = [status]
    with pytest.raises(OpenError) as caught:
        storage.open_audio(uri)
    assert (caught.value.kind, caught.value.retryable) == (word, False)
    store.faults = ["truncate", status, status]
    with storage.open_audio(uri) as stream, pytest.raises(OpenError) as caught:
        stream.read()
    assert (caught.value.kind, caught.value.retryable) == (word, False)


def test_an_object_that_changes_while_it_is_read_is_refused(store: FaultyStore, uri: str) -> None:
    entry = storage.stat(uri)
    store.faults = ["change"]
    with storage.open_audio(uri, entry.version) as stream, pytest.raises(OpenError) as caught:
        stream.read()
    assert (caught.value.kind, caught.value.retryable) == ("changed", True)


def test_reading_can_begin_anywhere(store: FaultyStore, uri: str) -> None:
    with storage.open_audio(uri) as stream:
        assert stream.seek(-5, os.SEEK_END) == len(DATA) - 5
        assert stream.read() == DATA[-5:]
        assert stream.seek(4_500_000) == 4_500_000
        assert stream.read(7) == DATA[4_500_000:4_500_007]
        assert stream.tell() == 4_500_007


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_listings_stream_page_by_page(scheme: str) -> None:
    """The listing has no end: whoever gathers it never comes back."""
    with faulty_store(b"") as store:
        entries = storage.walk(f"{scheme}://audio/show/")
        next(entries)
        assert len(store.paths) == 1
        store.faults = ["503"]  # in the middle
        listed = sum(1 for _ in itertools.islice(entries, 5 * PAGE))
        entries.close()
    assert listed == 5 * PAGE
    assert len(store.paths) == 6 + 1


def test_an_empty_file_is_empty(store: FaultyStore, uri: str) -> None:
    store.data = b""
    assert storage.stat(uri).size == 0
    assert storage.read_bytes(uri) == b""
