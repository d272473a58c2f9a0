"""Tars -> what is in them: audio as windows of the tar, and the texts that lie beside it.

Duty: read the headers and no audio: what lies between is jumped over wherever the store can. Nothing is unpacked, and
the names of members are labels, never paths. Python's tarfile does the reading; here it gets a file that says no to
headers without bounds, and its silence at damage is looked through. Knows no recordings.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from pipeline import pieces, storage
from pipeline.errors import OpenError, UserError
from pipeline.storage import Entry

TAR = ".tar"
_TEXTS = (".txt", ".json", ".srt", ".vtt")
SUBTITLES = "subtitles"  # the key under which a .srt or .vtt travels
_LONGEST = 1 << 20  # bytes of a text
_PADDING = 1 << 20  # bytes that may follow the end mark
_LARGEST = 1 << 60  # bytes of a member
_NEAR = 512 << 10  # bytes that are read through rather than jumped over: a store's answer takes as long
_HEADERS = 64 << 10  # bytes of headers that a member may have: with long names and extensions it takes 2 KiB
_NOTES = 20  # of a tar that are told
# What tarfile raises at bytes that are no tar; RecursionError: extensions of extensions of extensions ...
_DAMAGE = (tarfile.TarError, ValueError, IndexError, KeyError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Member:
    """A piece of a tar that is audio."""

    name: str  # as the tar has it; bytes that are no UTF-8 as Python's surrogates
    nth: int  # of the members of this name
    size: int
    inside: str  # as `pieces` reads it


@dataclass
class Tar:
    """One tar. Iterate once for its audio; then the rest is known, too."""

    entry: Entry
    wanted: Callable[[str], bool]  # by name
    passed_over: int = 0  # files that are neither audio nor texts beside it
    damage: str = ""  # where it ends too early, or what is wrong with it
    notes: list[str] = field(default_factory=list)  # what else is to be said
    texts: dict[str, dict[str, Any]] = field(default_factory=dict)  # by stem: what the texts of that name say

    def __iter__(self) -> Iterator[Member]:
        """Yield the audio, up to the damage if there is any. Raises UserError if the store is in trouble."""
        names = Counter[int]()  # by hash: a name takes more memory
        try:
            with storage.open_audio(self.entry.location, self.entry.version, ahead=_HEADERS) as stream:
                headers = _Headers(stream, self.entry)
                for info in self._infos(headers):
                    if self.wanted(info.name):
                        names[hash(info.name)] += 1
                        yield Member(info.name, names[hash(info.name)], info.size, _inside(info))
                    elif info.name.lower().endswith(_TEXTS) and not info.issparse():
                        self._text(info, headers)
                    else:
                        self.passed_over += 1
        except OpenError as error:
            hint = "run the same command again later" if error.retryable else "check the name and the permissions"
            raise UserError(f"cannot read {self.entry.uri}: {error}", hint) from error

    def _infos(self, headers: _Headers) -> Iterator[tarfile.TarInfo]:
        """Yield the files; say in `damage` why there are no more, where that is not the end of the tar."""
        at = 0
        try:
            with tarfile.TarFile(fileobj=headers, encoding="utf-8", errors="surrogateescape") as tar:
                while (info := tar.next()) is not None:
                    cast(Any, tar).members.clear()  # it would keep all
                    if tar.offset <= at:
                        raise tarfile.ReadError("it leads back")
                    if not 0 <= info.size < _LARGEST:
                        raise tarfile.ReadError(f"a member has {info.size} bytes")
                    at = tar.offset
                    if info.isreg():
                        yield info
                    headers.allow()
                self._end(headers, tar.offset)
        except _DAMAGE as error:
            self.damage = f"the tar is damaged at or behind byte {at}: {error}"

    def _end(self, headers: _Headers, at: int) -> None:
        """See whether the tar ends here as tars do: tarfile does not say."""
        block = headers.data(at, tarfile.BLOCKSIZE)
        if block and (any(block) or len(block) < tarfile.BLOCKSIZE):
            self.damage = f"the tar is damaged or cut off at byte {at}: what stands there is no header"
        elif not block:
            self.notes.append(f"{self.entry.uri} has no end mark: it may have been cut off at byte {at}")
        elif any(headers.data(at, _PADDING)) or (self.entry.size or 0) > at + _PADDING:
            self.notes.append(f"{self.entry.uri} goes on behind its end at byte {at}; what comes there is not read")

    def _text(self, info: tarfile.TarInfo, headers: _Headers) -> None:
        """Keep what a text file says, for the audio of the same stem."""
        stem, kind = os.path.splitext(info.name)
        if info.size > _LONGEST:
            self._note(info.name, f"is longer than {_LONGEST} bytes")
            return
        try:
            text = headers.data(info.offset_data, info.size).decode("utf-8-sig")
            told = _told(kind.lower(), text)
        except (ValueError, RecursionError) as error:
            self._note(info.name, f"is no text in UTF-8, or no JSON: {error}")
            return
        known = self.texts.setdefault(stem, {})
        self.texts[stem] = told | known if kind.lower() == ".json" else known | told

    def _note(self, name: str, words: str) -> None:
        if len(self.notes) < _NOTES:
            self.notes.append(f"{storage.with_piece(self.entry.uri, 'member', name)} {words}")


def _told(kind: str, text: str) -> dict[str, Any]:
    """Return what a file of this ending says; subtitles stay as they are, until somebody wants their times."""
    if kind == ".json":
        return _described(json.loads(text))
    return {"reference": text.strip()} if kind == ".txt" else {SUBTITLES: text}


def _described(found: Any) -> dict[str, Any]:
    """Return the keys of a JSON object, its text as `reference`."""
    if isinstance(found, str):
        return {"reference": found}
    if not isinstance(found, dict):
        raise ValueError("neither an object nor a string")
    said = next((found[key] for key in ("reference", "text") if isinstance(found.get(key), str)), None)
    return found | ({} if said is None else {"reference": said})


def _inside(info: tarfile.TarInfo) -> str:
    if not info.issparse():
        return pieces.whole(info.offset_data, info.size)
    extents: list[pieces.Extent] = []
    where = info.offset_data
    for at, count in cast(Iterable[tuple[int, int]], info.sparse or ()):
        if count:
            extents.append((at, count, where))
            where += count
    return pieces.sparse(info.size, extents)


class _Headers(io.RawIOBase):
    """The tar as tarfile reads it: jumps are made where they pay, and headers have an end."""

    def __init__(self, stream: BinaryIO, entry: Entry) -> None:
        self._stream = stream
        self._size = entry.size
        self._near = 0 if storage.local_path(entry.location) is not None else _NEAR
        self._position = self._place = 0  # where tarfile is, where the stream is
        self._left = _HEADERS

    def allow(self) -> None:
        """Let the headers of the next member be read."""
        self._left = _HEADERS

    def read(self, size: int = -1) -> bytes:
        self._left -= max(size, 1)
        if size < 0 or self._left < 0:
            raise tarfile.ReadError(f"a member has more than {_HEADERS} bytes of headers")
        return self._read(size)

    def data(self, start: int, size: int) -> bytes:
        """Return the bytes of a member, and stay where tarfile is."""
        kept, self._position = self._position, start
        found = self._read(size)
        self._position = kept
        return found

    def _read(self, size: int) -> bytes:
        if self._size is not None and self._position >= self._size:
            return b""
        self._go()
        found = b""
        while len(found) < size and (more := self._stream.read(size - len(found))):
            found += more
        self._place = self._position = self._position + len(found)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or offset < 0:
            raise tarfile.ReadError("it leads to nowhere")
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position

    def _go(self) -> None:
        """Bring the stream to where tarfile is."""
        gap = self._position - self._place
        if gap < 0 or (gap > self._near and self._stream.seekable()):
            self._stream.seek(self._position)
        while gap > 0 and (gap <= self._near or not self._stream.seekable()):
            skipped = len(self._stream.read(min(gap, _LONGEST)))
            if not skipped:
                break
            gap -= skipped
        self._place = self._position
