"""Stands between a job and a real store, passes on what comes, and fails from a chosen write on."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOPS = {"connection", "expect", "transfer-encoding", "keep-alive"}  # headers of one connection


class FailingProxy(ThreadingHTTPServer):
    """Counts the requests that change the store. `fail` says what goes wrong, `heal` that all is well again."""

    daemon_threads = True

    def __init__(self, store: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.store = urlsplit(store)
        self.heal()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fail(self, at: int, how: str) -> None:
        """Let the `at`th write from now on be `refused`, as all behind it, or its answer be lost.

        `lost` befalls the first alone, `lost for good` means that all behind it are refused.
        """
        self.heal()
        self.at, self.how = at, how

    def heal(self) -> None:
        """Pass everything on."""
        self.at, self.how, self.writes = 0, "", 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no matter."""


@contextmanager
def failing_proxy(store: str) -> Iterator[FailingProxy]:
    """Run a FailingProxy before the store at an endpoint."""
    proxy = FailingProxy(store)
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


class _Passing(BaseHTTPRequestHandler):
    server: FailingProxy
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = ""
        if self.command not in ("GET", "HEAD"):
            proxy.writes += 1
            if proxy.how and proxy.writes == proxy.at:
                fault = proxy.how
            elif proxy.how in ("refused", "lost for good") and proxy.writes > proxy.at:
                fault = "refused"
        if fault == "refused":
            self._answer(503, [("Content-Length", "0")], b"")
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOPS}
        connection = http.client.HTTPConnection(proxy.store.netloc, timeout=60)
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no polite end
            self.close_connection = True
            return
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOPS | {"content-length"}]
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self._answer(answer.status, [*kept, ("Content-Length", length or "0")], content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return
