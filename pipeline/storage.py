"""Where bytes are: list, stat and open audio by URI, and keep what is written.

Duty: local files and `s3://`, reading for the stages, reading and writing for the ledger. Transient trouble of a store
is retried here and nowhere else. Knows nothing of audio, manifests or tables.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat as modes
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from pipeline import s3
from pipeline.errors import OpenError, UserError
from pipeline.uris import address, against, bucket_key, canonical, join, local_path, local_uri, parent, redacted, scheme

__all__ = [
    "Entry",
    "address",
    "against",
    "canonical",
    "delete",
    "exists",
    "is_dir",
    "join",
    "local_path",
    "move",
    "names",
    "open_audio",
    "parent",
    "read_bytes",
    "redacted",
    "scheme",
    "stat",
    "walk",
    "write_bytes",
]


_PIECE = 1 << 20  # bytes: what a broken connection can make us read again


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a store. `version` changes when its bytes do: the etag, or size and time of change."""

    uri: str
    size: int | None  # bytes; None where the store names a file that cannot be looked at (a dangling link)
    version: str
    address: str = field(default="", repr=False)  # what opens it, where that holds a secret which `uri` leaves out

    @property
    def location(self) -> str:
        """What to open: secret, where the source named it with credentials."""
        return self.address or self.uri


# --- reading ------------------------------------------------------------------------------------------------------


def stat(uri: str) -> Entry:
    """Look at a file. Raises OpenError where it is absent, refused, or no file."""
    with _faults(uri):
        path = local_path(uri)
        if path is None:
            bucket, key = s3.object_of(uri)
            head = s3.client().head_object(Bucket=bucket, Key=key)
            return Entry(canonical(uri), head["ContentLength"], head["ETag"].strip('"'), address(uri))
        found = os.stat(path)
        if not modes.S_ISREG(found.st_mode):
            raise OpenError("not_a_file", "it is a folder or a device, not a file")
        return _entry(os.path.abspath(path), found)


def is_dir(uri: str) -> bool:
    """Say whether `uri` is a folder: in a store, whether anything lies under it. Raises UserError if refused."""
    path = local_path(uri)
    if path is not None:
        return os.path.isdir(path)
    bucket, key = bucket_key(uri)
    folder = key if key.endswith("/") or not key else key + "/"
    with _for_user("list", uri), s3.faults():
        s3.require(uri)
        return bool(s3.client().list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=1).get("KeyCount"))


def walk(uri: str) -> Iterator[Entry]:
    """Yield every file under a folder (local) or beginning with a prefix (`s3://`), in order of their names.

    Streams: memory goes with the largest single folder. Each folder is entered once, so loops of links end. What is
    neither file nor folder (sockets, devices) is left out. Raises UserError for a folder that cannot be read.
    """
    path = local_path(uri)
    return _walk_local(os.path.abspath(path)) if path is not None else _walk_s3(uri)


def open_audio(uri: str, version: str = "") -> BinaryIO:
    """Open a file for streaming. Opening and every read raise OpenError, after the retries, `retryable` if transient.

    A store's broken connection is resumed at its byte. With `version` (an etag) an object that has changed since it
    was listed is refused, so that a resumed read never mixes two versions.
    """
    with _faults(uri):
        path = local_path(uri)
        if path is not None:
            stat(uri)  # a device or a pipe would block for ever
            return cast(BinaryIO, _Guarded(open(path, "rb", buffering=0), uri))
        import smart_open.s3

        bucket, key = s3.object_of(uri)
        condition = {"S3.Client.get_object": {"IfMatch": f'"{version}"'}} if version else {}
        reader = smart_open.s3.open(bucket, key, "rb", client=s3.client(), client_kwargs=condition)
        return cast(BinaryIO, _Guarded(reader, uri))


class _Guarded(io.RawIOBase):
    """A reader whose faults come out as OpenError."""

    def __init__(self, inner: io.RawIOBase | io.BufferedIOBase, uri: str) -> None:
        self._inner = inner
        self._uri = uri

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

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


