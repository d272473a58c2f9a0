"""`bulkscribe evaluate`: transcripts against references, in total and by group, and one run against another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import click
import pandas as pd
from rich.console import Console
from rich.table import Table

from jobs.noise import heard_of, transcribe_again
from jobs.options import collect, settings, stores
from pipeline import frames, storage, text, translation
from pipeline.beside import beside
from pipeline.comparison import Paired, difference, pair
from pipeline.evaluation import (
    Evaluation,
    EvaluationOptions,
    errors_of,
    evaluate,
    grouped,
    in_language_of,
    references_in,
    summary,
    variants,
)
from pipeline.references import Reference, read_references
from pipeline.resampling import ResampleOptions
from pipeline.text import TextOptions
from pipeline.types import NOT_NEGATIVE, setting

DIGITS = 6  # of rates in the JSON line


@dataclass(frozen=True)
class ReportOptions:
    """What is shown."""

    by: tuple[str, ...] = setting(
        (),
        "Also by these columns: source (the folder, where no column is called so), language, duration, or any column of"
        " the references, the manifest or the recordings table; numbers are cut into quarters.",
    )
    worst: int = setting(
        5, "Worst recordings, or with --against biggest changes both ways, to show side by side.", within=NOT_NEGATIVE
    )
    out: str | None = setting(
        None, "Write a row a recording, with counts and texts, to this .parquet, .csv, .json or .jsonl."
    )
    against: str | None = setting(None, "Another output of the same recordings to compare with.")
    add_noise: tuple[float, ...] = setting(
        (),
        "Transcribe the recordings that have references again, under white noise so far below their speech, by the same"
        " options, into OUT/noise, and tell the errors: what are the transcripts worth in noise? For example 20,10,0.",
        "dB",
    )
    runner: str = setting("ray", "What --add-noise runs on.", choices=("ray", "local"))


@click.command(epilog="Example:  bulkscribe evaluate transcripts --references texts.csv --by language,duration")
@click.argument("transcripts", metavar="OUT")
@click.option(
    "--references",
    "given",
    metavar="FILE",
    help="A manifest (.csv .jsonl .parquet) with `uri` and `text` (and `translation`, `language`, `start` and `end`,"
    " `words`, any other columns), or a folder of .txt files. By default `reference` or `text` in the metadata of"
    " OUT's recordings.",
)
@settings(ReportOptions)
@settings(TextOptions)
@settings(EvaluationOptions)
@settings(ResampleOptions)
@stores
def command(transcripts: str, given: str | None, **values: Any) -> None:
    """Compare the transcripts in OUT with what was really said.

    OUT is what `transcribe --out` was given. Word and character error rates with confidence intervals, errors of times
    where the references have times, BLEU and chrF where OUT is a translation. Failed recordings count as deleted words.
    What people read goes to stderr; stdout has one JSON line with all totals.
    """
    report, resampling = collect(ReportOptions, values), collect(ResampleOptions, values)
    if report.out:
        frames.check_name(report.out)
    judge = _Judge(collect(TextOptions, values), collect(EvaluationOptions, values), resampling)
    references = read_references(given) if given else references_in(transcripts)
    first = judge.evaluate(transcripts, references)
    told = judge.totals(first, report)
    if report.add_noise:
        told["noise"] = judge.noise(transcripts, references, first, report)
    written = first.table
    if report.against:
        second = judge.evaluate(report.against, in_language_of(references, first.table))
        paired = pair(first, second)
        told["against"] = _rounded(difference(paired, resampling))
        judge.tell_difference(paired, told["against"], report)
        written = paired.table
    elif report.worst:
        judge.tell_worst(first, report.worst)
    if report.out:
        frames.write(written, report.out)
    click.echo(json.dumps(told))


@dataclass(frozen=True)
class _Judge:
    """Evaluates and tells, always by the same options."""

    texts: TextOptions
    options: EvaluationOptions
    resampling: ResampleOptions

    def evaluate(self, out: str, references: list[Reference]) -> Evaluation:
        return evaluate(out, references, self.texts, self.options)

    def totals(self, done: Evaluation, report: ReportOptions) -> dict[str, Any]:
        """Tell the totals and the groups; return them for the JSON line."""
        total = summary(done.table, done.translated, self.resampling)
        groups = {by: self._groups(done, by) for by in report.by}
        console = Console(stderr=True)
        console.print(_table("", {"all": total}, done.translated, self.resampling))
        for by, rows in groups.items():
            console.print(_table(by, rows, done.translated, self.resampling))
        times = done.times.summary()
        if times:
            console.print(_times_table(times))
        other = {} if done.translated else variants(done.table)
        _tell_notes(done, total | other)
        told = total | other | {"unreferenced": done.unreferenced, "unknown": done.unknown, "by_name": done.by_name}
        told |= {"metrics": translation.signatures()} if done.translated else {"normalizer": self.texts.normalizer}
        told |= {"by": groups, "times": times, "out": storage.redacted(report.out) if report.out else None}
        rounded: dict[str, Any] = _rounded(told)
        return rounded

    def _groups(self, done: Evaluation, by: str) -> dict[str, dict[str, Any]]:
        return {name: summary(rows, done.translated, self.resampling) for name, rows in grouped(done.table, by)}

    def noise(
        self, out: str, references: list[Reference], clean: Evaluation, report: ReportOptions
    ) -> dict[str, dict[str, Any]]:
        """Tell the totals at each signal-to-noise ratio; return them by its name."""
        curve = {}
        for ratio in report.add_noise:
            noised = transcribe_again(out, heard_of(clean.table), ratio, report.runner)
            done = self.evaluate(noised, in_language_of(references, clean.table))
            curve[f"{ratio:g} dB"] = summary(done.table, done.translated, self.resampling)
        rows = {"none": summary(clean.table, clean.translated, self.resampling), **curve}
        Console(stderr=True).print(_table("noise", rows, clean.translated, self.resampling))
        rounded: dict[str, dict[str, Any]] = _rounded(curve)
        return rounded

    def tell_worst(self, done: Evaluation, worst: int) -> None:
        """Show the recordings with the most errors a word."""
        table = done.table[done.table["counted"]].copy()
        table["badness"] = -table["chrf"] if done.translated else errors_of(table) / table["words"].clip(lower=1)
        table = table[table["badness"] > (-100 if done.translated else 0)]
        for _, row in table.sort_values("badness", ascending=False, kind="stable").head(worst).iterrows():
            click.echo(f"\n{_score(row, '', done.translated)}  {row['uri']}", err=True)
            self._beside(row, "hypothesis")

    def tell_difference(self, paired: Paired, told: dict[str, Any], report: ReportOptions) -> None:
        """Say which run is better, and show where they differ most."""
        for line in _difference_lines(paired, told):
            click.echo(line, err=True)
        table = paired.table.sort_values("change", kind="stable")
        worse = table[table["change"] > 0].tail(report.worst)[::-1]
        for title, rows in (("better", table[table["change"] < 0].head(report.worst)), ("worse", worse)):
            for _, row in rows.iterrows():
                scores = [_score(row, ending, paired.translated) for ending in ("", "_other")]
                click.echo(f"\n{title}: {scores[0]}, was {scores[1]}  {row['uri']}", err=True)
                for name in ("hypothesis", "hypothesis_other"):
                    self._beside(row, name)

    def _beside(self, row: pd.Series[Any], hypothesis: str) -> None:
        compared = text.compare(row["reference"], row[hypothesis], row["language"], self.texts)
        width = min(120, Console(stderr=True).width)
        for line in beside(text.align(compared.reference, compared.hypothesis), width):
            click.echo("  " + line, err=True)


def _table(title: str, rows: dict[str, dict[str, Any]], translated: bool, options: ResampleOptions) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, overflow="fold")
    level = f"{100 * options.confidence:g} %"
    names: tuple[str, ...]
    if translated:
        names = ("recordings", f"BLEU ({level})", f"chrF ({level})")
    else:
        names = ("recordings", "words", f"WER % ({level})", f"CER % ({level})", "sub", "del", "ins")
    for name in names:
        table.add_column(name, justify="right")
    for name, row in rows.items():
        if translated:
            cells = [_rate(row, "bleu", 1), _rate(row, "chrf", 1)]
        else:
            counts = (str(row[kind]) for kind in ("substitutions", "deletions", "insertions"))
            cells = [str(row["words"]), _rate(row, "wer", 100), _rate(row, "cer", 100), *counts]
        table.add_row(name, str(row["recordings"]), *cells)
    return table


def _times_table(times: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("times")
    for name in ("compared", "mean abs. s", "median abs. s", "median s", "within 50 ms", "100 ms", "200 ms"):
        table.add_column(name, justify="right")
    for kind, row in times.items():
        seconds = (f"{row[name]:.3f}" for name in ("mean_absolute_s", "median_absolute_s", "median_s"))
        shares = (f"{100 * row[f'within_{limit}_ms']:.1f} %" for limit in (50, 100, 200))
        compared = f"{row['compared']} of {row['in_reference']}"
        table.add_row(kind.replace("_", " "), compared, *seconds, *shares)
    return table


def _rate(row: dict[str, Any], name: str, factor: int) -> str:
    if row[name] is None:
        return "-"
    shown = f"{factor * row[name]:.1f}"
    if row[f"{name}_low"] is None:
        return shown
    return f"{shown} ({factor * row[f'{name}_low']:.1f} to {factor * row[f'{name}_high']:.1f})"


def _tell_notes(done: Evaluation, total: dict[str, Any]) -> None:
    notes = []
    if total["failed"]:
        without = total.get("wer_without_failed")
        rate = f"; without them the WER is {100 * without:.1f} %" if without is not None else ""
        notes.append(f"{total['failed']} failed recordings count as deleted words{rate}")
    if total["missing"]:
        with_them = total.get("wer_with_missing")
        rate = f"; with their words as deleted it is {100 * with_them:.1f} %" if with_them is not None else ""
        counted = "are counted as deleted words" if done.table["counted"].all() else "are not counted"
        notes.append(f"{total['missing']} references have no recording in the output and {counted}{rate}")
    if total.get("silent"):
        notes.append(f"{total['silent_with_text']} of {total['silent']} recordings where nothing is said have text")
    if done.unreferenced:
        notes.append(f"{done.unreferenced} recordings have no reference")
    if done.unknown:
        notes.append(f"{done.unknown} references have no text and are not counted")
    if done.by_name:
        notes.append(f"{done.by_name} references were found by the names of their files, not by their whole uris")
    if done.table["spaceless"].any() and not done.table["spaceless"].all():
        notes.append("in scripts without spaces the words are characters")
    for note in notes:
        click.echo(note, err=True)


def _difference_lines(paired: Paired, told: dict[str, Any]) -> list[str]:
    lines = [""]
    for name, factor in (("bleu", 1), ("chrf", 1)) if paired.translated else (("wer", 100),):
        if told.get(f"{name}_difference") is None:
            continue
        p = told.get("p" if name == "wer" else f"{name}_p")
        low, high = told[f"{name}_difference_low"], told[f"{name}_difference_high"]
        between = f" ({factor * low:+.2f} to {factor * high:+.2f})" if low is not None else ""
        unit = " points" if name == "wer" else ""
        sure = f", p = {p:.4f}" if p is not None else ""
        lines.append(f"{name.upper()} {factor * told[f'{name}_difference']:+.2f}{unit}{between}{sure}")
    if told["recordings"]:
        counts = f"{told['better']} better, {told['same']} same, {told['worse']} worse"
        lines.append(f"{100 * told['not_worse']:.1f} % of {told['recordings']} recordings did not get worse: {counts}")
    if told["only_first"] or told["only_second"]:
        lines.append(f"only in one of both, left out: {told['only_first']} and {told['only_second']}")
    return lines


def _score(row: pd.Series[Any], ending: str, translated: bool) -> str:
    if translated:
        return f"chrF {row['chrf' + ending]:.1f}"
    errors = sum(int(row[name + ending]) for name in ("substitutions", "deletions", "insertions"))
    rate = f"{100 * errors / row['words']:.1f} %" if row["words"] else "nothing is said"
    return f"{rate} ({errors} of {row['words']})"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value
