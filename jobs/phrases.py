"""`bulkscribe phrases`: lines that repeat over a corpus without evidence, as a list that `transcribe` takes."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

import click
import pandas as pd
from rich.console import Console
from rich.table import Table

from jobs.options import collect, settings, stores
from pipeline import frames, phrases, storage
from pipeline.errors import UserError
from pipeline.repeats import Line, RepeatOptions, repeated


@click.command(epilog="Example:  bulkscribe phrases transcripts --out phrases.csv")
@click.argument("transcripts", metavar="OUT")
@click.option("--out", "target", metavar="FILE", help="Write the list to this .csv, for transcribe --phrases FILE.")
@click.option("--show", default=20, help="Lines to show.  [default: 20]")
@settings(RepeatOptions)
@stores
def command(transcripts: str, target: str | None, show: int, **values: object) -> None:
    """Find the lines in OUT that a model invents for this corpus.

    OUT is what `transcribe --out` was given. Lines are compared without case, accents, width and punctuation; those
    that stand in many recordings without evidence in the audio are told, the most widespread first, and marked where
    they are in the list that ships. stdout has one JSON line with the counts.
    """
    if target and not target.lower().endswith(".csv"):
        raise UserError(f"{storage.redacted(target)}: a list of phrases is a .csv", "--out phrases.csv")
    lines = repeated(transcripts, collect(RepeatOptions, values))
    Console(stderr=True).print(_table(lines[:show]))
    if target:
        columns = [field.name for field in fields(Line)]
        frames.write(pd.DataFrame([asdict(line) for line in lines], columns=columns), target)
    new = sum(phrases.known().weight(line.text) is None for line in lines)
    told = {"lines": len(lines), "new": new, "out": storage.redacted(target) if target else None}
    click.echo(json.dumps(told))


def _table(lines: list[Line]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("recordings", "segments", "weight"):
        table.add_column(name, justify="right")
    for name in ("language", "known", "text"):
        table.add_column(name, overflow="fold")
    for line in lines:
        known = "yes" if phrases.known().weight(line.text) is not None else ""
        table.add_row(str(line.recordings), str(line.segments), f"{line.weight:.2f}", line.language, known, line.text)
    return table
