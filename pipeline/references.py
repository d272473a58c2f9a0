"""What was really said: manifests with texts, folders of .txt files, or what travelled beside the recordings.

Duty: read references, and find the recording of an output that each belongs to. Knows no transcripts and no scores.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from pipeline import storage
from pipeline.errors import OpenError, UserError
from pipeline.manifests import MANIFESTS, read_rows
from pipeline.sources import recording_id
from pipeline.types import SAMPLE_RATE

MIXED = "mul"  # language of a recording whose stretches are in several: ISO 639-2 for "multiple languages"
_NAMED = ("uri", "recording_id")
_KNOWN = {*_NAMED, "text", "reference", "translation", "language", "start", "end", "words", "initial_prompt"}
_HINT = 'each line needs a `uri` (or `recording_id`) and the `text` that is said there; "" where nothing is'


@dataclass(frozen=True, slots=True)
class Timed:
    """Text with its times, in seconds of the recording."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Reference:
    """What is said in a recording. A text of None is unknown, an empty one says that there is no speech."""

    name: str  # URI of the recording as the manifest has it, or of the text file
    recording_id: str
    text: str | None
    translation: str | None = None
    language: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)  # all other columns
    segments: tuple[Timed, ...] = ()
    words: tuple[Timed, ...] = ()
    stretch_id: str = ""  # of the recording that is this stretch alone
    stretches: tuple[Reference, ...] = ()  # that it was put together from


@dataclass(frozen=True, slots=True)
class Matched:
    """Which reference belongs to which recording."""

    by_id: Mapping[str, Reference]
    by_name: int  # of these, those whose URIs differ and whose file names are alike
    missing: tuple[Reference, ...]  # references of no recording


def read_references(source: str) -> list[Reference]:
    """Read a manifest (.csv .jsonl .parquet) or a folder of .txt files. Raises UserError for what is neither."""
    if source.lower().endswith(MANIFESTS):
        return list(_grouped(source, _rows(source)))
    if storage.lists(source) and storage.is_dir(source):
        found = list(_folder(source))
        if not found:
            raise UserError(
                f"there are no .txt files in {storage.redacted(source)}", "name a file a recording, or a manifest"
            )
        return found
    raise UserError(
        f"{storage.redacted(source)} is neither a manifest nor a folder",
        "references are a .csv, .jsonl or .parquet with `uri` and `text`, or a folder with a .txt a recording",
    )


def travelled(row: Mapping[str, Any]) -> Reference | None:
    """Return the reference that a row of the recordings table has in its metadata; None where it has none."""
    metadata = json.loads(row["metadata"])
    told = next((name for name in ("reference", "text") if isinstance(metadata.get(name), str)), None)
    translation = metadata.get("translation")
    if told is None and not isinstance(translation, str):
        return None
    others = {name: value for name, value in metadata.items() if name not in _KNOWN}
    text = metadata[told] if told else None
    return Reference(row["uri"], row["recording_id"], text, translation, None, others, (), _words(metadata, row["uri"]))


def match(references: Sequence[Reference], recordings: Iterable[tuple[str, str]]) -> Matched:
    """Find the recording of each reference; `recordings` are ids and URIs.

    By id, which is to say by URI; then by what stands beside it under the same name (`talk.txt` or `talk.mp3.txt`);
    what is left, by the ends of the paths, where these are nobody else's: so copies in another place find each other.
    """
    left = dict(recordings)
    references = [one for whole in references for one in _as_heard(whole, left)]
    found = {one.recording_id: one for one in references if one.recording_id in left}
    rest = [one for one in references if one.recording_id not in found]
    beside = len(found)
    for depth in (None, 3, 2, 1):
        for endings, endings_of_references in ((True, True), (True, False), (False, False)):
            mine = _unique((_end(uri, depth, endings), id_) for id_, uri in left.items() if id_ not in found)
            theirs = _unique((_end(one.name, depth, endings_of_references), one) for one in rest)
            taken = {mine[name]: theirs[name] for name in mine.keys() & theirs.keys()}
            found |= taken
            names = {id(one) for one in taken.values()}
            rest = [one for one in rest if id(one) not in names]
        if depth is None:
            beside = len(found)
    return Matched(found, len(found) - beside, tuple(rest))


def _as_heard(reference: Reference, recordings: Mapping[str, str]) -> Sequence[Reference]:
    """Return the stretches of a reference that are recordings of their own; where none is, the reference."""
    stretches = reference.stretches or (reference,)
    alone = [replace(one, recording_id=one.stretch_id) for one in stretches if one.stretch_id in recordings]
    return alone or [reference]


