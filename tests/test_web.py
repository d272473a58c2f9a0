"""The web as a store: servers as they are, with and without ranges, sizes and versions; passwords and signatures."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from faulty_store import FaultyStore, faulty_store

from pipeline import storage
from pipeline.errors import OpenError, UserError
from pipeline.sources import resolve


@pytest.fixture
def store() -> Iterator[FaultyStore]:
    """A web server."""
    with faulty_store(b"audio") as server:
        yield server


def test_stat_reads_one_byte(store: FaultyStore) -> None:
    entry = storage.stat(f"{store.endpoint}/a.mp3")
    assert (entry.size, entry.version) == (5, "v1")
    assert store.ranges == ["bytes=0-0"]


def test_a_server_without_versions_is_read(store: FaultyStore) -> None:
    store.validators = False
    assert storage.stat(f"{store.endpoint}/a.mp3").version == "5"
    assert storage.read_bytes(f"{store.endpoint}/a.mp3") == b"audio"


def test_another_version_than_was_listed_is_read_all_the_same(store: FaultyStore) -> None:
    with storage.open_audio(f"{store.endpoint}/a.mp3", "other") as stream:
        assert stream.read() == b"audio"


def test_a_password_is_sent_and_not_shown(store: FaultyStore) -> None:
    address = store.endpoint.replace("://", "://me:secret@") + "/a.mp3"
    entry = storage.stat(address)
    assert store.authorizations == ["Basic " + base64.b64encode(b"me:secret").decode()]
    assert entry.uri == f"{store.endpoint}/a.mp3"
    assert entry.location == address
    assert "secret" not in repr(entry)


def test_a_signed_url_is_opened_with_its_signature(store: FaultyStore) -> None:
    address = f"{store.endpoint}/a.mp3?id=7&X-Amz-Signature=geheim"
    (recording,) = resolve([address]).recordings
    assert recording.uri == f"{store.endpoint}/a.mp3?id=7"
    assert storage.read_bytes(recording.location) == b"audio"
    assert store.paths == ["/a.mp3?id=7&X-Amz-Signature=geheim"] * 2
    assert "geheim" not in repr(recording)


def test_errors_do_not_show_the_secret(store: FaultyStore) -> None:
    address = store.endpoint.replace("://", "://me:secret@") + "/a.mp3?X-Amz-Signature=geheim"
    store.shutdown()
    store.server_close()
    storage.configure(storage.StoreOptions(store_attempts=1))
    for name in (address, address.replace("127.0.0.1", "nowhere.invalid")):
        with pytest.raises(OpenError) as caught:
            storage.open_audio(name)
        assert "secret" not in str(caught.value)
        assert "geheim" not in str(caught.value)
    storage.configure(storage.StoreOptions())


def test_folders_of_the_web_cannot_be_listed(store: FaultyStore) -> None:
    store.faults = ["404"]
    with pytest.raises(UserError) as caught:
        resolve([f"{store.endpoint}/talks/*.mp3"])
    assert "name each file" in caught.value.hint


def test_nothing_is_written_to_the_web(store: FaultyStore) -> None:
    with pytest.raises(UserError) as caught:
        storage.write_bytes(f"{store.endpoint}/out/x", b"")
    assert "s3://" in caught.value.hint


def test_what_cannot_be_an_address_is_told(store: FaultyStore) -> None:
    for name in ("http://", "http://[x/a.mp3", "http://h:port/a.mp3"):
        with pytest.raises(OpenError) as caught:
            storage.stat(name)
        assert caught.value.kind == "bad_uri"
