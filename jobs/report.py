"""`bulkscribe report`: what a job has made, on one page that opens anywhere, or as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
import pandas as pd

from jobs.options import collect, settings, stores
from pipeline import excerpts, page, storage
from pipeline.digest import digest
from pipeline.errors import DataError
from pipeline.page import Sample, Story
from pipeline.picks import PickOptions, Picks
from pipeline.transcripts import transcripts_of
from pipeline.types import NOT_NEGATIVE, setting

_SCORES = ("avg_logprob", "no_speech_prob", "compression_ratio", "evidence_per_token")


@dataclass(frozen=True)
class PageOptions:
    """What kind of page, and where."""

    format: str = setting("html", "One page for browsers, or Markdown on stdout.", choices=("html", "md"))
    to: str | None = setting(None, "Where the page goes; by default OUT/report.html, and Markdown to stdout.")
    audio: bool = setting(False, "Put the sound of the samples into the page: they are read again from their sources.")
    audio_max_s: float = setting(12.0, "Longest sound of a sample.", "s", within=NOT_NEGATIVE)
    audio_max_mb: float = setting(4.0, "Most that all sounds together add to the page.", "MB", within=NOT_NEGATIVE)


@click.command(epilog="Example:  bulkscribe report transcripts --audio")
@click.argument("out")
@settings(PageOptions)
@settings(PickOptions)
@stores
def command(out: str, **values: Any) -> None:
    """Tell what is in OUT: totals, hours by reason and language, scores, failures, recordings worth a look.

    OUT is what `transcribe --out` was given. The page is one file that needs no network. `--format md` writes Markdown
    to stdout, for terminals and CI.
    """
    options = collect(PageOptions, values)
    found = digest(out, collect(PickOptions, values))
    shown = storage.redacted(out)
    if options.format == "md":
        text = page.markdown(Story(shown, found))
        if options.to is None:
            click.echo(text, nl=False)
            return
    else:
        samples = list(_samples(found.picks, options))
        recordings = list(transcripts_of(out, found.picks.timelines()))
        text = page.html(Story(shown, found, samples, recordings))
    to = options.to if options.to is not None else storage.join(out, "report.html")
    storage.write_bytes(to, text.encode("utf-8"))
    where = storage.redacted(to)
    click.echo(f"wrote {where} ({len(text.encode('utf-8')) / 1e6:.1f} MB)", err=True)
    counts = {"recordings": found.recordings, "segments": found.segments, "flagged_segments": found.flagged_segments}
    hours = {"audio_hours": round(found.duration_s / 3600, 4), "kept_hours": round(found.kept_s / 3600, 4)}
    click.echo(json.dumps({**counts, "failed": found.statuses["failed"], **hours, "to": where}))


def _samples(picks: Picks, options: PageOptions) -> Iterator[Sample]:
    """Yield the sample segments, flagged ones first; with their sound as long as that is not too much."""
    room = options.audio_max_mb * 1e6 if options.audio else 0.0
    seen: set[tuple[str, int]] = set()
    for flag in sorted(picks.samples, key=lambda flag: (not flag, flag)):
        for row in picks.samples[flag].to_dict("records"):
            if (key := (row["recording_id"], row["index"])) in seen:
                continue  # it has another flag, too
            seen.add(key)
            audio, trouble = _sound(row, options) if room > 0 else ("", "")
            room -= len(audio)
            scores = {name: float(row[name]) for name in _SCORES if not pd.isna(row[name])}
            about = row["uri"], row["start"], row["end"], row["text"], row["language_own"]
            yield Sample(*about, row["flags"], scores, audio, trouble)


def _sound(row: Mapping[Any, Any], options: PageOptions) -> tuple[str, str]:
    """Return a segment's sound, or why it cannot be had: the page is made all the same."""
    end = min(row["end"], row["start"] + options.audio_max_s)
    try:
        return excerpts.excerpt(row, row["start"], end), ""
    except DataError as error:
        return "", storage.redacted(str(error))
