"""A plain web server over a folder, for tests: no ranges, and if wanted nothing without its password or signature."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD, SIGNATURE = "me", "p4ssw0rd", "5ignature"


@contextmanager
def web_server(folder: Path, *, closed: bool = False) -> Iterator[str]:
    """Serve a folder; `closed` asks for a password or signature. Yield its address."""
    with serving(partial(_Closed if closed else _Open, directory=str(folder))) as address:
        yield address


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer requests with `handler`; yield the server's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Open(SimpleHTTPRequestHandler):
    def copyfile(self, source: object, outputfile: object) -> None:
        try:
            super().copyfile(source, outputfile)  # type: ignore[type-var]
        except ConnectionError:  # the client had enough
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return


class _Closed(_Open):
    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        signature = parse_qs(urlsplit(self.path).query).get("X-Amz-Signature")
        if self.headers.get("Authorization") == wanted or signature == [SIGNATURE]:
            super().do_GET()
        else:
            self.send_error(403)
