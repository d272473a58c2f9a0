"""What the user names (files, folders, globs, prefixes, manifests, feeds, tars, audio in Parquet) -> Recordings.

Duty: the list of a job's recordings, each once. Knows no audio: whether a file can be read is found out when it is
cut, and an absent line of a manifest ends as a row there.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import chain, islice

from pipeline import datasets, hops, pieces, storage
from pipeline.errors import OpenError, UserError
from pipeline.feeds import FEEDS, is_feed, read_feed
from pipeline.manifests import MANIFESTS, Line, as_json, read_manifest
from pipeline.recordings import Index, Recordings
from pipeline.spool import Spool
from pipeline.storage import Entry
from pipeline.tars import TAR, Tar
from pipeline.types import Recording

# What is taken from a folder. A file that is named itself is taken whatever its ending.
_MEDIA = re.compile(
    r"""\.(3ga|aac|ac3|aifc?|aiff|alac|amr|ape|au|awb|caf|dts|dsf|eac3|flac|g722|gsm|m4a|m4b|m4r|mka|mp2|mp3|mpc|mpga
    |oga|ogg|oma|opus|ra|sln|snd|spx|tta|voc|w64|wave?|weba|wma|wv
    |3g2|3gp|asf|avi|divx|f4v|flv|m2ts|m4v|mkv|mov|mp4|mpe?g|mts|mxf|ogv|rm|rmvb|ts|vob|webm|wmv)\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_MAGIC = re.compile(r"[*?[]")
_TOGETHER = 4096  # lines of a manifest that are looked at, and recordings that are held as objects
_SHARE = 16  # of them a thread takes at a time: to hand a line over costs as much as to look at a local file
_LOOKERS = 32  # at a time: a store answers each in tens of milliseconds
_FOOTER = 64 << 10  # bytes that are asked for at once of a Parquet file whose columns are looked at
_OPENED = 16  # files whose pieces are known at a time, where a manifest names them one by one
_AHEAD = 64  # tars that are listed before the first one's members are taken


@dataclass(frozen=True, slots=True)
class Listing:
    """The recordings of a job, in the order of the sources, and what was left out."""

    recordings: Recordings
    passed_over: int  # files of folders and tars whose ending is neither audio nor video
    doubles: int  # times that a recording was named again
    notes: tuple[str, ...] = ()  # what was odd about the sources, a line each


def resolve(sources: Sequence[str]) -> Listing:
    """List the recordings that `sources` name. Raises UserError for a source that is not there or names none.

    A name that exists is itself before it is a glob. Of a recording that is named twice the first naming counts.
    """
    with ThreadPoolExecutor(_LOOKERS) as pool:
        collection = _Collection(pool)
        for source in sources:
            before = collection.named
            collection.source(source)
            collection.take_tars()
            if collection.named == before:
                raise UserError(
                    f"no audio or video under {storage.redacted(source)}",
                    f"{collection.passed_over} files with other endings were passed over; name them one by one, or by"
                    " a glob like '*.dat', to take them whatever their ending",
                )
    if not collection.named:
        raise UserError("no source was named", "name files, folders, globs, s3:// prefixes or manifests")
    recordings = collection.recordings()
    doubles = collection.named - len(recordings)
    return Listing(recordings, collection.passed_over, doubles, tuple(collection.notes))


def recording_id(uri: str, start: int = 0, end: int | None = None) -> str:
    """Return the id of the recording at a canonical URI, or of a stretch of it (in samples): 20 hex digits."""
    stretch = f"\0{start}-{'' if end is None else end}" if start or end is not None else ""
    return hashlib.sha256(f"{uri}{stretch}".encode()).hexdigest()[:20]


