"""A real S3 server on this machine, for tests: moto's, and one in front of objects that fails on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve an empty S3 with one bucket `audio`, with the environment pointing to it; yield its endpoint."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, f"http://{host}:{port}")
        client = boto3.session.Session().client("s3")
        client.create_bucket(Bucket="audio")
        try:
            yield f"http://{host}:{port}"
        finally:
            for item in client.list_objects_v2(Bucket="audio").get("Contents", []):
                client.delete_object(Bucket="audio", Key=item["Key"])
            client.delete_bucket(Bucket="audio")
            client.close()
            server.stop()


def point_to(patch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Set the environment that the AWS tools read."""
    patch.setenv("AWS_ENDPOINT_URL", endpoint)
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_MAX_ATTEMPTS", "2")
    patch.setenv("AWS_CONFIG_FILE", "/dev/null")
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        patch.delenv(name, raising=False)


class FaultyStore(ThreadingHTTPServer):
    """Serves one object under every key, with ranges; `faults` says what goes wrong with the next answers."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Faulty)
        self.data = data
        self.etag = '"first"'
        self.faults: list[str] = []  # "503", "403", "truncate", "change": taken one an answer
        self.ranges: list[str | None] = []  # what was asked for
        self.authorizations: list[str | None] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def faulty_store(data: bytes) -> Iterator[FaultyStore]:
    """Run a FaultyStore, with the environment pointing to it."""
    server = FaultyStore(data)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, server.endpoint)
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Faulty(BaseHTTPRequestHandler):
    server: FaultyStore
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        store = self.server
        fault = store.faults.pop(0) if store.faults else ""
        asked = self.headers.get("Range")
        store.ranges.append(asked)
        store.authorizations.append(self.headers.get("Authorization"))
        wanted = self.headers.get("If-Match")
        if wanted not in (None, store.etag):
            fault = "412"
        if fault.isdigit():
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        body = store.data[start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", store.etag)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(store.data) - 1}/{len(store.data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "change":
            store.etag = '"second"'
        if fault in ("truncate", "change"):
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return
