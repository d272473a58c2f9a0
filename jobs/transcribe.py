"""`bulkscribe transcribe`: recordings in, Parquet transcripts out.

Policy and words; how it is done stands in `pipeline/`.
"""

from __future__ import annotations

import glob
import json
import math
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from jobs import logs
from jobs.options import collect, row_values, settings, stores
from jobs.progress import Progress
from pipeline import engines, metrics, phrases, storage
from pipeline.decode import DecodeOptions
from pipeline.errors import OpenError, UserError
from pipeline.ledger import Ledger
from pipeline.noise import NoiseOptions
from pipeline.passages import PassageOptions
from pipeline.phrases import Phrases
from pipeline.recordings import Recordings
from pipeline.run import RayOptions, RayRunner, Runner, complete, local
from pipeline.score import ScoreOptions
from pipeline.sources import Listing, resolve
from pipeline.speech import SpeechOptions
from pipeline.stages import CutOptions, Plan, cut_stage, mark_stage, transcribe_stage
from pipeline.types import SAMPLE_RATE, Recording, setting
from pipeline.watched import LocalRunner
from pipeline.whisper import precision
from pipeline.whisper.options import WhisperOptions


@dataclass(frozen=True)
class JobOptions:
    """What the job itself decides."""

    language: str | None = setting(None, "Code of the language of all recordings; by default it is detected.")
    runner: str = setting(
        "ray", "Ray Data, on this machine or a cluster; or a plain loop.", rows=False, choices=("ray", "local")
    )
    phrases: str | None = setting(
        None, "Lines to take for inventions beside those that ship: a .csv that `bulkscribe phrases` wrote.", rows=False
    )
    retry_failed: bool = setting(False, "Take failed recordings up again.", rows=False)
    take_over: bool = setting(
        False, "Write to --out even if another run seems to be at work there; that one stops.", rows=False
    )
    log_json: bool = setting(False, "Tell on stderr what happens as JSON, an object a line.", rows=False)
    max_failed: float = setting(0.5, "Exit with an error when a larger share of the recordings failed.", rows=False)


@click.command(epilog="Example:  bulkscribe transcribe talks/ 's3://archive/radio/*.mp3' --out transcripts")
@click.argument("source", nargs=-1, required=True)
@click.option("--out", required=True, help="Folder or prefix for the tables; the same command run again resumes there.")
@settings(JobOptions)
@stores
@settings(WhisperOptions)
@settings(RayOptions)
@settings(SpeechOptions)
@settings(PassageOptions)
@settings(DecodeOptions)
@settings(ScoreOptions)
@settings(NoiseOptions)
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
    if counts["failed"] > job.max_failed * max(1, counts["recordings"] - counts["already_done"]):
        sys.exit(1)


