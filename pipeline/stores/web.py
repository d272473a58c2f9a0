"""The web, http and https: reading only, for a web server has neither folders nor places to write.

A file is one GET. Sizes come from a GET of its first byte, not from HEAD, which signed URLs refuse and many servers
answer wrongly. A connection that breaks is taken up at its byte where the server can do ranges; elsewhere the file is
read again from its start. Either way the server must still say the same version (ETag, or date and length).
Passwords stand in the URI or in ~/.netrc. Knows nothing of other stores.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.errors import OpenError
from pipeline.stores.options import CONNECT_S, READ_S
from pipeline.stores.store import Entry
from pipeline.stores.trying import Busy, resumed, tried
from pipeline.uris import address, canonical

if TYPE_CHECKING:
    import requests

_KINDS = {401: "forbidden", 403: "forbidden", 404: "not_found", 407: "forbidden", 410: "not_found", 412: "changed"}
_TRANSIENT = frozenset({408, 425, 429})
_PIECE = 1 << 20  # bytes read at once and thrown away, to come to where a connection broke

_local = threading.local()


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Turn what requests and urllib3 raise into OpenError."""
    import requests
    import urllib3

    try:
        yield
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError) as error:
        raise OpenError("bad_uri", str(error)) from error
    except requests.exceptions.TooManyRedirects as error:
        raise OpenError("refused", str(error)) from error
    except requests.exceptions.HTTPError as error:
        raise _refused(error.response) from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise OpenError("insecure", _short(error)) from error
        raise Busy(_short(error)) from error


def stat(uri: str) -> Entry:
    """Ask for the first byte; the answer tells the size and the version of the whole."""
    with contextlib.closing(tried(faults, lambda: _get(uri, {"Range": "bytes=0-0"}))) as stream:
        return Entry(canonical(uri), _size(stream.response), _version(stream.response), address(uri))


def ranged(uri: str) -> bool:
    """Say whether the server gives parts of the file."""
    with contextlib.closing(tried(faults, lambda: _get(uri, {"Range": "bytes=0-0"}))) as stream:
        return bool(stream.response.status_code == 206)


def is_dir(uri: str) -> bool:
    """Nothing is a folder here."""
    return False


def walk(uri: str) -> Iterator[Entry]:
    """There is nothing to list."""
    raise OpenError("no_listing", "a web server does not say what it has")


def reader(uri: str, version: str, start: int, ahead: int) -> io.RawIOBase:
    """Open a file. `version` is not held against the server: many have another for each answer."""
    file = _File(uri)
    return resumed(faults, file.open_at, lambda: file.size, start)


def write(uri: str, data: bytes) -> None:
    """Cannot be."""
    raise OpenError("read_only", "nothing can be written to the web")


def move(source: str, target: str) -> None:
    """Cannot be."""
    raise OpenError("read_only", "nothing can be written to the web")


def delete(uri: str) -> None:
    """Cannot be."""
    raise OpenError("read_only", "nothing can be removed from the web")


def names(uri: str) -> list[str]:
    """Cannot be told."""
    raise OpenError("no_listing", "a web server does not say what it has")


class _File:
    """One version of a file, that of its first answer."""

    def __init__(self, uri: str) -> None:
        self.size: int | None = None
        self._uri = uri
        self._version: str | None = None

    def open_at(self, position: int) -> tuple[io.BufferedIOBase, bool]:
        """Return the stream from `position` on, and whether the server spared us what lies before it."""
        stream = _get(self._uri, {"Range": f"bytes={position}-"} if position else {})
        try:
            return stream, self._settle(stream, position)
        except BaseException:
            stream.close()
            raise

    def _settle(self, stream: Any, position: int) -> bool:
        version = _version(stream.response)
        if self._version is None:
            self.size, self._version = _size(stream.response), version
        if version != self._version or (stream.response.status_code == 416 and position != self.size):
            raise OpenError("changed", "the file changed while it was read", retryable=True)
        if stream.response.status_code == 206:
            if _first(stream.response) != position:
                raise OpenError("refused", "the server sent another range than it was asked for")
            return True
        while position > 0 and stream.response.status_code == 200:
            skipped = len(stream.read(min(position, _PIECE)))
            if not skipped:
                raise OpenError("changed", "the file became shorter while it was read", retryable=True)
            position -= skipped
        return False


def _get(uri: str, headers: dict[str, str]) -> Any:
    """Return smart_open's stream of an answer: 200, 206, or 416 with nothing in it."""
    import requests
    import smart_open.http

    headers = {"Accept-Encoding": "identity", **headers}
    try:
        return smart_open.http.BufferedInputBase(
            uri,
            headers=headers,
            session=_session(),
            timeout=(CONNECT_S, READ_S),  # type: ignore[arg-type]  # handed to requests, which takes both
        )
    except requests.exceptions.HTTPError as error:
        if error.response is not None and error.response.status_code == 416:
            return _Nothing(error.response)
        raise


class _Nothing(io.BytesIO):
    """The stream behind the end of a file."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__()
        self.response = response


def _session() -> requests.Session:
    """Return the session of this thread: connections are kept, cookies are not."""
    import requests

    session: requests.Session | None = getattr(_local, "session", None)
    if session is None or _local.pid != os.getpid():
        session = requests.Session()
        session.headers["User-Agent"] = f"bulkscribe/{importlib.metadata.version('bulkscribe')}"
        _local.session, _local.pid = session, os.getpid()
    session.cookies.clear()
    return session


def _size(response: requests.Response) -> int | None:
    """Return the size of the whole file in bytes, whatever part of it was sent; None where nothing says it."""
    if response.status_code in (206, 416):
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isdecimal() else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _first(response: requests.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _version(response: requests.Response) -> str:
    etag = response.headers.get("ETag", "").removeprefix("W/").strip('"')
    date = response.headers.get("Last-Modified", "")
    size = _size(response)
    return etag or f"{'' if size is None else size}-{date}".strip("-")


def _refused(response: requests.Response | None) -> OpenError:
    if response is None:
        return Busy("no answer")
    status = response.status_code
    message = f"{response.reason or 'refused'} ({status})"
    if status >= 500 or status in _TRANSIENT:
        after = response.headers.get("Retry-After", "")
        return Busy(message, float(after) if after.isdecimal() else 0.0)
    return OpenError(_KINDS.get(status, "refused"), message)


def _short(error: BaseException) -> str:
    """Return the innermost cause in its own words: requests wraps three layers, each with the whole URL."""
    inner: Any = error
    while isinstance(inner.args[:1], tuple) and inner.args and isinstance(inner.args[-1], BaseException):
        inner = inner.args[-1]
    inner = getattr(inner, "reason", None) or inner
    return re.sub(r"<[^<>]*>: ", "", str(inner)) or type(inner).__name__
