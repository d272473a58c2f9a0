"""`bulkscribe filter`: which recordings are worth transcribing, by a cheap look at each.

Policy and words; how it is done stands in `pipeline/`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from jobs import logs
from jobs.options import collect, row_values, settings, stores
from jobs.running import (
    JobOptions,
    Machines,
    exit_if_failed,
    interruptible,
    machines,
    resolved,
    tell_counts,
    tell_listing,
    tell_start,
    work,
)
from pipeline import engines, kept, outputs, run_files, storage
from pipeline.books import Book, decisions_book
from pipeline.decision_rows import read_surveys
from pipeline.decisions import FilterOptions, decide
from pipeline.decode import DecodeOptions
from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.looks import LookingOptions, LookOptions, look_stage, screen_stage
from pipeline.ray_options import RayOptions
from pipeline.recordings import Recordings
from pipeline.sources import resolve
from pipeline.speech import SpeechOptions
from pipeline.stages import Plan
from pipeline.types import SHARE, setting
from pipeline.whisper.options import WhisperOptions

EARS = ("model", "device", "dtype", "threads")  # what of the engine's options a cheap look needs


@dataclass(frozen=True)
class ManifestOptions:
    """What is written of the kept recordings."""

    sure_language: float = setting(
        0.9,
        "Name a recording's language in kept.jsonl, so that it is not detected again, from this probability on.",
        within=SHARE,
    )


@click.command(
    epilog="Example:  bulkscribe filter archive/ --out kept --language en,de --min-speech 0.5, then bulkscribe"
    " transcribe kept/kept.jsonl --out transcripts"
)
@click.argument("source", nargs=-1)
@click.option("--out", required=True, help="Folder or prefix for decisions and manifest; run again, it resumes there.")
@click.option(
    "--from",
    "earlier",
    default=None,
    metavar="OUT",
    help="Decide anew by the numbers in an earlier --out, instead of SOURCE: no audio is opened.",
)
@settings(FilterOptions)
@settings(ManifestOptions)
@settings(JobOptions)
@stores
@settings(LookOptions)
@settings(WhisperOptions, only=EARS)
@settings(RayOptions)
@settings(SpeechOptions)
@settings(DecodeOptions)
def command(source: tuple[str, ...], out: str, earlier: str | None, **values: Any) -> None:
    """Choose recordings by language and by presence of speech, without transcribing them.

    A few stretches of each recording are searched for speech, and the model listens to some of those: it says which
    language that is, and whether it is speech at all. SOURCE is what `transcribe` takes.

    OUT/decisions has a row a recording with all numbers, the decision and its reason. OUT/kept.jsonl lists what was
    kept: a manifest for `transcribe`.
    """
    if bool(source) == (earlier is not None):
        raise UserError("name SOURCE or --from, one of them", "bulkscribe filter --help shows an example")
    job = collect(JobOptions, values)
    with logs.talking(job.log_json):
        outputs.claim(out, outputs.OF_FILTER, [kept.KEPT])
        counts = _again(earlier, out, job, values) if earlier is not None else _job(source, out, job, values)
        logs.say("ended", **counts)
        click.echo(json.dumps(counts))
    exit_if_failed(counts, job)


def _job(source: Sequence[str], out: str, job: JobOptions, values: dict[str, Any]) -> dict[str, Any]:
    """Look at the recordings, decide, and return the counts."""
    ray, shown, book = collect(RayOptions, values), storage.redacted(out), _book(values)
    listing = resolve(source)
    tell_listing(listing)
    with machines(job, ray) as where:
        whisper = resolved(collect(WhisperOptions, values), ray, where.gpus)
        engines.check(whisper, set(collect(FilterOptions, values).language))
        config = _config(whisper, values)
        with (
            interruptible(shown, len(listing.recordings)),
            Ledger.open(
                out, config, model=whisper.model, book=book, retry_failed=job.retry_failed, take_over=job.take_over
            ) as ledger,
        ):
            todo = ledger.todo(listing.recordings)
            tell_start(ledger, len(listing.recordings), len(todo), shown)
            counts = work(_plan(whisper, ray, where, values), ledger, todo, where, book)
    return _ended(out, counts, len(listing.recordings), len(todo), values)


def _again(earlier: str, out: str, job: JobOptions, values: dict[str, Any]) -> dict[str, Any]:
    """Decide by the numbers that stand in `earlier`, and return the counts."""
    book, options, shown = _book(values), collect(FilterOptions, values), storage.redacted(out)
    recordings = Recordings.of(
        one.outcome.recording for table in kept.decisions(earlier) for one in read_surveys(table)
    )
    config, model = _config_of(earlier)
    counts: dict[str, float] = dict.fromkeys(("ok", "partial", "failed", *book.counted), 0)
    with (
        interruptible(shown, len(recordings)),
        Ledger.open(
            out,
            config | row_values(options),
            model=model,
            book=book,
            retry_failed=job.retry_failed,
            take_over=job.take_over,
        ) as ledger,
    ):
        todo = ledger.todo(recordings)
        tell_start(ledger, len(recordings), len(todo), shown)
        for table in kept.decisions(earlier) if todo else ():
            for found in read_surveys(table):
                decided = decide(found, options)
                if ledger.take(decided):
                    for name, count in {decided.outcome.status: 1, **book.counts(decided)}.items():
                        counts[name] += count
    return _ended(out, counts, len(recordings), len(todo), values)


def _ended(out: str, counts: Mapping[str, Any], recordings: int, done: int, values: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest; return the counts of this run, and of all that the output holds."""
    reasons = kept.write(out, collect(ManifestOptions, values).sure_language)
    told = {
        **counts,
        "recordings": recordings,
        "already_done": recordings - done,
        "reasons": dict(sorted(reasons.items())),
    }
    told |= {"out": storage.redacted(out), "manifest": storage.redacted(storage.join(out, kept.KEPT))}
    if done:
        tell_counts(told)
    return told


def _book(values: dict[str, Any]) -> Book:
    return decisions_book(collect(FilterOptions, values))


def _config(whisper: WhisperOptions, values: dict[str, Any]) -> dict[str, Any]:
    """Return everything that changes rows, by name."""
    ears = {name: value for name, value in row_values(whisper).items() if name in EARS}
    kinds = (LookOptions, DecodeOptions, SpeechOptions, FilterOptions)
    rows = [ears, *(row_values(collect(kind, values)) for kind in kinds)]
    return {name: value for row in rows for name, value in row.items()} | engines.describe(whisper)


def _config_of(out: str) -> tuple[dict[str, Any], str]:
    """Return the configuration of an output's rows, and the name of its model."""
    row = next(kept.decisions(out)).slice(0, 1).to_pylist()[0]
    config = run_files.find_config(out, row["config_hash"])
    if config is None:
        raise UserError(f"the options of {out} are lost: none of its runs' files spells them out", "filter SOURCE anew")
    return config, row["model"]


def _plan(whisper: WhisperOptions, ray: RayOptions, where: Machines, values: dict[str, Any]) -> Plan:
    looking = LookingOptions(
        collect(LookOptions, values), collect(DecodeOptions, values), collect(SpeechOptions, values)
    )
    on_gpu = float(whisper.device.startswith("cuda") and where.gpus > 0)
    return (
        look_stage(looking, ray.decode_labels),
        screen_stage(whisper, actors=ray.pool, cpus=ray.cpus_of_actor(on_gpu), gpus=on_gpu),
    )