class _Collection:
    """What was found so far."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._tars: deque[Future[_Contents]] = deque()
        self._found = Spool(hops.RECORDING_HOP)
        self._recent: list[Recording] = []
        self._opened: dict[str, tuple[Recordings, Index]] = {}  # files that lines of manifests name pieces of
        self.notes: list[str] = []
        self.passed_over = 0
        self.named = 0  # recordings, doubles too

    def recordings(self) -> Recordings:
        """Give what was found, each once; of a recording that was named again, the first naming."""
        self._flush()
        return Recordings(self._found.rows()).unique()

    def source(self, source: str) -> None:
        """Take what one source names."""
        try:
            self._file(storage.stat(source))
            return
        except OpenError as error:
            if error.kind not in ("not_found", "not_a_file"):
                raise UserError(
                    f"cannot read {storage.redacted(source)}: {error}", "check the name, permissions and settings"
                ) from error
            reason = error
        if storage.split_piece(source)[1]:
            self._piece(source)
            return
        if not storage.lists(source):
            hint = "the web has no folders that can be listed: name each file, or a manifest or feed that does"
            raise UserError(f"cannot read {storage.redacted(source)}: {reason}", hint)
        if storage.is_dir(source):
            self._folder(storage.walk(source if storage.local_path(source) is not None else source.rstrip("/") + "/"))
        elif _MAGIC.search(source if storage.local_path(source) is not None else storage.canonical(source)):
            self._glob(source)
        elif storage.local_path(source) is None:
            self._folder(storage.walk(source))
        else:
            raise UserError(f"cannot read {source}: {reason}", "check the name; quote it if it has blanks or '*'")

    def take_tars(self, left: int = 0) -> None:
        """Take what is in the tars that were named, until only so many are not listed."""
        while len(self._tars) > left:
            found = self._tars.popleft().result()
            self._flush()
            for table in found.recordings.tables():
                self._found.add(table)
            self.named += len(found.recordings)
            self.passed_over += found.passed_over
            self.notes += found.notes

    def _file(self, entry: Entry) -> None:
        name = entry.uri.lower()
        if name.endswith(TAR):
            self._tar(entry)
        elif name.endswith(".parquet") and (column := _audio_column(entry)):
            for recording in _rows(entry, column):
                self._add(recording)
        elif name.endswith(MANIFESTS):
            self._lines(entry.location, read_manifest(entry.location))
        elif _may_be_feed(entry.uri) and is_feed(entry):
            self._lines(entry.location, read_feed(entry, self.notes))
        else:
            self._add(_recording(entry))

    def _piece(self, source: str) -> None:
        """Take one piece of a file, which means to look through the file."""
        base, _ = storage.split_piece(source)
        wanted = storage.canonical(source)
        try:
            entry = storage.stat(base)
        except OpenError as error:
            raise UserError(f"cannot read {storage.redacted(base)}: {error}", "check the name") from error
        for recording in _pieces(entry):
            if recording.uri == wanted:
                self._add(recording)

    def _tar(self, entry: Entry) -> None:
        self._tars.append(self._pool.submit(_contents, entry))
        self.take_tars(_AHEAD)

    def _folder(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if _is_media(entry.uri):
                self._add(_recording(entry))
            elif entry.uri.lower().endswith(TAR):
                self._tar(entry)
            else:
                self.passed_over += 1

    def _glob(self, pattern: str) -> None:
        path = storage.local_path(pattern)
        if path is not None and "**" not in path:
            for found in sorted(glob.iglob(path), key=os.fsencode):
                if os.path.isdir(found):
                    self._folder(storage.walk(found))
                else:
                    self._globbed(_stat(storage.canonical(found)), pattern)
            return
        base, wanted = _fixed_part(pattern)
        for entry in storage.walk(base):
            names = _names(entry.uri)
            if _matches(names, wanted):
                self._globbed(entry, pattern)
            elif any(_matches(names[:depth], wanted) for depth in range(1, len(names))):
                self._folder([entry])

    def _globbed(self, entry: Entry, pattern: str) -> None:
        # A last part of stars alone asks for "all that is there", like a folder.
        if pattern.rpartition("/")[2].strip("*"):
            self._file(entry)
        else:
            self._folder([entry])

    def _lines(self, uri: str, lines: Iterator[Line]) -> None:
        """Take what the lines of a manifest or feed name."""
        folder = storage.parent(uri)
        while batch := list(islice(lines, _TOGETHER)):
            shares = [batch[at : at + _SHARE] for at in range(0, len(batch), _SHARE)]
            entries = self._pool.map(lambda share: [_look(uri, folder, line) for line in share], shares)
            for line, entry in zip(batch, chain.from_iterable(entries), strict=True):
                self._add(self._named_by(line, entry, folder))

    def _named_by(self, line: Line, entry: Entry, folder: str) -> Recording:
        """Return what a line names: a file, or a piece of one, which is looked for where the line does not tell."""
        if line.inside:
            return _piece_of_line(entry, line)
        base, piece = storage.split_piece(line.uri)
        if entry.size is None and piece:
            if base not in self._opened:
                if len(self._opened) == _OPENED:
                    del self._opened[next(iter(self._opened))]
                self._opened[base] = _indexed(_stat(storage.against(folder, base)))
            found, index = self._opened[base]
            if (place := index.get(recording_id(entry.uri))) is not None:
                return _as_asked(found[place], line)
        return _recording(entry, line)

    def _add(self, recording: Recording) -> None:
        self.named += 1
        self._recent.append(recording)
        if len(self._recent) == _TOGETHER:
            self._flush()

    def _flush(self) -> None:
        """Make columns of what is objects: they take a fifth of the memory, and when they are many, none."""
        self._found.add(hops.recordings_table(self._recent))
        self._recent = []


@dataclass(frozen=True)
class _Contents:
    """What is in a tar."""

    recordings: Recordings
    passed_over: int
    notes: list[str] = field(default_factory=list)


def _pieces(entry: Entry) -> Iterable[Recording]:
    """List what lies in a file: the rows of a table, the members of a tar."""
    column = None if entry.uri.lower().endswith(TAR) else _audio_column(entry)
    return _rows(entry, column) if column else _contents(entry).recordings


def _indexed(entry: Entry) -> tuple[Recordings, Index]:
    """List what lies in a file, to be found by its id; nothing where it is not there, or has no pieces."""
    found = Recordings.of([])
    if entry.size is not None and entry.uri.lower().endswith((TAR, ".parquet")):
        with suppress(UserError):  # the line's own row tells that the piece was not found
            found = Recordings.of(_pieces(entry)).unique()
    return found, Index(found)


def _contents(entry: Entry) -> _Contents:
    """List a tar. What is behind damage is not known: a recording with the tar's own name stands for it, and fails."""
    tar = Tar(entry, _is_media)
    found = Recordings.of(_members(entry, tar))
    if tar.texts:
        found = Recordings.of(_with_texts(found, tar))
    return _Contents(found, tar.passed_over, tar.notes)


