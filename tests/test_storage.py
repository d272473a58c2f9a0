from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_store import faulty_store
from s3_server import s3_server

from pipeline import storage
from pipeline.errors import OpenError, UserError
from pipeline.stores import s3


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


def test_a_name_with_a_newline_survives(tmp_path: Path) -> None:
    uri = str(tmp_path / "line 1\nline 2.mp3")
    storage.write_bytes(uri, b"x")
    assert [entry.uri for entry in storage.walk(str(tmp_path))] == [uri]


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(OpenError) as caught:
        storage.open_audio(str(tmp_path / "pipe.wav"))
    assert caught.value.kind == "not_a_file"
    assert list(storage.walk(str(tmp_path))) == []


def test_a_name_with_nul_is_an_open_error() -> None:
    with pytest.raises(OpenError) as caught:
        storage.stat("/tmp/a\0b.wav")
    assert caught.value.kind == "bad_uri"


def test_unknown_schemes_are_open_errors() -> None:
    with pytest.raises(OpenError) as caught:
        storage.open_audio("ftp://host/a.wav")
    assert caught.value.kind == "unsupported"


def test_loops_of_links_end_and_each_folder_is_walked_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.mp3").write_bytes(b"")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert [entry.uri for entry in storage.walk(str(tmp_path))] == [str(tmp_path / "a" / "x.mp3")]


def test_a_dangling_link_is_listed_without_size(tmp_path: Path) -> None:
    (tmp_path / "gone.mp3").symlink_to(tmp_path / "nothing")
    assert list(storage.walk(str(tmp_path))) == [storage.Entry(str(tmp_path / "gone.mp3"), None, "")]


def test_names_that_are_not_utf8_are_listed_and_read(tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.mp3")
    with open(name, "wb") as file:
        file.write(b"x")
    (entry,) = storage.walk(str(tmp_path))
    assert entry.uri == f"file://{tmp_path}/caf%E9.mp3"
    assert storage.read_bytes(entry.uri) == b"x"


def test_listing_what_is_absent_is_the_users_error(tmp_path: Path, endpoint: str) -> None:
    for place in (str(tmp_path / "no"), "s3://no-such-bucket/x/"):
        with pytest.raises(UserError) as caught:
            list(storage.walk(place))
        assert caught.value.hint


def test_writing_under_a_file_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        storage.write_bytes(str(tmp_path / "file" / "x"), b"")


def test_a_full_disk_is_the_users_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / ".part.tmp").symlink_to("/dev/full")  # refuses every byte, as a full disk does
    with pytest.raises(UserError) as caught:
        storage.write_bytes(str(tmp_path / "part"), b"x")
    assert "free some space" in caught.value.hint
    assert not (tmp_path / "part").exists()


def test_a_killed_write_leaves_the_old_bytes(tmp_path: Path) -> None:
    target = tmp_path / "part.parquet"
    storage.write_bytes(str(target), b"old")
    script = (
        "import os, signal, sys; from pipeline import storage\n"
        "os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
        "storage.write_bytes(sys.argv[1], b'new')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    assert ended.returncode == -9
    assert target.read_bytes() == b"old"


def test_a_truncated_body_is_resumed_at_its_byte() -> None:
    data = os.urandom(1_000_000)
    with faulty_store(data) as store:
        store.faults = ["truncate"]
        assert storage.read_bytes("s3://audio/a.mp3") == data
        start = store.ranges[1]
    assert start is not None
    assert int(start.removeprefix("bytes=").removesuffix("-")) > 0


def test_server_errors_are_tried_again() -> None:
    with faulty_store(b"audio") as store:
        store.faults = ["503"]
        assert storage.read_bytes("s3://audio/a.mp3") == b"audio"


def test_lasting_server_errors_are_retryable_open_errors() -> None:
    with faulty_store(b"audio") as store:
        store.faults = ["503"] * 10
        with pytest.raises(OpenError) as caught:
            storage.read_bytes("s3://audio/a.mp3")
    assert (caught.value.kind, caught.value.retryable) == ("unavailable", True)


def test_a_store_that_is_gone_is_a_retryable_open_error() -> None:
    with faulty_store(b"") as store:
        store.shutdown()
        store.server_close()
        with pytest.raises(OpenError) as caught:
            storage.stat("s3://audio/a.mp3")
    assert (caught.value.kind, caught.value.retryable) == ("unavailable", True)


def test_trouble_in_the_middle_of_reading_is_an_open_error() -> None:
    with faulty_store(os.urandom(1_000_000)) as store:
        store.faults = ["truncate", "403"]
        with storage.open_audio("s3://audio/a.mp3") as stream:
            assert stream.read(1000)
            with pytest.raises(OpenError) as caught:
                stream.read()
    assert (caught.value.kind, caught.value.retryable) == ("forbidden", False)


def test_an_object_that_changes_while_it_is_read_is_refused() -> None:
    with faulty_store(os.urandom(1_000_000)) as store:
        store.faults = ["change"]
        with storage.open_audio("s3://audio/a.mp3", version="v1") as stream, pytest.raises(OpenError) as caught:
            stream.read()
    assert (caught.value.kind, caught.value.retryable) == ("changed", True)


def test_refusal_is_forbidden() -> None:
    with faulty_store(b"audio") as store:
        store.faults = ["403"]
        with pytest.raises(OpenError) as caught:
            storage.open_audio("s3://audio/a.mp3")
    assert (caught.value.kind, caught.value.retryable) == ("forbidden", False)


def test_without_credentials_requests_are_anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_store(b"audio") as store:
        storage.read_bytes("s3://audio/a.mp3")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        storage.read_bytes("s3://audio/a.mp3")
        signed, anonymous = store.authorizations
    assert signed is not None
    assert anonymous is None


def test_a_profile_that_is_not_there_is_the_users_error(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError, match="nobody"):
        storage.exists("s3://audio/a.mp3")


def test_the_client_is_made_once(endpoint: str) -> None:
    assert s3.client() is s3.client()


def test_a_forked_process_makes_its_own_client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = s3.client()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert s3.client() is not first


def test_entries_cross_process_borders() -> None:
    entry = storage.Entry("s3://audio/a.mp3", 3, "v")
    assert pickle.loads(pickle.dumps(entry)) == entry
