"""What the user names (files, folders, globs, prefixes, manifests) -> Recordings.

Duty: the list of a job's recordings, each once. Knows no audio: whether a file can be read is found out when it is
cut, and an absent line of a manifest ends as a row there.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice

from pipeline import storage
from pipeline.errors import OpenError, UserError
from pipeline.manifests import MANIFESTS, Line, read_manifest
from pipeline.recordings import Recordings
from pipeline.storage import Entry
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
_LOOKERS = 32  # at a time: a store answers each in tens of milliseconds


@dataclass(frozen=True, slots=True)
class Listing:
    """The recordings of a job, in the order of the sources, and what was left out."""

    recordings: Recordings
    passed_over: int  # files of folders whose ending is neither audio nor video
    doubles: int  # times that a recording was named again


def resolve(sources: Sequence[str]) -> Listing:
    """List the recordings that `sources` name. Raises UserError for a source that is not there or names none.

    A name that exists is itself before it is a glob. Of a recording that is named twice the first naming counts.
    """
    collection = _Collection()
    for source in sources:
        before = collection.named
        collection.source(source)
        if collection.named == before:
            raise UserError(
                f"no audio or video under {storage.redacted(source)}",
                f"{collection.passed_over} files with other endings were passed over; name them one by one, or by a"
                " glob like '*.dat', to take them whatever their ending",
            )
    if not collection.named:
        raise UserError("no source was named", "name files, folders, globs, s3:// prefixes or manifests")
    recordings = collection.recordings()
    return Listing(recordings, collection.passed_over, collection.named - len(recordings))


def recording_id(uri: str, start: int = 0, end: int | None = None) -> str:
    """Return the id of the recording at a canonical URI, or of a stretch of it (in samples): 20 hex digits."""
    stretch = f"\0{start}-{'' if end is None else end}" if start or end is not None else ""
    return hashlib.sha256(f"{uri}{stretch}".encode()).hexdigest()[:20]


class _Collection:
    """What was found so far."""

    def __init__(self) -> None:
        self._found: list[Recordings] = []
        self._recent: list[Recording] = []
        self.passed_over = 0
        self.named = 0  # recordings, doubles too

    def recordings(self) -> Recordings:
        """Give what was found, each once; of a recording that was named again, the first naming."""
        self._found.append(Recordings.of(self._recent))
        return Recordings.joined(self._found).unique()

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

    def _file(self, entry: Entry) -> None:
        if entry.uri.lower().endswith(MANIFESTS):
            self._manifest(entry.location)
        else:
            self._add(_recording(entry))

    def _folder(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if _is_media(entry.uri):
                self._add(_recording(entry))
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

    def _manifest(self, uri: str) -> None:
        folder = storage.parent(uri)
        lines = iter(read_manifest(uri))
        with ThreadPoolExecutor(_LOOKERS) as pool:
            while batch := list(islice(lines, _TOGETHER)):
                entries = pool.map(lambda line: _look(uri, folder, line), batch)
                for line, entry in zip(batch, entries, strict=True):
                    self._add(_recording(entry, line))

    def _add(self, recording: Recording) -> None:
        self.named += 1
        self._recent.append(recording)
        if len(self._recent) == _TOGETHER:  # as columns they take a fifth of the memory
            self._found.append(Recordings.of(self._recent))
            self._recent = []


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
        start,
        end,
    )


def _is_media(uri: str) -> bool:
    name = uri.rpartition("/")[2]
    # "._x.mp3" is what macOS keeps beside x.mp3 on foreign disks: no audio
    return _MEDIA.fullmatch(os.path.splitext(name)[1]) is not None and not name.startswith("._")


def _look(manifest: str, folder: str, line: Line) -> Entry:
    """Look at what a line names; what cannot be seen now has no size, and its row will say why."""
    try:
        uri = storage.against(folder, line.uri)
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