def _members(entry: Entry, tar: Tar) -> Iterator[Recording]:
    for member in tar:
        uri = storage.with_piece(entry.uri, "member", member.name, member.nth)
        yield _piece_of(entry, uri, member.inside, size=member.size)
    if tar.damage:
        tar.notes.append(f"{entry.uri}: {tar.damage}; what was found before it is taken")
        yield _piece_of(entry, entry.uri, pieces.fault("damaged", tar.damage), size=entry.size)


def _with_texts(recordings: Recordings, tar: Tar) -> Iterator[Recording]:
    for recording in recordings:
        stem = os.path.splitext(storage.piece_name(recording.uri) or "")[0]
        text = tar.texts.get(stem)
        yield replace(recording, metadata=as_json(text)) if text else recording


def _audio_column(entry: Entry) -> str | None:
    """Return where a Parquet file has audio; None where it has none, or is a manifest."""
    try:
        with (
            storage.open_audio(entry.location, entry.version, ahead=_FOOTER) as stream,
            datasets.parquet(stream) as file,
        ):
            names = file.schema_arrow.names
            return None if "uri" in names else datasets.column_of(file.schema_arrow)
    except OpenError as error:
        raise UserError(f"cannot read {entry.uri}: {error}", "check the file and the permissions") from error


def _rows(entry: Entry, column: str) -> Iterator[Recording]:
    """Yield the rows of a Parquet file with audio."""
    try:
        with storage.open_audio(entry.location, entry.version) as stream, datasets.parquet(stream) as file:
            for row in datasets.rows(file, column):
                kind, name = ("row", str(row.number)) if row.path is None else ("path", row.path)
                uri = storage.with_piece(entry.uri, kind, name)
                said = {"reference": row.others["text"]} if isinstance(row.others.get("text"), str) else {}
                recording = _piece_of(entry, uri, pieces.row(row.number, row.column), size=None)
                yield replace(recording, metadata=as_json(said | row.others))
    except OpenError as error:
        raise UserError(f"cannot read {entry.uri}: {error}", "check the file and the permissions") from error


