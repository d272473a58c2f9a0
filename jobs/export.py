"""`bulkscribe export`: finished transcripts as files that people, players and training toolkits read."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from jobs.options import CommaList, collect, settings, stores
from pipeline import paragraphs, redaction, storage
from pipeline.asr_manifests import MANIFESTS, Manifests
from pipeline.errors import UserError
from pipeline.paragraphs import ParagraphOptions
from pipeline.redaction import RedactionOptions
from pipeline.rttm import rttm
from pipeline.score import FLAGS
from pipeline.subtitles import FORMATS, Row, SubtitleOptions
from pipeline.transcripts import recordings, transcripts

NAME_BYTES = 180  # of a file's name without its ending: file systems take 255 with it
_WITH_ID = re.compile(r"-[0-9a-f]{20}$", re.IGNORECASE)  # looks like the name that another one gets
_UNFIT = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of pairs, line breaks
_TURNING = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # make a name look like another
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)


@click.command(epilog="Example:  bulkscribe export transcripts --format srt,txt --drop-flags no_speech,repetitive")
@click.argument("out")
@click.option(
    "--format",
    "formats",
    type=CommaList(click.Choice([*FORMATS, "txt", "rttm", *MANIFESTS])),
    default="srt",
    show_default=True,
    metavar="LIST",
    help="What to write: srt, vtt, json, txt; rttm (speakers); nemo, lhotse (manifests); or several with commas.",
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
@settings(ParagraphOptions)
@settings(RedactionOptions)
@stores
def command(out: str, formats: tuple[str, ...], to: str | None, drop_flags: tuple[str, ...], **values: Any) -> None:
    """Write the transcripts in OUT as files that people, players and training toolkits read.

    OUT is what `transcribe --out` was given. A file is named after its recording's; where two would have the same
    name, the recording's id is added to both. Recordings that failed have no file. nemo and lhotse write manifests of
    all recordings together.
    """
    target = to if to is not None else storage.join(out, "export")
    hiding = collect(RedactionOptions, values)
    redaction.check(hiding)
    if "rttm" in formats and not any(storage.names(storage.join(out, "speakers"))):
        raise UserError(f"there are no speakers in {out}", "bulkscribe transcribe --speakers tells them apart")
    counts: Counter[str] = Counter(recordings=0, files=0, segments=0, dropped_segments=0, failed=0)
    hidden: Counter[str] = Counter(dict.fromkeys(redaction.KINDS, 0))
    names, makers = _names(out), _makers(formats, values)
    manifests = [Manifests(kind, target) for kind in dict.fromkeys(formats) if kind in MANIFESTS]
    for one in transcripts(out, speakers="rttm" in formats):
        recording, rows = one.recording, one.segments
        counts["recordings"] += 1
        if recording["status"] == "failed":
            counts["failed"] += 1
            continue
        kept: Sequence[Row] = [row for row in rows if not set(drop_flags) & set(row["flags"])]
        counts["segments"] += len(kept)
        counts["dropped_segments"] += len(rows) - len(kept)
        if hiding.redact:
            kept, found = redaction.redacted(kept, hiding)
            hidden += found
        name = names.of(recording["recording_id"], _stem(recording))
        for kind, make in makers.items():
            storage.write_bytes(storage.join(target, f"{name}.{kind}"), make(kept).encode("utf-8"))
            counts["files"] += 1
        if "rttm" in formats:
            storage.write_bytes(storage.join(target, f"{name}.rttm"), rttm(name, one.speakers).encode("utf-8"))
            counts["files"] += 1
        for manifest in manifests:
            manifest.add(recording, kept)
    for manifest in manifests:
        manifest.close()
        counts["files"] += manifest.files
    shown = storage.redacted(target)
    told = {kind: hidden[kind] for kind in redaction.KINDS} if hiding.redact else {}
    _tell(counts, told, shown)
    click.echo(json.dumps({**counts, **({"redacted": told} if hiding.redact else {}), "to": shown}))


def _makers(formats: tuple[str, ...], values: dict[str, Any]) -> dict[str, Callable[[Sequence[Row]], str]]:
    """Return what writes a recording's file, by format."""
    shape, prose = collect(SubtitleOptions, values), collect(ParagraphOptions, values)
    makers: dict[str, Callable[[Sequence[Row]], str]] = {"txt": lambda rows: paragraphs.txt(rows, prose)}
    for kind, make in FORMATS.items():
        makers[kind] = partial(_shaped, make, shape)
    return {kind: makers[kind] for kind in formats if kind in makers}


def _shaped(make: Callable[[Sequence[Row], SubtitleOptions], str], shape: SubtitleOptions, rows: Sequence[Row]) -> str:
    return make(rows, shape)


class _Names:
    """File names for recordings, of which none leaves its folder and no two are the same."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def note(self, stem: str) -> None:
        self._seen[_folded(stem)] += 1

    def of(self, recording_id: str, stem: str) -> str:
        if stem and self._seen[_folded(stem)] == 1 and not _WITH_ID.search(stem):
            return stem
        return f"{stem}-{recording_id}" if stem else recording_id


def _folded(stem: str) -> str:
    """Return what file systems that ignore case or composition take for the same name."""
    return unicodedata.normalize("NFC", stem).casefold()


def file_stem(uri: str, start_s: float = 0.0, end_s: float | None = None) -> str:
    """Return a file name, without ending, for the recording at `uri`; empty where the URI has none that can be used.

    A member of a tar has its own name, a row of a table the table's and its number, a stretch its times.
    """
    base, piece = storage.split_piece(uri)
    path = storage.piece_name(uri) if piece and not piece.startswith("#row=") else _path(base)
    name = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", (path or "").rstrip("/").rpartition("/")[2])
    name = "".join("_" if c in '<>:"/\\|?*' or unicodedata.category(c) in _UNFIT or c in _TURNING else c for c in name)
    stretch = f"_{start_s:.2f}-{'' if end_s is None else f'{end_s:.2f}'}" if start_s or end_s is not None else ""
    row = f"_{storage.piece_name(uri)}" if piece.startswith("#row=") else ""
    name = name.encode("utf-8", "replace")[:NAME_BYTES].decode("utf-8", errors="ignore")
    name = name.lstrip(". ").rstrip(". ")
    if _DEVICES.fullmatch(name.partition(".")[0].strip()):  # with any ending they are devices on Windows
        name = f"_{name}"
    return name + row[:24] + stretch if name else ""


def _path(uri: str) -> str:
    encoded = storage.scheme(uri) in ("http", "https") or uri.startswith("file://")
    return unquote(urlsplit(uri).path) if encoded else uri


def _stem(row: Mapping[str, Any]) -> str:
    return file_stem(row["uri"], row["start_s"], row["end_s"])


def _names(out: str) -> _Names:
    names = _Names()
    for table in recordings(out, ["uri", "start_s", "end_s"]):
        for row in table.to_pylist():
            names.note(_stem(row))
    return names


def _tell(counts: Counter[str], hidden: dict[str, int], target: str) -> None:
    click.echo(f"wrote {counts['files']} files of {counts['recordings']} recordings to {target}", err=True)
    if counts["failed"]:
        click.echo(f"{counts['failed']} failed recordings have no file", err=True)
    if counts["dropped_segments"]:
        click.echo(f"{counts['dropped_segments']} flagged segments were left out", err=True)
    if hidden:
        click.echo("redacted: " + ", ".join(f"{count} x [{kind}]" for kind, count in hidden.items()), err=True)
