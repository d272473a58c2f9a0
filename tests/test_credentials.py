"""Whose word opens a store: keys, tokens and accounts where each ecosystem keeps them, or nobody's."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from faulty_store import faulty_store
from s3_server import s3_server
from store_servers import ACCOUNT, KEY, azurite

from pipeline import storage
from pipeline.errors import UserError
from pipeline.sources import resolve
from pipeline.storage import StoreOptions


def test_a_key_in_an_s3_uri_signs_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_store(b"audio") as store:
        (recording,) = resolve(["s3://mykey:se/cret@audio/a.mp3"]).recordings
        assert storage.read_bytes(recording.location) == b"audio"
        assert recording.uri == "s3://audio/a.mp3"
        assert "cret" not in repr(recording)
        assert all("Credential=mykey/" in (one or "") for one in store.authorizations)


def test_a_listing_hands_its_key_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server():
        storage.write_bytes("s3://audio/show/a.mp3", b"1")
        for source in ("s3://mykey:se/cret@audio/show/", "s3://mykey:se/cret@audio/s*/*.mp3"):
            (recording,) = resolve([source]).recordings
            assert recording.uri == "s3://audio/show/a.mp3"
            assert recording.location == "s3://mykey:se/cret@audio/show/a.mp3"


def test_an_endpoint_that_is_no_address_is_the_users_error() -> None:
    storage.configure(StoreOptions(endpoint_url="minio.local"))
    try:
        with pytest.raises(UserError) as caught:
            storage.exists("s3://audio/a.mp3")
    finally:
        storage.configure(StoreOptions())
    assert "--endpoint-url" in caught.value.hint


def test_a_service_account_of_google_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with faulty_store(b"audio") as store:
        content = {"type": "service_account", "private_key": private.decode(), "client_email": "me@x.test"}
        content |= {"token_uri": f"{store.endpoint}/token", "project_id": "p", "private_key_id": "1"}
        (tmp_path / "key.json").write_text(json.dumps(content))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        assert storage.read_bytes("gs://audio/a.mp3") == b"audio"
        assert set(store.authorizations) == {"Bearer granted"}


def test_without_credentials_google_is_asked_anonymously() -> None:
    with faulty_store(b"audio") as store:
        assert storage.read_bytes("gs://audio/a.mp3") == b"audio"
        assert set(store.authorizations) == {None}


def test_broken_credentials_of_google_are_the_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_store(b"audio"):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "no.json"))
        with pytest.raises(UserError, match="credentials"):
            storage.exists("gs://audio/a.mp3")


def test_azure_opens_by_token_connection_string_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ResourceTypes, generate_account_sas

    with azurite() as address:
        storage.write_bytes("az://audio/show/a.mp3", b"1")
        with BlobServiceClient(address, {"account_name": ACCOUNT, "account_key": KEY}) as client:
            client.create_container("public", public_access="container")
        storage.write_bytes("az://public/a.mp3", b"2")
        sas = generate_account_sas(
            ACCOUNT,
            KEY,
            ResourceTypes(container=True, object=True),
            AccountSasPermissions(read=True, list=True, write=True, delete=True),
            datetime.now(timezone.utc) + timedelta(hours=1),
        )
        monkeypatch.delenv("AZURE_STORAGE_KEY")

        for source in (f"az://audio/show/a.mp3?{sas}", f"az://audio/show?{sas}", f"az://audio/*/*.mp3?{sas}"):
            (recording,) = resolve([source]).recordings
            assert recording.uri == "az://audio/show/a.mp3"
            assert storage.read_bytes(recording.location) == b"1"
        storage.write_bytes(storage.join(f"az://audio/out?{sas}", "x"), b"3")
        storage.move(storage.join(f"az://audio/out?{sas}", "x"), storage.join(f"az://audio/out?{sas}", "y"))
        assert storage.names(f"az://audio/out?{sas}") == ["y"]

        (recording,) = resolve(["az://public/"]).recordings
        assert storage.read_bytes(recording.location) == b"2"
        with pytest.raises(UserError, match="cannot list"):
            resolve(["az://audio/"])

        words = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={address}"
        monkeypatch.delenv("AZURE_STORAGE_SERVICE_ENDPOINT")
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", words)
        assert storage.read_bytes("az://audio/show/a.mp3") == b"1"


def test_azure_needs_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_ENDPOINT", "CONNECTION_STRING", "ACCOUNT", "ACCOUNT_NAME"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    with pytest.raises(UserError) as caught:
        storage.exists("az://audio/a.mp3")
    assert "AZURE_STORAGE_ACCOUNT" in caught.value.hint


def test_a_broken_key_of_azure_is_the_users_error_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=s3cret;nonsense")
    with pytest.raises(UserError) as caught:
        storage.exists("az://audio/a.mp3")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "package", "extra"), [("gs://b/a", "google.cloud.storage", "gcs"), ("az://b/a", "azure.identity", "azure")]
)
def test_a_missing_extra_is_a_line_with_a_hint(tmp_path: Path, uri: str, package: str, extra: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from jobs import main; main()"
    words = [sys.executable, "-c", code, "transcribe", uri, "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"hint: pip install -c constraints.txt -e '.[{extra}]'"


def test_a_password_is_sent_as_it_is_written() -> None:
    with faulty_store(b"audio") as store:
        storage.read_bytes(store.endpoint.replace("://", "://me:p%40ss@") + "/a.mp3")
        assert store.authorizations == ["Basic " + base64.b64encode(b"me:p@ss").decode()]