def _piece_of(entry: Entry, uri: str, inside: str, *, size: int | None) -> Recording:
    return Recording(recording_id(uri), uri, size, entry.version, address=entry.location, inside=inside)


def _piece_of_line(entry: Entry, line: Line) -> Recording:
    """Return the piece that the line of a manifest names, of the file that was looked at."""
    uri = entry.uri + storage.split_piece(line.uri)[1]
    made = _recording(replace(entry, uri=uri), line)
    size = pieces.size(line.inside)
    return replace(made, size=size, address=entry.location, inside=line.inside)


def _as_asked(piece: Recording, line: Line) -> Recording:
    """Return a piece that was found in a file as the line of a manifest wants it."""
    return replace(
        piece,
        id=recording_id(piece.uri, line.start, line.end),
        language=line.language,
        initial_prompt=line.initial_prompt,
        metadata=piece.metadata if line.metadata == "{}" else line.metadata,
        start=line.start,
        end=line.end,
    )


def _recording(entry: Entry, line: Line | None = None) -> Recording:
    """Return the recording in a file, as the line of a manifest wants it."""
    start, end = (line.start, line.end) if line else (0, None)
    return Recording(
        recording_id(entry.uri, start, end),
        entry.uri,
        entry.size,
        entry.version,
        line.language if line else None,
        line.initial_prompt if line else None,
        line.metadata if line else "{}",
        entry.address,
        start=start,
        end=end,
    )


def _may_be_feed(uri: str) -> bool:
    path = re.split("[?#]", uri)[0].lower()
    return path.endswith(FEEDS) or (not storage.lists(uri) and not _is_media(path))


def _is_media(uri: str) -> bool:
    name = uri.rpartition("/")[2]
    # "._x.mp3" is what macOS keeps beside x.mp3 on foreign disks: no audio
    return _MEDIA.fullmatch(os.path.splitext(name)[1]) is not None and not name.startswith("._")


def _look(manifest: str, folder: str, line: Line) -> Entry:
    """Look at what a line names; what cannot be seen now has no size, and its row will say why."""
    try:
        uri = storage.against(folder, storage.split_piece(line.uri)[0] if line.inside else line.uri)
        canonical = storage.canonical(uri)
    except UnicodeEncodeError as error:
        where = f"{storage.canonical(manifest)}, line {line.number}"
        raise UserError(f"{where}: the uri is no valid text", "write it in UTF-8") from error
    return _stat(uri if storage.local_path(uri) is None else canonical)


def _stat(uri: str) -> Entry:
    try:
        return storage.stat(uri)
    except OpenError:
        return Entry(storage.canonical(uri), None, "", storage.address(uri))


def _fixed_part(pattern: str) -> tuple[str, list[str]]:
    """Return the folder that holds all matches of a glob, and the glob's names."""
    path = storage.local_path(pattern)
    whole = storage.canonical(pattern) if path is None else os.path.abspath(path)
    magic = _MAGIC.search(whole)
    assert magic is not None
    base = whole[: whole.rindex("/", 0, magic.start()) + 1]
    return base if path is not None else storage.lend(base, pattern), _names(whole)


def _names(uri: str) -> list[str]:
    path = storage.local_path(uri)
    return (uri.partition("://")[2] if path is None else path).strip("/").split("/")


def _matches(names: list[str], wanted: list[str]) -> bool:
    """Match name by name; `**` stands for any number of them."""
    if not wanted:
        return not names
    if wanted[0] == "**":
        return any(_matches(names[skipped:], wanted[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], wanted[0]) and _matches(names[1:], wanted[1:])
