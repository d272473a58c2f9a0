"""Files of this machine. Knows paths; nothing of other stores."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat as modes
from collections.abc import Iterator

from pipeline.errors import OpenError
from pipeline.stores.store import Entry
from pipeline.uris import local_path, local_uri

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


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """Turn what the system raises into OpenError."""
    try:
        yield
    except OSError as error:
        kind = _KINDS.get(error.errno or 0, "io_error")
        raise OpenError(kind, error.strerror or str(error), retryable=kind == "io_error") from error
    except ValueError as error:  # a NUL in the name
        raise OpenError("bad_uri", str(error)) from error


def stat(uri: str) -> Entry:
    """Look at a file; links are followed. Raises OpenError for what is no regular file."""
    path = _path(uri)
    found = os.stat(path)
    if not modes.S_ISREG(found.st_mode):
        raise OpenError("not_a_file", "it is a folder or a device, not a file")
    return _entry(path, found)


def is_dir(uri: str) -> bool:
    """Say whether it is a folder."""
    return os.path.isdir(_path(uri))


def walk(uri: str) -> Iterator[Entry]:
    """Yield every file under a folder, in the order of names. Each folder is entered once, so loops of links end.

    Memory goes with the largest single folder. What is neither file nor folder (sockets, devices) is left out.
    """
    seen: set[tuple[int, int]] = set()
    opened = [iter(_folder(_path(uri), seen))]
    while opened:
        entry = next(opened[-1], None)
        if entry is None:
            opened.pop()
        elif entry.is_dir():
            try:
                opened.append(iter(_folder(entry.path, seen)))
            except OSError as error:  # named, because it is not the folder that was asked for
                raise OSError(error.errno, f"{error.strerror}: {entry.path}") from error
        else:
            yield from _file(entry)


def reader(uri: str, version: str, start: int, ahead: int) -> io.RawIOBase:
    """Open a file."""
    stat(uri)  # a device or a pipe would block for ever
    file = open(_path(uri), "rb", buffering=0)  # noqa: SIM115 (who reads it closes it)
    file.seek(start)
    return file


def write(uri: str, data: bytes) -> None:
    """Write a whole file: `.NAME.tmp` beside it first, which a process that is killed may leave behind."""
    path = _path(uri)
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{name}.tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync(folder)


def move(source: str, target: str) -> None:
    """Rename a file in one step, over an old one if need be."""
    folder = os.path.dirname(_path(target))
    os.makedirs(folder, exist_ok=True)
    os.replace(_path(source), _path(target))
    _sync(folder)


def delete(uri: str) -> None:
    """Remove a file; one that is absent is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(_path(uri))


def names(uri: str) -> list[str]:
    """Return the names of the files directly in a folder; nothing if the folder is absent."""
    with contextlib.suppress(FileNotFoundError), os.scandir(_path(uri)) as entries:
        return [entry.name for entry in entries if entry.is_file()]
    return []


def _path(uri: str) -> str:
    path = local_path(uri)
    assert path is not None, uri
    return os.path.abspath(path)


def _entry(path: str, found: os.stat_result) -> Entry:
    return Entry(local_uri(path), found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


def _folder(path: str, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """Return the folder's entries by name; nothing if it was entered before by another name."""
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


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
