"""`bulkscribe clean`: weakly labelled pairs of audio and text -> those worth training on, with reasons, as examples."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from jobs.datasets import DatasetOptions, readers
from jobs.logs import say, wordy
from jobs.options import CommaList, collect, settings, stores
from pipeline import clean_card, cleaned, examples, outputs, storage
from pipeline.cleaning import EXAMPLES_OF_PAIRS, Choice, Cleaning, Result
from pipeline.errors import UserError
from pipeline.examples import ExampleOptions
from pipeline.pairs import read_pairs
from pipeline.readings import AudioOptions
from pipeline.shards import CARD, Dataset
from pipeline.tallies import Tallies
from pipeline.types import KEPT, setting
from pipeline.verdicts import REASONS, JudgeOptions

FORMATS = ("parquet", "webdataset")
WORST = 10  # sources that are shown
LOG_EVERY_S = 30.0


@dataclass(frozen=True)
class CardOptions(DatasetOptions):
    """What the card says, and how the job runs; nothing of it changes examples."""

    title: str = setting("Cleaned speech", "Title of the card (README.md).", rows=False)


@click.command(epilog="Example:  bulkscribe clean pairs.csv --transcripts first --out cleaned --drop-sources worst.txt")
@click.argument("sources", metavar="PAIRS...", nargs=-1, required=True)
@click.option("--out", required=True, metavar="CLEANED", help="Folder or prefix for the results.")
@click.option(
    "--transcripts",
    "heard",
    metavar="OUT",
    help="What `bulkscribe transcribe PAIRS --out OUT` has heard in the same audio. Without it texts are judged alone.",
)
@click.option(
    "--drop-sources",
    "drop",
    metavar="NAME,...|FILE",
    help="Drop all pairs of these sources. FILE has a name a line, or a column `source`, as CLEANED/sources.csv has.",
)
@click.option(
    "--format",
    "formats",
    type=CommaList(click.Choice(FORMATS)),
    default="parquet",
    show_default=True,
    metavar="LIST",
    help="Of the examples: parquet (Hugging Face `datasets`), webdataset, or both with a comma.",
)
@settings(JudgeOptions)
@settings(ExampleOptions)
@settings(AudioOptions, only=("audio",))
@settings(CardOptions)
@click.option("--retry-failed", is_flag=True, help="Try recordings again whose audio could not be read.")
@click.option("--take-over", is_flag=True, help="Do not ask whether another run is at work on CLEANED.")
@stores
def command(sources: tuple[str, ...], out: str, **values: Any) -> None:
    """Choose the pairs of audio and text that are worth training on, and make examples of them.

    PAIRS is a manifest (.csv .jsonl .parquet) with `uri` and `text`, tars or Parquet with texts beside the audio, or
    folders with a .srt, .vtt or .txt of the same name beside each file. First the texts are judged alone; what
    CLEANED/kept.jsonl names then is worth to `transcribe`. With --transcripts they are compared with what was heard,
    the worst sources are listed in CLEANED/sources.csv, and what is kept becomes training examples of at most 30 s in
    Whisper's own token format. Other thresholds or --drop-sources on the same CLEANED take no audio work again. Needs
    the extra `clean`.
    """
    formats, told = values["formats"], collect(CardOptions, values)
    choice = _choice(values)
    _check(choice, formats, told)
    outputs.claim(out, outputs.OF_CLEAN, [CARD, cleaned.SOURCES, cleaned.WATERFALL, cleaned.KEPT])
    pairs = read_pairs(sources)
    for note in pairs.notes:
        say("note", note)
    config = {"formats": sorted(set(formats)), **asdict(choice.example), "audio": choice.audio.audio}
    with Dataset.open(
        out,
        config,
        formats=formats,
        shard_bytes=told.shard_bytes,
        retry_failed=values["retry_failed"],
        take_over=values["take_over"],
        kind=EXAMPLES_OF_PAIRS,
    ) as dataset:
        work = _Work(dataset)
        with readers(told, dataset.deaths) as read_all:
            result = Cleaning(out, pairs, choice, dataset, read_all).run(work.begin, work.tick)
        counts = _counts(result, out)
        options = {**config, **_plain(choice.judge), "dropped_sources": result.dropped}
        page = clean_card.card(result.tallies, result.made, examples.REASONS, options, told.title, told.license)
        changed, gone = cleaned.changed(out, {**result.files, CARD: page})
        if changed or gone or result.read or result.removed:
            work.start()
            dataset.replace(changed, gone)
            dataset.finish(page, counts)
        else:
            say("note", "nothing to do: all is there as these options have it")
    _tell(result, counts, heard=bool(choice.heard))
    click.echo(json.dumps(counts))


def _choice(values: Mapping[str, Any]) -> Choice:
    example = collect(ExampleOptions, values)
    audio = AudioOptions(values["audio"], example.rate)
    return Choice(values["heard"], values["drop"], collect(JudgeOptions, values), example, audio)


def _check(choice: Choice, formats: Sequence[str], told: CardOptions) -> None:
    judge, example = choice.judge, choice.example
    if strange := sorted(set(judge.allow) - REASONS.keys()):
        raise UserError(f"--allow: there is no reason {strange[0]!r}", f"there are {', '.join(REASONS)}")
    if not formats:
        raise UserError("--format names no format", f"one of {', '.join(FORMATS)}")
    if not 8_000 <= example.rate <= 48_000:
        raise UserError(f"--rate {example.rate} is no rate for speech", "8000 to 48000; Whisper listens to 16000")
    told.check()


def _plain(judge: JudgeOptions) -> dict[str, Any]:
    return {k: None if v == math.inf else v for k, v in asdict(judge).items()}  # JSON has no infinity


class _Work:
    """The run of a data set that is begun once there is something to do, and how far it is."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self._started, self._total = dataset, False, 0
        self._logged = time.monotonic()

    def start(self) -> None:
        if not self._started:
            self._dataset.begin()
            self._started = True

    def begin(self, removed: int, total: int) -> None:
        self.start()
        self._total = total
        if removed:
            say("removed", f"{removed} recordings have other examples now, or none: theirs are taken out")
        if total:
            say("start", f"{total} recordings to cut into examples", recordings=total)

    def tick(self, done: int) -> None:
        if time.monotonic() - self._logged > LOG_EVERY_S:
            self._logged = time.monotonic()
            say("progress", f"{done}/{self._total} recordings", done=done, total=self._total)


