"""A web server that holds one object and fails on demand: it speaks just enough of S3, Google, Azure and plain HTTP."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from s3_server import point_to
from store_servers import ACCOUNT, KEY, clear, point_to_google

PAGE = 1000  # names on a page of the listing, which has no end


class FaultyStore(ThreadingHTTPServer):
    """Serves one object under every name. `faults` says what goes wrong with the next answers, one an answer.

    Numbers are statuses. The others befall only answers with bytes: "truncate" and "reset" break them in the middle,
    "change" does so, too, and puts other bytes in place, "hang" falls silent.
    """

    daemon_threads = True

    def __init__(self, data: bytes, *, ranged: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Faulty)
        self.data = data
        self.generation = 1
        self.ranged = ranged
        self.validators = True  # ETag and date; without them a server says nothing of its version
        self.faults: list[str] = []
        self.ranges: list[str | None] = []  # what was asked for, of answers with bytes
        self.authorizations: list[str | None] = []
        self.paths: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def etag(self) -> str:
        return f'"v{self.generation}"'

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no matter."""


@contextmanager
def faulty_store(data: bytes, *, ranged: bool = True) -> Iterator[FaultyStore]:
    """Run a FaultyStore, with the environments of S3, Google and Azure pointing to it."""
    server = FaultyStore(data, ranged=ranged)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, server.endpoint)
        point_to_google(patch, server.endpoint)
        clear(patch, "AZURE_")
        patch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", f"{server.endpoint}/{ACCOUNT}")
        patch.setenv("AZURE_STORAGE_KEY", KEY)
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

    def do_POST(self) -> None:
        """Grant Google's access token."""
        self.rfile.read(int(self.headers["Content-Length"]))
        token = {"access_token": "granted", "expires_in": 3600, "token_type": "Bearer"}
        self._answer(200, json.dumps(token).encode(), {"Content-Type": "application/json"})

    def do_GET(self) -> None:
        store = self.server
        if self.path.startswith("/storage/v1/b/audio?"):  # Google's client asks for the bucket, in a thread of its own
            self._answer(404, b"", {})
            return
        store.authorizations.append(self.headers.get("Authorization"))
        store.paths.append(self.path)
        described = self.path.startswith("/storage/v1/")  # Google's description of the object, not its bytes
        bodiless = described or self.command == "HEAD"
        fault = ""
        if store.faults and (store.faults[0].isdigit() or not bodiless):
            fault = store.faults.pop(0)
        if not self._wanted():
            fault = "412"
        if fault.isdigit():
            self._answer(int(fault), b"", {})
        elif (page := self._page()) is not None:
            self._answer(200, page.encode(), {"Content-Type": "application/json" if described else "application/xml"})
        elif described:
            content = {"name": "a.mp3", "bucket": "audio", "size": len(store.data), "generation": store.generation}
            self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})
        else:
            self._object(fault)

    def _page(self) -> str | None:
        """Return a page of an endless listing, if one is asked for, in the words of the store that is asked for it."""
        query = parse_qs(urlsplit(self.path).query)
        token = query.get("continuation-token") or query.get("pageToken") or query.get("marker") or ["0"]
        number = int(token[0])
        names = [f"show/{number:09}-{index:03}.mp3" for index in range(PAGE)]
        if query.get("list-type") == ["2"]:
            items = "".join(f"<Contents><Key>{n}</Key><Size>1</Size><ETag>e</ETag></Contents>" for n in names)
            rest = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{number + 1}</NextContinuationToken>"
            return f"<ListBucketResult>{items}{rest}</ListBucketResult>"
        if query.get("comp") == ["list"]:
            inside = "<Content-Length>1</Content-Length><Etag>e</Etag><BlobType>BlockBlob</BlobType>"
            inside = f"<Properties>{inside}</Properties>"
            blobs = "".join(f"<Blob><Name>{n}</Name>{inside}</Blob>" for n in names)
            rest = f"<Blobs>{blobs}</Blobs><NextMarker>{number + 1}</NextMarker>"
            return f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults>{rest}</EnumerationResults>'
        if self.path.startswith("/storage/v1/b/audio/o?"):
            blobs_ = [{"name": n, "size": "1", "generation": "1", "bucket": "audio"} for n in names]
            return json.dumps({"items": blobs_, "nextPageToken": str(number + 1)})
        return None

    def _wanted(self) -> bool:
        """Say whether the client's condition on the version holds."""
        store = self.server
        generation = parse_qs(urlsplit(self.path).query).get("ifGenerationMatch", [str(store.generation)])
        return self.headers.get("If-Match") in (None, store.etag) and generation == [str(store.generation)]

    def _object(self, fault: str) -> None:
        store = self.server
        asked = self.headers.get("Range") or self.headers.get("x-ms-range")
        if self.command != "HEAD":
            store.ranges.append(asked)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "") if store.ranged else None
        start = int(found[1]) if found else 0
        if found and start >= len(store.data):
            words = f"<Error><Code>InvalidRange</Code><ActualObjectSize>{len(store.data)}</ActualObjectSize></Error>"
            self._answer(416, words.encode(), {"Content-Range": f"bytes */{len(store.data)}"})
            return
        body = store.data[start : int(found[2]) + 1 if found and found[2] else None]
        headers = {"x-ms-blob-type": "BlockBlob", "x-goog-generation": str(store.generation)}
        if store.validators:
            headers |= {"ETag": store.etag, "Last-Modified": f"Thu, 01 Jan 1970 00:00:0{store.generation} GMT"}
        if found:
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(store.data)}"
        self._answer(206 if found else 200, body, headers, fault)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], fault: str = "") -> None:
        store = self.server
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if fault else body)
        self.wfile.flush()
        if fault == "change":
            store.generation += 1
            store.data = bytes(len(store.data))
        if fault == "hang":
            time.sleep(2)
        if fault == "reset":  # no polite end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return
