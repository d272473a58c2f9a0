"""Pieces of files as streams: a member of a tar, the bytes in a row of a Parquet file.

Duty: open what `Recording.inside` says lies in a file. Knows bytes and rows, no audio; who finds the pieces stands in
`tars.py` and `datasets.py`.

    ""                       the whole file
    "bytes=512+2000"         2000 bytes from byte 512 on
    "sparse=9000:0+512@1024,4096+100@1536"    9000 zeros, but for 512 bytes from 0 on, which stand at byte 1024, ...
    "row=17&column=audio"    the bytes of that row
    "fault=damaged:words"    nothing that can be read, and why
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from typing import BinaryIO, cast

from pipeline import storage
from pipeline.errors import OpenError

Extent = tuple[int, int, int]  # where in the piece, how many bytes, where in the file
_BYTES = re.compile(r"bytes=(\d+)\+(\d+)")
_ROW = re.compile(r"row=(\d+)&column=(.*)", re.DOTALL)


def whole(start: int, size: int) -> str:
    """Return what says that a piece is `size` bytes from `start` on."""
    return f"bytes={start}+{size}"


def sparse(size: int, extents: Sequence[Extent]) -> str:
    """Return what says that a piece of `size` bytes is zeros but for its extents."""
    return f"sparse={size}:" + ",".join(f"{at}+{count}@{where}" for at, count, where in extents)


def row(number: int, column: str) -> str:
    """Return what says that a piece stands in a row, counted from 0."""
    return f"row={number}&column={column}"


def fault(kind: str, words: str) -> str:
    """Return what says why there is nothing to read."""
    return f"fault={kind}:{words}"


def open_piece(uri: str, version: str, inside: str) -> BinaryIO:
    """Open a file or a piece of it for streaming. Raises OpenError, as `storage.open_audio` does."""
    if not inside:
        return storage.open_audio(uri, version)
    kind, _, rest = inside.partition("=")
    if kind == "fault":
        why, _, words = rest.partition(":")
        raise OpenError(why, words)
    if found := _ROW.fullmatch(inside):
        from pipeline.datasets import value  # here, because only this needs Parquet

        return io.BytesIO(value(uri, version, int(found[1]), found[2]))
    extents, size = _extents(inside)
    return cast(BinaryIO, _Window(uri, version, extents, size))


def local_window(uri: str, inside: str) -> tuple[str, tuple[int, int] | None] | None:
    """Return path, and first byte and size of the piece, of what lies in one stretch of a file here; else None."""
    path, found = storage.local_path(uri), _BYTES.fullmatch(inside)
    if path is None or (inside and not found):
        return None
    if not found:
        return path, None
    start, size = int(found[1]), int(found[2])
    try:
        short = os.path.getsize(path) < start + size
    except OSError:
        return None
    return None if short else (path, (start, size))  # of a file that ends too early the stream tells


def size(inside: str) -> int | None:
    """Return how many bytes a piece has, where `inside` says so."""
    found = _BYTES.fullmatch(inside)
    return int(found[2]) if found else None


def _extents(inside: str) -> tuple[list[Extent], int]:
    if found := _BYTES.fullmatch(inside):
        return [(0, int(found[2]), int(found[1]))], int(found[2])
    size, _, listed = inside.removeprefix("sparse=").partition(":")
    numbers = [tuple(map(int, re.split("[+@]", one))) for one in listed.split(",") if one]
    return [(at, count, where) for at, count, where in numbers], int(size)


class _Window(io.RawIOBase):
    """A file as the extents of another one."""

    def __init__(self, uri: str, version: str, extents: Sequence[Extent], size: int) -> None:
        self._extents = extents
        self._size = size
        self._position = 0
        self._place = extents[0][2] if extents else 0  # in the file
        self._stream = storage.open_audio(uri, version, self._place)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        buffer = memoryview(buffer)
        left = min(len(buffer), self._size - self._position)
        if left <= 0:
            return 0
        extent = next((one for one in self._extents if self._position < one[0] + one[1]), (self._size, 0, 0))
        at, count, where = extent
        if self._position < at:  # zeros up to there
            read = min(left, at - self._position)
            buffer[:read] = bytes(read)
        else:
            read = self._read(buffer[: min(left, at + count - self._position)], where + self._position - at)
        self._position += read
        return read

    def _read(self, buffer: memoryview, place: int) -> int:
        if place != self._place:
            self._stream.seek(place)
        data = self._stream.read(len(buffer))
        if not data:
            raise OpenError("truncated", f"the file that it lies in ends {self._size - self._position} bytes too early")
        buffer[: len(data)] = data
        self._place = place + len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._stream.close()
        super().close()
