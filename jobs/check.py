"""`bulkscribe check`: does an output keep the law, each recording exactly once and every row where it belongs?"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable

import click

from pipeline import storage
from pipeline.check import KINDS, LAYOUTS, Checked, Finding, check
from pipeline.errors import UserError
from pipeline.sources import resolve
from pipeline.types import Recording

SHOWN = 20  # findings of a kind that are told in full


@click.command(epilog="Example:  bulkscribe check transcripts --source talks/")
@click.argument("out")
@click.option(
    "--source",
    "sources",
    multiple=True,
    help="What was to be transcribed or filtered: each of its recordings must have a row. Repeatable.",
)
def command(out: str, sources: tuple[str, ...]) -> None:
    """Look for what is missing, doubled, orphaned, misnumbered or not whole in the tables of OUT.

    Nothing is changed. What is found is told in a line each; standard output has one JSON line with all counts. The
    exit code is 1 when something was found.
    """
    if not any(storage.is_dir(storage.join(out, table)) for layout in LAYOUTS for table in layout.tables):
        raise UserError(f"{out} holds no transcripts", "give the folder that `transcribe` or `filter` wrote to")
    found: Counter[str] = Counter()
    seen = Checked()
    for item in check(out, _listed(sources)):
        if isinstance(item, Checked):
            seen = item
            continue
        found[item.kind] += 1
        if found[item.kind] <= SHOWN:
            _tell(item)
    for kind, count in sorted(found.items()):
        click.echo(f"{count} x {kind}: {KINDS[kind]}", err=True)
    click.echo(json.dumps({**seen.counts, "ok": not found, "findings": dict(found)}))
    sys.exit(1 if found else 0)


def _listed(sources: tuple[str, ...]) -> Iterable[Recording]:
    return resolve(sources).recordings if sources else ()


def _tell(finding: Finding) -> None:
    click.echo(f"{finding.kind}: {finding.where}: {finding.message}", err=True)
