"""A file of a store for ffmpeg to read back and forth, though it is not on this machine.

Duty: a web server on the loopback that answers ffmpeg's range requests from the store, and keeps the store's error for
whoever asked. So any container that ffmpeg can seek in is read only where it has to be: its index wherever that lies,
and the stretches that are wanted. Knows no containers and no stores: the opener that it is given does those.
"""

from __future__ import annotations

import re
import secrets
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO

from pipeline.errors import DecodeError
from pipeline.types import Pcm

_PIECE = 1 << 16  # bytes read from the store at a time
_HEAD = 1 << 19  # bytes at the start that are kept: ffmpeg reads them for each stretch anew. More than sockets hold
_AHEAD = 1 << 16  # bytes that may wait in the socket: what ffmpeg never reads is read in vain
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Served:
    """A file that is being served."""

    def __init__(self, opener: Callable[[], BinaryIO], size: int) -> None:
        """`opener` opens the file of `size` bytes anew, for reading from any byte."""
        self.opener, self.size = opener, size
        self.path = f"/{secrets.token_hex(16)}"  # others on this machine cannot guess it
        self.url = ""
        self.error: BaseException | None = None
        self._head: bytes | None = None  # until it is asked for
        self._lock = threading.Lock()

    def pieces(self, first: int) -> Generator[bytes, None, None]:
        """Yield the file from the byte `first` on; the store is asked only for what lies behind the head."""
        head = self._kept()
        yield head[first:]
        if first < len(head) == self.size:
            return
        with closing(self.opener()) as stream:
            stream.seek(max(first, len(head)))
            while piece := stream.read(_PIECE):
                yield piece

    def _kept(self) -> bytes:
        with self._lock:
            if self._head is None:
                with closing(self.opener()) as stream:
                    self._head = b""
                    while len(self._head) < min(_HEAD, self.size) and (piece := stream.read(_PIECE)):
                        self._head += piece
            return self._head

    def told(self, blocks: Iterator[Pcm]) -> Iterator[Pcm]:
        """Yield what ffmpeg makes of the file, and raise what went wrong between us and the store.

        That comes before what ffmpeg says, which knows only that its input ended.
        """
        try:
            yield from blocks
        except DecodeError:
            self._raise()
            raise
        self._raise()

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


@contextmanager
def served(opener: Callable[[], BinaryIO], size: int) -> Iterator[Served]:
    """Serve a file to processes of this machine as long as the context lasts."""
    file = Served(opener, size)
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"file": file})) as server:
        server.daemon_threads = True  # a store that never answers must not keep the process
        server.block_on_close = False
        file.url = f"http://127.0.0.1:{server.server_address[1]}{file.path}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="ranges", daemon=True)
        thread.start()
        try:
            yield file
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET with the bytes from the one that is asked for on."""

    file: Served

    def do_GET(self) -> None:
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = min(int(asked[2]), self.file.size - 1) if asked and asked[2] else self.file.size - 1
        if self.path != self.file.path or first > last:
            self.send_error(404 if self.path != self.file.path else 416)
            return
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AHEAD)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{self.file.size}")
        self.end_headers()
        try:
            self._send(first, last + 1 - first)
        except ConnectionError:  # ffmpeg has what it wanted
            self.close_connection = True
        except BaseException as error:  # noqa: BLE001 (a thread's error would be lost: the reader of the audio raises it)
            self.file.error = error
            self.close_connection = True

    def _send(self, first: int, count: int) -> None:
        with closing(self.file.pieces(first)) as pieces:
            for piece in pieces:
                self.wfile.write(piece[:count])
                count -= len(piece)
                if count <= 0:
                    return

    def log_message(self, format: str, *args: object) -> None:
        return