def _counts(result: Result, out: str) -> dict[str, Any]:
    tallies = result.tallies
    reasons = tallies.reasons()
    kept, hours = reasons.pop(KEPT)
    return {
        "pairs": tallies.pairs,
        "hours": round(tallies.hours, 4),
        "kept": kept,
        "kept_hours": round(hours, 4),
        "translations": tallies.translations,
        "synthetic": tallies.marked_synthetic,
        "reasons": {reason: count for reason, (count, _) in reasons.items()},
        "reason_hours": {reason: round(hours, 4) for reason, (_, hours) in reasons.items()},
        "languages": {language: round(hours, 4) for language, hours in tallies.languages().items()},
        "compared": result.compared,
        "recordings_read": result.read,
        "recordings_removed": result.removed,
        **result.made.counts(),
        "out": storage.redacted(out),
    }


def _tell(result: Result, counts: Mapping[str, Any], *, heard: bool) -> None:
    tallies, found, out = result.tallies, result.made, counts["out"]
    left = tallies.hours
    for reason, (count, hours) in tallies.reasons().items():
        if reason != KEPT:
            left -= hours
            words = f"{count} pairs, {hours:.2f} h, {left:.2f} h left: {reason}: {REASONS[reason]}"
            say("reason", words, reason=reason, count=count, hours=hours)
    if tallies.unknown_lengths:
        say("note", f"{tallies.unknown_lengths} pairs have no known length: hours leave them out")
    if heard:
        _tell_sources(tallies, out)
        say("done", f"{found.examples} examples, {found.seconds / 3600:.2f} h, from {counts['kept']} pairs, in {out}")
        return
    say("done", f"{counts['kept']} of {tallies.pairs} pairs kept by their texts alone, in {out}")
    if not counts["kept"]:
        return
    manifest = storage.join(out, cleaned.KEPT)
    say(
        "next",
        f"no audio was heard: `bulkscribe transcribe {manifest} --out FIRST`, then this command with"
        " --transcripts FIRST judges languages and errors, and makes the examples",
    )


def _tell_sources(tallies: Tallies, out: str) -> None:
    """Show the sources that do the most harm."""
    table = tallies.sources()
    table = table[(table["badness"] > 0) & ~table["dropped"]].head(WORST)
    if table.empty or not wordy():
        return
    shown = Table(box=None, pad_edge=False)
    shown.add_column("worst sources", overflow="fold")
    for name in ("mean WER %", "hours", "WER x h", "pairs", "worst pair"):
        shown.add_column(name, justify="left" if name == "worst pair" else "right", overflow="fold")
    for row in table.to_dict("records"):
        numbers = f"{100 * row['mean_wer']:.1f}", f"{row['compared_hours']:.2f}", f"{row['badness']:.3f}"
        shown.add_row(row["source"], *numbers, str(row["compared"]), row["worst_uri"].rpartition("/")[2])
    Console(stderr=True).print(shown)
    click.echo(f"look at them in {storage.join(out, cleaned.SOURCES)}; drop with --drop-sources NAME,...", err=True)
