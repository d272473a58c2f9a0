"""`bulkscribe export`: finished transcripts as subtitles, plain text or JSON, one file a recording and format."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from jobs.options import CommaList, collect, settings, stores
from pipeline import storage
from pipeline.errors import UserError
from pipeline.score import FLAGS
from pipeline.subtitles import FORMATS, Row, SubtitleOptions

NAME_BYTES = 180  # of a file's name without its ending: file systems take 255 with it


@click.command(epilog="Example:  bulkscribe export transcripts --format srt,txt --drop-flags no_speech,repetitive")
@click.argument("out")
@click.option(
    "--format",
    "formats",
    type=CommaList(click.Choice(list(FORMATS))),
    default="srt",
    show_default=True,
    metavar="LIST",
    help="What to write: srt, vtt, txt, json, or several with commas.",
)
@click.option("--to", default=None, metavar="DIR", help="Folder or prefix for the files; by default OUT/export.")
@click.option(
    "--drop-flags",
    type=CommaList(click.Choice(list(FLAGS))),
    default="",
    metavar="LIST",
    help="Leave out segments that carry one of these flags, and say how many. By default nothing is left out.",
)
@settings(SubtitleOptions)
@stores
def command(out: str, formats: tuple[str, ...], to: str | None, drop_flags: tuple[str, ...], **values: Any) -> None:
    """Write the transcripts in OUT as files that people and players read.

    OUT is what `transcribe --out` was given. A file is named after its recording's; where two would have the same
    name, the recording's id is added to both. Recordings that failed have no file.
    """
    target = to if to is not None else storage.join(out, "export")
    options = collect(SubtitleOptions, values)
    counts: Counter[str] = Counter(recordings=0, files=0, segments=0, dropped_segments=0, failed=0)
    names = _names(out)
    for recording, rows in _transcripts(out):
        counts["recordings"] += 1
        if recording["status"] == "failed":
            counts["failed"] += 1
            continue
        kept = [row for row in rows if not set(drop_flags) & set(row["flags"])]
        counts["segments"] += len(kept)
        counts["dropped_segments"] += len(rows) - len(kept)
        for kind in formats:
            text = FORMATS[kind](kept, options)
            name = names.of(recording["recording_id"], recording["uri"])
            storage.write_bytes(storage.join(target, f"{name}.{kind}"), text.encode("utf-8"))
            counts["files"] += 1
    shown = storage.redacted(target)
    _tell(counts, shown)
    click.echo(json.dumps({**counts, "to": shown}))


class _Names:
    """File names for recordings, of which none leaves its folder and no two are the same."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def note(self, uri: str) -> None:
        self._seen[_folded(file_stem(uri))] += 1

    def of(self, recording_id: str, uri: str) -> str:
        stem = file_stem(uri)
        if stem and self._seen[_folded(stem)] == 1:
            return stem
        return f"{stem}-{recording_id}" if stem else recording_id


def _folded(stem: str) -> str:
    """Return what file systems that ignore case or composition take for the same name."""
    return unicodedata.normalize("NFC", stem).casefold()


def file_stem(uri: str) -> str:
    """Return a file name, without ending, for the recording at `uri`; empty where the URI has none that can be used."""
    scheme = storage.scheme(uri)
    path = unquote(urlsplit(uri).path) if scheme in ("http", "https") or uri.startswith("file://") else uri
    name = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", path.rstrip("/").rpartition("/")[2])
    name = "".join("_" if c in '<>:"/\\|?*' or unicodedata.category(c) in ("Cc", "Cs") else c for c in name)
    name = name.encode("utf-8")[:NAME_BYTES].decode("utf-8", errors="ignore")
    return name.lstrip(". ").rstrip(". ")


def _names(out: str) -> _Names:
    names = _Names()
    for table in _recordings(out, ["uri"]):
        for uri in table["uri"].to_pylist():
            names.note(uri)
    return names


def _transcripts(out: str) -> Iterator[tuple[Row, list[Row]]]:
    """Yield each recording's row with the rows of its segments, in order. One part is in memory at a time."""
    for table in _recordings(out, ["recording_id", "uri", "status", "segments", "part"]):
        recordings = table.to_pylist()
        segments: dict[str, list[Row]] = defaultdict(list)
        for part in sorted({row["part"] for row in recordings if row["segments"]}):
            for row in _read(storage.join(out, "segments", part)).to_pylist():
                segments[row["recording_id"]].append(row)
        for recording in recordings:
            yield recording, sorted(segments[recording["recording_id"]], key=lambda row: row["index"])


def _recordings(out: str, columns: list[str]) -> Iterator[Any]:
    folder = storage.join(out, "recordings")
    parts = [name for name in storage.names(folder) if name.startswith("part-") and name.endswith(".parquet")]
    if not parts:
        raise UserError(f"there are no transcripts in {out}", f"bulkscribe transcribe SOURCE --out {out} makes some")
    for name in parts:
        yield _read(storage.join(folder, name), columns)


def _read(uri: str, columns: list[str] | None = None) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(storage.read_bytes(uri)), columns=columns)


def _tell(counts: Counter[str], target: str) -> None:
    click.echo(f"wrote {counts['files']} files of {counts['recordings']} recordings to {target}", err=True)
    if counts["failed"]:
        click.echo(f"{counts['failed']} failed recordings have no file", err=True)
    if counts["dropped_segments"]:
        click.echo(f"{counts['dropped_segments']} flagged segments were left out", err=True)