def _entry(path: str, found: os.stat_result) -> Entry:
    return Entry(local_uri(path), found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


def _walk_local(top: str) -> Iterator[Entry]:
    seen: set[tuple[int, int]] = set()
    opened = [iter(_folder(top, seen))]
    while opened:
        entry = next(opened[-1], None)
        if entry is None:
            opened.pop()
        elif entry.is_dir():
            opened.append(iter(_folder(entry.path, seen)))
        else:
            yield from _file(entry)


def _folder(path: str, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """Return the folder's entries by name; nothing if it was entered before by another name."""
    with _for_user("read the folder", local_uri(path)), _local_faults():
        found = os.stat(path)
        if (found.st_dev, found.st_ino) in seen:
            return []
        seen.add((found.st_dev, found.st_ino))
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))


def _file(entry: os.DirEntry[str]) -> Iterator[Entry]:
    try:
        found = entry.stat()
    except OSError:  # a dangling link, or removed meanwhile: it becomes a row with its reason when it is opened
        yield Entry(local_uri(entry.path), None, "")
        return
    if modes.S_ISREG(found.st_mode):
        yield _entry(entry.path, found)


def _walk_s3(uri: str) -> Iterator[Entry]:
    bucket, prefix = bucket_key(uri)
    with _for_user("list", uri), s3.faults():
        s3.require(uri)
        pages = iter(s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix))
    while True:
        with _for_user("list", uri), s3.faults():
            page = next(pages, None)
        if page is None:
            return
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):  # a folder's marker, made by some tools
                yield Entry(f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"].strip('"'))


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
    path = local_path(uri)
    with _for_user("write", uri), _faults(uri):
        if path is None:
            bucket, key = s3.object_of(uri)
            s3.client().put_object(Bucket=bucket, Key=key, Body=data)
            return
        folder, name = os.path.split(os.path.abspath(path))
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{name}.tmp")
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(folder)


def move(source: str, target: str) -> None:
    """Rename a file inside a store, over an old one if need be: one step locally, copy and delete on S3."""
    old, new = local_path(source), local_path(target)
    with _for_user("write", target), _faults(target):
        if old is not None and new is not None:
            folder = os.path.dirname(os.path.abspath(new))
            os.makedirs(folder, exist_ok=True)
            os.replace(old, new)
            _sync(folder)
            return
        (bucket, key), (to_bucket, to_key) = s3.object_of(source), s3.object_of(target)
        s3.client().copy_object(CopySource={"Bucket": bucket, "Key": key}, Bucket=to_bucket, Key=to_key)
        s3.client().delete_object(Bucket=bucket, Key=key)


def delete(uri: str) -> None:
    """Remove a file; one that is absent is fine."""
    path = local_path(uri)
    with _for_user("delete", uri), _faults(uri):
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
            return
        bucket, key = s3.object_of(uri)
        s3.client().delete_object(Bucket=bucket, Key=key)


def names(uri: str) -> list[str]:
    """Return the names of the files directly in a folder, sorted; nothing if the folder is absent."""
    path = local_path(uri)
    with _for_user("list", uri), _faults(uri):
        if path is not None:
            with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
                return sorted(entry.name for entry in entries if entry.is_file())
            return []
        s3.require(uri)
        bucket, key = bucket_key(uri)
        folder = key.rstrip("/") + "/" if key.strip("/") else ""
        pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder, Delimiter="/")
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return sorted(key.removeprefix(folder) for key in keys if key != folder)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- faults -------------------------------------------------------------------------------------------------------

_KINDS = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.EROFS: "forbidden",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.ENAMETOOLONG: "bad_uri",
    errno.ELOOP: "bad_uri",
}
_HINTS = {
    "forbidden": "check the permissions and credentials, or choose another place",
    "not_found": "check the name of the folder or bucket",
    "no_space": "free some space, then run the same command again: it goes on where it stopped",
}


def _faults(uri: str) -> AbstractContextManager[None]:
    return _local_faults() if scheme(uri) == "file" else s3.faults()


@contextlib.contextmanager
def _local_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = _KINDS.get(error.errno or 0, "io_error")
        raise OpenError(kind, error.strerror or str(error), retryable=kind == "io_error") from error
    except ValueError as error:  # a NUL in the name
        raise OpenError("bad_uri", str(error)) from error


@contextlib.contextmanager
def _for_user(verb: str, uri: str) -> Iterator[None]:
    """What stops the job, in words that help: trouble with folders and with the output."""
    try:
        yield
    except OpenError as error:
        later = "the store is in trouble: run the same command again later"
        hint = _HINTS.get(error.kind, later if error.retryable else "")
        raise UserError(f"cannot {verb} {canonical(uri)}: {error}", hint) from error