def _unique(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    pairs = list(items)
    seen = Counter(name for name, _ in pairs)
    return {name: value for name, value in pairs if seen[name] == 1}


def _end(uri: str, depth: int | None, ending: bool) -> str:
    """Return the last `depth` names of a path, or all of it, with the file's ending or without."""
    parts = PurePosixPath(uri).parts[-(depth or 0) :]
    name = parts[-1] if ending else PurePosixPath(parts[-1]).stem
    return "/".join([*parts[:-1], name])


# --- reading --------------------------------------------------------------------------------------------------------


def _folder(folder: str) -> Iterator[Reference]:
    for entry in storage.walk(folder if storage.local_path(folder) is not None else folder.rstrip("/") + "/"):
        if not entry.uri.lower().endswith(".txt"):
            continue
        try:
            text = storage.read_bytes(entry.location).decode("utf-8-sig")
        except (OpenError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {entry.uri}: {error}", "references are text in UTF-8") from error
        yield Reference(entry.uri, recording_id(entry.uri), text)


def _rows(source: str) -> Iterator[Reference]:
    """Yield a reference a line."""
    folder, shown = storage.parent(source), storage.canonical(source)
    for number, row in read_rows(source):
        where = f"{shown}, line {number}"
        given = next((name for name in _NAMED if isinstance(row.get(name), str) and row[name]), None)
        if given is None:
            raise UserError(
                f"{where}: there is no recording named", f"{_HINT}; the columns are: {', '.join(map(str, row))}"
            )
        if not {"text", "reference", "translation"} & row.keys():
            raise UserError(f"{where}: there is no `text`", f"{_HINT}; the columns are: {', '.join(map(str, row))}")
        name = storage.canonical(storage.against(folder, row["uri"])) if given == "uri" else row["recording_id"]
        text = _text(row, "text", where) if "text" in row else _text(row, "reference", where)
        yield Reference(
            name,
            recording_id(name) if given == "uri" else name,
            text,
            _text(row, "translation", where),
            _text(row, "language", where),
            {column: value for column, value in row.items() if column not in _KNOWN},
            _segment(row, text, where),
            _words(row, where),
            _stretch_id(name, row) if given == "uri" else "",
        )


def _text(row: Mapping[str, Any], column: str, where: str) -> str | None:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: the {column} is {value!r}", "write text, or nothing")
    return value


def _segment(row: Mapping[str, Any], text: str | None, where: str) -> tuple[Timed, ...]:
    if row.get("start") is None or row.get("end") is None:
        return ()
    return (Timed(*_times(row, where), text or ""),)


def _stretch_id(name: str, row: Mapping[str, Any]) -> str:
    """Return the id of the recording that a manifest with these times makes; "" where the row has none."""
    start, end = row.get("start"), row.get("end")
    if start is None or end is None:
        return ""
    return recording_id(name, round(float(start) * SAMPLE_RATE), round(float(end) * SAMPLE_RATE))


def _words(row: Mapping[str, Any], where: str) -> tuple[Timed, ...]:
    """Read `words`: a list of objects with start, end and word (or text); in a .csv, the same as JSON."""
    given = row.get("words")
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where}: the words are no JSON: {error}", '[{"word": ..., "start": ..., "end": ...}]'
            ) from error
    if not isinstance(given, list):
        return ()
    return tuple(Timed(*_times(item, where), str(item.get("word", item.get("text", "")))) for item in given)


def _times(row: Any, where: str) -> tuple[float, float]:
    try:
        start, end = float(row["start"]), float(row["end"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: start and end are no numbers", "both are seconds from the recording's start"
        ) from error
    if not math.isfinite(start) or not math.isfinite(end) or end < start:
        raise UserError(f"{where}: it starts at {start} s and ends at {end} s", "an end is not before its start")
    return start, end


def _grouped(source: str, references: Iterable[Reference]) -> Iterator[Reference]:
    """Put the stretches of a recording together, by time; a recording without times has one line."""
    by_id: dict[str, list[Reference]] = defaultdict(list)
    for one in references:
        by_id[one.recording_id].append(one)
    for several in by_id.values():
        if len(several) == 1:
            yield several[0]
            continue
        if not all(one.segments for one in several):
            raise UserError(
                f"{storage.canonical(source)} names {several[0].name} {len(several)} times",
                "give it one line, or each line of it a `start` and an `end` in seconds",
            )
        yield _joined(sorted(several, key=lambda one: one.segments[0].start))


def _joined(stretches: Sequence[Reference]) -> Reference:
    said = [one for one in stretches if one.text]
    known = any(one.text is not None for one in stretches)
    languages = {one.language for one in said if one.language}
    translations = [one.translation for one in stretches if one.translation]
    first = stretches[0]
    return Reference(
        first.name,
        first.recording_id,
        " ".join(one.text for one in said if one.text) if known else None,
        " ".join(translations) or None,
        languages.pop() if len(languages) == 1 else MIXED if languages else None,
        {
            name: value
            for name, value in first.metadata.items()
            if all(one.metadata.get(name) == value for one in stretches)
        },
        tuple(segment for one in said for segment in one.segments),
        tuple(word for one in stretches for word in one.words),
        stretches=tuple(stretches),
    )
