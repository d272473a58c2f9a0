"""`bulkscribe transcribe`: recordings in, Parquet transcripts out.

Policy and words; how it is done stands in `pipeline/`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from jobs import logs, second_opinion
from jobs.options import collect, row_values, settings, stores
from jobs.running import (
    JobOptions,
    exit_if_failed,
    interruptible,
    machines,
    resolved,
    tell_counts,
    tell_listing,
    tell_start,
    work,
)
from jobs.second_opinion import OpinionOptions
from pipeline import engines, links, outputs, phrases, run_files, storage
from pipeline.books import TRANSCRIPTS, transcripts_book
from pipeline.decode import DecodeOptions
from pipeline.doubts import DoubtOptions
from pipeline.errors import OpenError, UserError
from pipeline.ledger import Ledger
from pipeline.noise import NoiseOptions
from pipeline.passages import PassageOptions
from pipeline.phrases import Phrases
from pipeline.ray_options import RayOptions
from pipeline.recordings import Recordings
from pipeline.score import ScoreOptions
from pipeline.sources import resolve
from pipeline.speakers import SpeakerOptions
from pipeline.speech import SpeechOptions
from pipeline.stages import CutOptions, Plan, cut_stage, mark_stage, transcribe_stage
from pipeline.types import setting
from pipeline.voices.options import VoiceOptions
from pipeline.whisper.options import WhisperOptions


@dataclass(frozen=True)
class LanguageOptions:
    """What is known of the recordings."""

    language: str | None = setting(None, "Code of the language of all recordings; by default it is detected.")
    phrases: str | None = setting(
        None, "Lines to take for inventions beside those that ship: a .csv that `bulkscribe phrases` wrote.", rows=False
    )


@click.command(epilog="Example:  bulkscribe transcribe talks/ 's3://archive/radio/*.mp3' --out transcripts")
@click.argument("source", nargs=-1, required=True)
@click.option("--out", required=True, help="Folder or prefix for the tables; the same command run again resumes there.")
@settings(LanguageOptions)
@settings(JobOptions)
@stores
@settings(WhisperOptions)
@settings(SpeakerOptions)
@settings(VoiceOptions)
@settings(RayOptions)
@settings(SpeechOptions)
@settings(PassageOptions)
@settings(DecodeOptions)
@settings(ScoreOptions)
@settings(NoiseOptions)
@settings(OpinionOptions)
@settings(DoubtOptions)
def command(source: tuple[str, ...], out: str, **values: Any) -> None:
    """Transcribe recordings into Parquet tables.

    SOURCE is a file, a directory, a glob, a prefix in s3:// gs:// az:// abfs://, an http(s):// address, a manifest
    (.csv .jsonl .parquet with a `uri` column, and `start` and `end` for stretches), a .tar of audio, a .parquet with
    audio in it, or a podcast feed.
    Text, times and quality scores go to OUT/segments, one row a recording to OUT/recordings.
    """
    values = as_asked(values)
    job = collect(JobOptions, values)
    with logs.talking(job.log_json):
        counts = _job(source, out, job, values)
        click.echo(json.dumps(counts))
    exit_if_failed(counts, job)
    if "second_opinion" in counts:
        exit_if_failed(counts["second_opinion"] | {"already_done": 0}, job)


def as_asked(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a command's options with what they say of each other."""
    if values["link_speakers"] and not values["speakers"]:
        raise UserError("--link-speakers links what --speakers finds", "add --speakers")
    if values["reference"]:  # which knows no passages: a recording is one, whatever its pauses
        return values | {"passage_max_s": math.inf, "passage_max_gap_s": math.inf}
    return values


def as_made(out: str) -> dict[str, Any]:
    """Return the values of this command's options that `out` was made by; defaults for what changes no rows.

    Raises UserError where it does not say that.
    """
    config = run_files.latest_config(out, TRANSCRIPTS.what)
    if config is None:
        raise UserError(
            f"{storage.redacted(out)} does not say how it was made", "OUT/runs, which is missing, holds the options"
        )
    defaults = command.make_context("transcribe", [out, "--out", out]).params
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    return {name: given.get(name, value) for name, value in defaults.items() if name not in ("source", "out")}


