"""`bulkscribe pseudo-label`: finished transcripts -> a data set of clips for training, with reasons for each."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from jobs import second_opinion, transcribe
from jobs.datasets import DatasetOptions, readers
from jobs.logs import say
from jobs.options import CommaList, collect, settings, stores
from jobs.running import JobOptions
from jobs.second_opinion import OpinionOptions
from pipeline import gates, outputs, rows, storage
from pipeline.candidates import PRESETS, SPLITS, Corpus, Plan, SplitOptions, fingerprint, with_lengths
from pipeline.card import CLIP_COLUMNS, ORIGIN_COLUMNS, Totals, card, totals
from pipeline.doubts import DoubtOptions
from pipeline.errors import UserError
from pipeline.gates import GateOptions
from pipeline.layouts import LAYOUTS, index_names
from pipeline.readers import Readers
from pipeline.readings import AudioOptions, ClipReader, Reading, Row
from pipeline.recordings import Recordings
from pipeline.shards import CARD, Dataset
from pipeline.transcripts import recordings, transcripts
from pipeline.types import NOT_NEGATIVE, setting

LOG_EVERY_S = 30.0  # without a terminal


@dataclass(frozen=True)
class LengthOptions:
    """How long clips are."""

    min_s: float | None = setting(
        None, "Shortest clip; by default the preset's: 3 (asr, lid) or 2 (tts).", "s", within=NOT_NEGATIVE
    )
    max_s: float | None = setting(None, "Longest clip; by default the preset's: 30 (asr, lid) or 15 (tts).", "s")


@dataclass(frozen=True)
class CardOptions(DatasetOptions):
    """What the card says, and how the job runs; nothing of it changes clips."""

    title: str = setting("Pseudo-labelled speech", "Title of the card (README.md).", rows=False)


@click.command(
    epilog="Example:  bulkscribe pseudo-label transcripts --out dataset --preset tts --format parquet,lhotse"
)
@click.argument("transcripts_in", metavar="OUT")
@click.option("--out", required=True, metavar="DATASET", help="Folder or prefix for the data set.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="asr",
    show_default=True,
    help="What the clips are for: speech recognition, text to speech, or language identification.",
)
@click.option(
    "--format",
    "formats",
    type=CommaList(click.Choice(list(LAYOUTS))),
    default="parquet",
    show_default=True,
    metavar="LIST",
    help="parquet (Hugging Face `datasets`), webdataset, ljspeech, nemo, lhotse, or several with commas.",
)
@settings(LengthOptions)
@settings(GateOptions)
@settings(SplitOptions)
@settings(AudioOptions)
@settings(CardOptions)
@settings(OpinionOptions)
@settings(DoubtOptions)
@click.option("--retry-failed", is_flag=True, help="Try recordings again whose audio could not be read.")
@click.option("--take-over", is_flag=True, help="Do not ask whether another run is at work on DATASET.")
@stores
def command(
    transcripts_in: str,
    out: str,
    preset: str,
    formats: tuple[str, ...],
    retry_failed: bool,
    take_over: bool,
    **values: Any,
) -> None:
    """Cut the recordings that were transcribed into OUT into clips for training.

    Clips begin and end in silence, at ends of sentences where there are some; `transcribe --words` makes that exact.
    The audio is read from the sources again. Every candidate is a row in DATASET/clips with its numbers and the reasons
    why it was not kept. With --second-opinion, doubtful segments are first transcribed again, here and by OUT's own
    options: --max-second-wer and --max-second-edge-cer judge by that. With --address a Ray cluster does the reading.
    Needs the extra `datasets`. The same command, run again, goes on where it stopped; stdout has one JSON line of
    counts.
    """
    audio, told = collect(AudioOptions, values), collect(CardOptions, values)
    plan = _plan(PRESETS[preset], values)
    _check(audio, plan, formats, told)
    outputs.claim(out, outputs.OF_PSEUDO_LABEL, [CARD, *index_names(formats, SPLITS)])
    asked = _second_opinion(transcripts_in, values, told) if values["second_opinion"] is not None else {}
    config = _config(preset, plan, audio, formats) | {"transcripts": fingerprint(transcripts_in)}
    with Dataset.open(
        out,
        config,
        formats=formats,
        shard_bytes=told.shard_bytes,
        retry_failed=retry_failed,
        take_over=take_over,
    ) as dataset:
        count, models, words = _look(transcripts_in, plan.splits.split_by)
        if not words and preset != "lid":
            say("note", "OUT has no words with times: clips are cut at segments; `transcribe --words` cuts finer")
        idle = len(dataset.done) == count and dataset.finished
        if not idle:
            with readers(told, dataset.deaths) as read_all:
                dataset.begin()
                _fill(dataset, transcripts_in, plan, audio, read_all, count)
        found = totals(dataset.tables("clips", CLIP_COLUMNS), dataset.tables("origins", ORIGIN_COLUMNS))
        if idle:
            say("note", "nothing to do: the data set is finished")
        else:
            dataset.finish(card(found, config, models, told.title, told.license), found.counts())
    _tell(found, out)
    click.echo(json.dumps({**found.counts(), **asked, "out": storage.redacted(out)}))


def _plan(preset: Plan, values: dict[str, Any]) -> Plan:
    lengths = collect(LengthOptions, values)
    chosen = gates.filled(collect(GateOptions, values), preset.gates)
    plan = replace(preset, gates=chosen, splits=collect(SplitOptions, values))
    return with_lengths(plan, lengths.min_s, lengths.max_s)


def _check(audio: AudioOptions, plan: Plan, formats: tuple[str, ...], told: CardOptions) -> None:
    if not formats:
        raise UserError("--format names no format", f"one of {', '.join(LAYOUTS)}")
    if audio.rate is not None and not 8_000 <= audio.rate <= 192_000:
        raise UserError(f"--rate {audio.rate} is no rate for speech", "8000 to 192000, such as 16000 or 24000")
    if plan.clips.max_s <= max(1.0, plan.clips.min_s):
        raise UserError("--max-s must be over 1 s and over --min-s", "for example --min-s 3 --max-s 20")
    if strange := [code for code in plan.gates.languages or () if not re.fullmatch("[a-z]{2,3}", code)]:
        raise UserError(f"--languages: {strange[0]} is no code of a language", "for example --languages en,de")
    if plan.splits.validation + plan.splits.test > 1:
        raise UserError("--validation and --test are shares of the recordings", "for example --test 0.05")
    told.check()


def _second_opinion(out: str, values: dict[str, Any], told: CardOptions) -> dict[str, Any]:
    """Ask for second opinions on the transcripts, as far as they are not there yet; return what that took."""
    chosen = {name: values[name] for kind in (OpinionOptions, DoubtOptions) for name in kind.__dataclass_fields__}
    made = transcribe.as_made(out) | chosen | {"address": told.address, "decode_on": told.decode_on}
    second_opinion.check(made)
    heard = Recordings.of(rows.recording_of(row) for table in recordings(out) for row in table.to_pylist())
    job = JobOptions(runner="ray" if told.address else "local")
    return {"second_opinion": second_opinion.ask(heard, out, job, made)}


def _config(preset: str, plan: Plan, audio: AudioOptions, formats: tuple[str, ...]) -> dict[str, Any]:
    """Return what decides which clips there are, and what they are like."""
    values = asdict(plan.clips) | asdict(plan.gates) | asdict(plan.splits) | asdict(audio)
    plain = {name: None if value == math.inf else value for name, value in values.items()}  # JSON has no infinity
    return {"preset": preset, "formats": sorted(set(formats)), **plain}


def _look(out: str, split_by: str | None) -> tuple[int, set[str], bool]:
    """Return how many recordings there are, by which models they were transcribed, and whether words have times.

    UserError where no recording has the column `split_by`.
    """
    count, models, columns = 0, set[str](), set[str]()
    for table in recordings(out, ["model", "metadata"]):
        count += table.num_rows
        models.update(table["model"].to_pylist())
        if split_by is not None:
            columns.update(*map(json.loads, table["metadata"].to_pylist()))
    if count and split_by is not None and split_by not in columns:
        there = f"there are {', '.join(sorted(columns))}" if columns else "the manifest had no other columns"
        raise UserError(f"--split-by {split_by}: no recording has such a column", there)
    return count, models, bool(storage.names(storage.join(out, "words")))


def _fill(dataset: Dataset, out: str, plan: Plan, audio: AudioOptions, read_all: Readers, count: int) -> None:
    corpus = Corpus(out, plan)
    if len(dataset.done) == count:  # killed before the card was written
        return
    with _Progress(count, len(dataset.done)) as progress:
        corpus.survey(progress.surveyed)
        for reading in read_all(_work(dataset, out, corpus), ClipReader(audio, plan.gates)):
            dataset.add(reading, corpus.split(reading.recording))
            progress.read(reading)
        dataset.flush()


def _work(dataset: Dataset, out: str, corpus: Corpus) -> Iterator[tuple[Row, list[Row]]]:
    for one in transcripts(out, words=True, opinions=True):
        if one.recording["recording_id"] not in dataset.done:
            yield one.recording, corpus.rows(one)


class _Progress:
    """How far the job is: a live line on a terminal, log lines elsewhere."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._begun = total, done, done
        self._clips, self._kept_s = 0, 0.0
        self._since = self._logged = time.monotonic()
        self._console = Console(stderr=True)
        self._live = Live(Text(""), console=self._console, transient=True, refresh_per_second=4)

    def __enter__(self) -> _Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def surveyed(self, clips: int) -> None:
        self._show(f"looking at transcripts: {clips} candidates")

    def read(self, reading: Reading) -> None:
        self._done += 1
        self._clips += len(reading.kept)
        self._kept_s += sum(clip.row["end"] - clip.row["start"] for clip in reading.kept)
        left = (time.monotonic() - self._since) * (self._total - self._done) / (self._done - self._begun)
        self._show(
            f"{self._done}/{self._total} recordings, {self._clips} clips kept, {self._kept_s / 3600:.2f} h,"
            f" about {left / 60:.0f} min left"
        )

    def _show(self, line: str) -> None:
        if self._console.is_terminal:
            self._live.update(Text(line))
        elif time.monotonic() - self._logged > LOG_EVERY_S:
            self._logged = time.monotonic()
            say("progress", line, done=self._done, total=self._total)


def _tell(found: Totals, out: str) -> None:
    say("done", f"{found.clips} of {found.candidates} clips kept, {found.hours:.2f} h, in {storage.redacted(out)}")
    for reason, count in found.reasons.most_common():
        say("reason", f"{count} x {reason}: {gates.REASONS[reason]}", reason=reason, count=count)
    for kind, count in found.failures.most_common():
        say("failures", f"{count} recordings: {kind}", kind=kind, count=count)
