"""Where bytes are: list, stat and open audio by URI, and keep what is written.

Duty: choose the store that a URI means (`pipeline/stores/`), and say what its trouble means: OpenError where a
recording is read, UserError where a folder is listed or the output is written. No message holds a secret. Knows nothing
of audio, manifests or tables.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Iterator
from typing import BinaryIO, cast

from pipeline.errors import OpenError, UserError
from pipeline.stores.options import StoreOptions, configure, configured
from pipeline.stores.store import AHEAD, Entry, Store
from pipeline.uris import (
    AZURE_SCHEMES,
    GCS_SCHEMES,
    S3_SCHEMES,
    WEB_SCHEMES,
    address,
    against,
    canonical,
    join,
    lend,
    local_path,
    parent,
    piece_name,
    redacted,
    scheme,
    split_piece,
    suffix,
    with_piece,
)

__all__ = [
    "Entry",
    "StoreOptions",
    "address",
    "against",
    "canonical",
    "configure",
    "configured",
    "delete",
    "exists",
    "is_dir",
    "join",
    "lend",
    "lists",
    "local_path",
    "move",
    "names",
    "open_audio",
    "parent",
    "piece_name",
    "ranged",
    "read_bytes",
    "redacted",
    "scheme",
    "split_piece",
    "stat",
    "suffix",
    "walk",
    "with_piece",
    "write_bytes",
]

_PIECE = 1 << 20  # bytes: what a broken connection can make us read again
_MODULES = {
    "file": "local",
    **dict.fromkeys(S3_SCHEMES, "s3"),
    **dict.fromkeys(GCS_SCHEMES, "gcs"),
    **dict.fromkeys(AZURE_SCHEMES, "azure"),
    **dict.fromkeys(WEB_SCHEMES, "web"),
}


# --- reading ------------------------------------------------------------------------------------------------------


def stat(uri: str) -> Entry:
    """Look at a file. Raises OpenError where it is absent, refused, or no file."""
    with _faults(uri):
        return _store(uri).stat(uri)


def lists(uri: str) -> bool:
    """Say whether the store of `uri` can say what is in a folder: the web cannot."""
    return scheme(uri) not in WEB_SCHEMES


def is_dir(uri: str) -> bool:
    """Say whether `uri` is a folder: in a store, whether anything lies under it. Raises UserError if refused."""
    with _for_user("list", uri), _faults(uri):
        return _store(uri).is_dir(uri)


def walk(uri: str) -> Iterator[Entry]:
    """Yield every file under a folder (local) or beginning with a prefix (stores), in order of their names.

    Streams: memory goes with a page of the store, or the largest single folder here. Each folder is entered once, so
    loops of links end. What is neither file nor folder (sockets, devices) is left out. Raises UserError for what cannot
    be listed.
    """
    with _for_user("list", uri), _faults(uri):
        yield from _store(uri).walk(uri)


def open_audio(uri: str, version: str = "", start: int = 0, ahead: int = AHEAD) -> BinaryIO:
    """Open a file for streaming, from the byte `start` on.

    Opening and every read raise OpenError, after the retries, `retryable` if transient. A store's broken connection is
    resumed at its byte. With `version` an object that has changed since it was listed is refused, so that a resumed
    read never mixes two versions. (On the web, where versions are hearsay, only one read is held to be of one version.)
    Stores that are asked piece by piece are asked for `ahead` bytes at a time.
    """
    with _faults(uri):
        return cast(BinaryIO, _Guarded(_store(uri).reader(uri, version, start, ahead), uri))


def ranged(uri: str) -> bool:
    """Say whether any part of the file can be had without what lies before it. Raises OpenError as `stat` does."""
    if scheme(uri) not in WEB_SCHEMES:
        return True
    from pipeline.stores import web

    with _faults(uri):
        return web.ranged(uri)


class _Guarded(io.RawIOBase):
    """A reader whose faults come out as OpenError."""

    def __init__(self, inner: io.RawIOBase | io.BufferedIOBase, uri: str) -> None:
        self._inner = inner
        self._uri = uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._inner.seekable()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _faults(self._uri):
            return self._inner.readinto(buffer) or 0

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(_PIECE), b""))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _faults(self._uri):
            return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def close(self) -> None:
        self._inner.close()
        super().close()


# --- writing: all its trouble is the user's, so it comes as UserError -----------------------------------------------


def exists(uri: str) -> bool:
    """Say whether the file is there."""
    with _for_user("look at", uri):
        try:
            stat(uri)
        except OpenError as error:
            if error.kind != "not_found":
                raise
            return False
        return True


def read_bytes(uri: str) -> bytes:
    """Return the whole file. Raises OpenError."""
    with open_audio(uri) as stream:
        return stream.read()


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file, so that readers see the old one or the new one, and it outlasts a power cut.

    Locally a file `.NAME.tmp` beside it is written first; a process that is killed may leave that behind.
    """
    with _for_user("write", uri), _faults(uri):
        _store(uri).write(uri, data)


def move(source: str, target: str) -> None:
    """Rename a file inside a store, over an old one if need be: one step locally, copy and delete elsewhere."""
    with _for_user("write", target), _faults(target):
        _store(target).move(source, target)


def delete(uri: str) -> None:
    """Remove a file; one that is absent is fine."""
    with _for_user("delete", uri), _faults(uri):
        _store(uri).delete(uri)


def names(uri: str) -> list[str]:
    """Return the names of the files directly in a folder, sorted; nothing if the folder is absent."""
    with _for_user("list", uri), _faults(uri):
        return sorted(_store(uri).names(uri))


# --- stores and their faults ----------------------------------------------------------------------------------------

_HINTS = {
    "forbidden": "check the permissions and credentials, or choose another place",
    "not_found": "check the name of the folder or bucket",
    "no_space": "free some space, then run the same command again: it goes on where it stopped",
    "read_only": "give a folder, or a prefix in s3://, gs:// or az://",
    "no_listing": "the web has no folders that can be listed: name each file, or a manifest or feed that does",
}


def _store(uri: str) -> Store:
    """Return the module of a URI's store; OpenError for a scheme that has none."""
    if scheme(uri) not in _MODULES:
        raise OpenError("unsupported", f"{scheme(uri)}:// is not a store that can be read")
    return cast(Store, importlib.import_module(f"pipeline.stores.{_MODULES[scheme(uri)]}"))


@contextlib.contextmanager
def _faults(uri: str) -> Iterator[None]:
    """The store's errors as OpenError, without secrets: libraries put whole URLs into their messages."""
    try:
        with _store(uri).faults():
            yield
    except OpenError as error:
        shown = redacted(str(error))
        if shown == str(error):
            raise
        raise OpenError(error.kind, shown, retryable=error.retryable) from None


@contextlib.contextmanager
def _for_user(verb: str, uri: str) -> Iterator[None]:
    """What stops the job, in words that help: trouble with folders and with the output."""
    try:
        yield
    except OpenError as error:
        later = "the store is in trouble: run the same command again later"
        hint = _HINTS.get(error.kind, later if error.retryable else "")
        raise UserError(f"cannot {verb} {canonical(uri)}: {error}", hint) from error