def _job(source: Sequence[str], out: str, job: JobOptions, values: dict[str, Any]) -> dict[str, Any]:
    """List the recordings, transcribe them, ask for second opinions if wanted, and return the counts."""
    second_opinion.check(values)
    outputs.claim(out, outputs.OF_TRANSCRIBE)
    listing = resolve(source)
    tell_listing(listing)
    counts = transcribe(listing.recordings, out, job, values)
    if values["second_opinion"] is not None:
        counts["second_opinion"] = second_opinion.ask(listing.recordings, out, job, values)
    logs.say("ended", **counts)
    return counts


def transcribe(recordings: Recordings, out: str, job: JobOptions, values: dict[str, Any]) -> dict[str, Any]:
    """Transcribe the recordings that `out` has no row of yet, by the values of this command's options."""
    ray, shown = collect(RayOptions, values), storage.redacted(out)
    recordings = recordings.in_language(values["language"])
    with machines(job, ray) as where:
        whisper = resolved(collect(WhisperOptions, values), ray, where.gpus)
        engines.check(whisper, recordings.languages())
        config = _config(whisper, values) | {"phrases_sha256": _phrases(values["phrases"]).fingerprint()}
        book = transcripts_book(collect(SpeakerOptions, values))
        retry, over = job.retry_failed, job.take_over
        with (
            interruptible(shown, len(recordings)),
            Ledger.open(out, config, model=whisper.model, book=book, retry_failed=retry, take_over=over) as ledger,
        ):
            todo = ledger.todo(recordings)
            tell_start(ledger, len(recordings), len(todo), shown)
            counts = work(plan_of(whisper, ray, where.gpus, values), ledger, todo, where, book)
            if todo:
                tell_counts(counts)
    counts |= _linked(out, collect(SpeakerOptions, values))
    counts |= {"recordings": len(recordings), "already_done": len(recordings) - len(todo), "out": shown}
    return counts


def _linked(out: str, speakers: SpeakerOptions) -> dict[str, int]:
    """Link the speakers of all recordings in `out` where that is asked for; return what is to be told of it."""
    return {"people_in_several": links.link(out, speakers.link_threshold)} if speakers.link_speakers else {}


def _config(whisper: WhisperOptions, values: dict[str, Any]) -> dict[str, Any]:
    """Return everything that changes rows, by name: equal configurations give equal tables."""
    kinds = (LanguageOptions, DecodeOptions, SpeechOptions, PassageOptions, ScoreOptions, NoiseOptions)
    rows = [row_values(options) for options in (whisper, *(collect(kind, values) for kind in kinds))]
    speakers, voices = collect(SpeakerOptions, values), collect(VoiceOptions, values)
    told = {}  # nothing where speakers are not asked for: outputs without them stay what they are
    if speakers.speakers:
        told = row_values(speakers) | row_values(voices) | engines.describe_voices(voices)
    return {name: value for row in rows for name, value in row.items()} | engines.describe(whisper) | told


def _phrases(name: str | None) -> Phrases:
    """Return the list that ships, with the lines of the file `name`."""
    if name is None:
        return phrases.known()
    shown = storage.redacted(name)
    try:
        content = storage.read_bytes(name).decode("utf-8-sig")
    except (OpenError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {shown}: {error}", "a list of phrases is a .csv in UTF-8") from error
    return phrases.known().with_lines(phrases.parse(content, shown))


def plan_of(whisper: WhisperOptions, machines: RayOptions, gpus: int, values: dict[str, Any]) -> Plan:
    """Return the stages of a job."""
    cutting = CutOptions(
        collect(DecodeOptions, values),
        collect(SpeechOptions, values),
        collect(PassageOptions, values),
        collect(NoiseOptions, values),
    )
    on_gpu = float(whisper.device.startswith("cuda") and gpus > 0)
    return (
        cut_stage(cutting, machines.decode_labels),
        transcribe_stage(
            whisper,
            voices=collect(VoiceOptions, values) if values.get("speakers") else None,
            actors=machines.pool,
            cpus=machines.cpus_of_actor(on_gpu),
            gpus=on_gpu,
        ),
        mark_stage(collect(ScoreOptions, values), _phrases(values.get("phrases"))),
    )