def as_asked(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a command's options with what they say of each other."""
    if values["reference"]:  # which knows no passages: a recording is one, whatever its pauses
        return values | {"passage_max_s": math.inf, "passage_max_gap_s": math.inf}
    return values


def _job(source: Sequence[str], out: str, job: JobOptions, values: dict[str, Any]) -> dict[str, Any]:
    """List the recordings, transcribe them, and return the counts."""
    listing = resolve(source)
    tell_listing(listing)
    return transcribe(listing.recordings, out, job, values)


def transcribe(recordings: Recordings, out: str, job: JobOptions, values: dict[str, Any]) -> dict[str, Any]:
    """Transcribe the recordings that `out` has no row of yet, by the values of this command's options."""
    machines, shown = collect(RayOptions, values), storage.redacted(out)
    recordings = recordings.in_language(job.language)
    with _machines(job, machines) as where:
        whisper = resolved(collect(WhisperOptions, values), machines, where.gpus)
        engines.check_languages(whisper, recordings.languages())
        config = _config(whisper, job, values) | {"phrases_sha256": _phrases(job.phrases).fingerprint()}
        with (
            _interruptible(shown, len(recordings)),
            Ledger.open(
                out, config, model=whisper.model, retry_failed=job.retry_failed, take_over=job.take_over
            ) as ledger,
        ):
            todo = ledger.todo(recordings)
            _tell_start(ledger, len(recordings), len(todo), shown)
            counts = _run(plan_of(whisper, machines, where.gpus, values), ledger, todo, where)
    counts |= {"recordings": len(recordings), "already_done": len(recordings) - len(todo), "out": shown}
    logs.say("ended", **counts)
    return counts


@contextmanager
def _interruptible(out: str, recordings: int) -> Iterator[None]:
    """Let SIGTERM end the job as Ctrl-C does, and say how to go on after the ledger has committed what is complete."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        words = f"what is complete of {recordings} recordings is in {out}; run the same command to go on"
        logs.say("interrupted", words, out=out)
        raise


@dataclass(frozen=True)
class _Machines:
    """Where the plan runs."""

    runner: Runner
    gpus: int
    export: Callable[[Iterable[metrics.Sample]], None]
    work: Callable[[], Mapping[str, Iterable[metrics.Reading]]]  # by stage, of each worker


@contextmanager
def _machines(job: JobOptions, options: RayOptions) -> Iterator[_Machines]:
    """Give what runs the plan. Ray starts with its runner's first call: a finished job ends at once."""
    if job.runner == "local":
        here = LocalRunner(local)
        yield _Machines(here, gpus_here(), lambda _: None, here.work)
        return
    ray = RayRunner(options)
    with logs.stdout_is_data():
        try:
            yield _Machines(ray, ray.gpus() if options.address else gpus_here(), ray.export, ray.work)
        finally:
            ray.close()


def gpus_here() -> int:
    """Count this machine's NVIDIA GPUs without loading torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return 0 if hidden else len(glob.glob("/dev/nvidia[0-9]*"))


def resolved(options: WhisperOptions, machines: RayOptions, gpus: int) -> WhisperOptions:
    """Spell `auto` out: what is hashed and what the actors do must not differ."""
    device = options.device if options.device != "auto" else "cuda" if gpus else "cpu"
    cores = max(1, (os.cpu_count() or 1) // machines.pool[0])  # actors on one machine share its cores
    return replace(
        options,
        device=device,
        dtype=precision.automatic(device) if options.dtype == "auto" else options.dtype,
        threads=options.threads or (0 if machines.address else cores),
    )


def _config(whisper: WhisperOptions, job: JobOptions, values: dict[str, Any]) -> dict[str, Any]:
    """Return everything that changes rows, by name: equal configurations give equal tables."""
    others = (
        collect(kind, values) for kind in (DecodeOptions, SpeechOptions, PassageOptions, ScoreOptions, NoiseOptions)
    )
    rows = [row_values(options) for options in (whisper, job, *others)]
    return {name: value for row in rows for name, value in row.items()} | engines.describe(whisper)


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
        transcribe_stage(whisper, actors=machines.pool, cpus=machines.cpus_of_actor(on_gpu), gpus=on_gpu),
        mark_stage(collect(ScoreOptions, values), _phrases(values.get("phrases"))),
    )


def _run(plan: Plan, ledger: Ledger, todo: Sequence[Recording], where: _Machines) -> dict[str, Any]:
    """Run the plan over `todo`, say how far it is, and return the counts."""
    statuses: Counter[str] = Counter({"ok": 0, "partial": 0, "failed": 0})
    samples_heard = segments = flagged = omissions = omitted = 0
    with (
        _work_noted(ledger, where),
        Progress(todo) as progress,
        closing(complete(plan, ledger, todo, where.runner)) as receipts,
    ):
        for finished, samples in receipts:
            progress.update(finished, samples)
            for item in finished:
                logs.say_finished(item)
            where.export(metrics.samples(finished, progress.left))
            statuses.update(item.outcome.status for item in finished)
            samples_heard += sum(item.outcome.duration for item in finished)  # once, though passages may come twice
            segments += sum(len(item.segments) for item in finished)
            flagged += sum(bool(segment.flags) for item in finished for _, segment in item.segments)
            omissions += sum(len(item.omissions) for item in finished)
            omitted += sum(one.speech for item in finished for one in item.omissions)
    heard_s, wall_s = samples_heard / SAMPLE_RATE, progress.elapsed_s
    counts: dict[str, Any] = dict(statuses)
    counts |= {"segments": segments, "flagged_segments": flagged}
    counts |= {
        "omissions": omissions,
        "omitted_s": round(omitted / SAMPLE_RATE, 1),
        "audio_hours": round(heard_s / 3600, 4),
    }
    counts |= {"wall_s": round(wall_s, 1), "times_real_time": round(heard_s / max(wall_s, 1e-9), 2)}
    if todo and logs.wordy():
        _tell_counts(counts)
    return counts


@contextmanager
def _work_noted(ledger: Ledger, where: _Machines) -> Iterator[None]:
    """Put into the run's file what the workers did, when they have ended or the job is interrupted."""
    try:
        yield
    finally:
        ledger.note(work=metrics.summary(where.work()))


def tell_listing(listing: Listing) -> None:
    """Say what was left out of a listing."""
    if listing.passed_over:
        words = f"passed over {listing.passed_over} files without an audio or video ending"
        logs.say("passed_over", words, files=listing.passed_over)
    for note in listing.notes:
        logs.say("note", note)
    if listing.doubles:
        words = f"{listing.doubles} recordings were named more than once; each is taken once"
        logs.say("doubles", words, recordings=listing.doubles)


def _tell_start(ledger: Ledger, recordings: int, left: int, out: str) -> None:
    logs.known_as(ledger.run_id)
    done, words = recordings - left, ""
    if done and left:
        words = f"{done} recordings are done in {out}; {left} to go"
    elif not left:
        words = f"all {done} recordings are done in {out}; nothing to do"
    logs.say("started", words, out=out, recordings=recordings, already_done=done, to_do=left)


def _tell_counts(counts: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in counts.items():
        table.add_row(name.replace("_", " "), str(value))
    Console(stderr=True).print(table)
