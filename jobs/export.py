"""`bulkscribe export`: finished transcripts as files that people, players and training toolkits read."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from jobs.options import CommaList, collect, settings, stores
from pipeline import paragraphs, redaction, storage
from pipeline.asr_manifests import MANIFESTS, Manifests
from pipeline.paragraphs import ParagraphOptions
from pipeline.redaction import RedactionOptions
from pipeline.score import FLAGS
from pipeline.subtitles import FORMATS, Row, SubtitleOptions
from pipeline.transcripts import recordings, transcripts

NAME_BYTES = 180  # of a file's name without its ending: file systems take 255 with it


@click.command(epilog="Example:  bulkscribe export transcripts --format srt,txt --drop-flags no_speech,repetitive")
@click.argument("out")
@click.option(
    "--format",
    "formats",
    type=CommaList(click.Choice([*FORMATS, "txt", *MANIFESTS])),
    default="srt",
    show_default=True,
    metavar="LIST",
    help="What to write: srt, vtt, json, txt; nemo, lhotse (manifests); or several with commas.",
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
    counts: Counter[str] = Counter(recordings=0, files=0, segments=0, dropped_segments=0, failed=0)
    hidden: Counter[str] = Counter(dict.fromkeys(redaction.KINDS, 0))
    names, makers = _names(out), _makers(formats, values)
    manifests = [Manifests(kind, target) for kind in dict.fromkeys(formats) if kind in MANIFESTS]
    for one in transcripts(out):
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
        name = names.of(recording["recording_id"], recording["uri"])
        for kind, make in makers.items():
            storage.write_bytes(storage.join(target, f"{name}.{kind}"), make(kept).encode("utf-8"))
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
    for table in recordings(out, ["uri"]):
        for uri in table["uri"].to_pylist():
            names.note(uri)
    return names


def _tell(counts: Counter[str], hidden: dict[str, int], target: str) -> None:
    click.echo(f"wrote {counts['files']} files of {counts['recordings']} recordings to {target}", err=True)
    if counts["failed"]:
        click.echo(f"{counts['failed']} failed recordings have no file", err=True)
    if counts["dropped_segments"]:
        click.echo(f"{counts['dropped_segments']} flagged segments were left out", err=True)
    if hidden:
        click.echo("redacted: " + ", ".join(f"{count} x [{kind}]" for kind, count in hidden.items()), err=True)
