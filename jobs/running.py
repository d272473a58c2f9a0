"""What all long jobs share: where they run, how they are interrupted, what they say, and their counts.

Policy and words; how it is done stands in `pipeline/`.
"""

from __future__ import annotations

import glob
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs import logs
from jobs.progress import Progress
from pipeline import metrics
from pipeline.books import Book
from pipeline.ledger import Ledger
from pipeline.ray_options import RayOptions
from pipeline.rounds import Runner, complete, local
from pipeline.run import RayRunner
from pipeline.sources import Listing
from pipeline.stages import Plan
from pipeline.types import SAMPLE_RATE, SHARE, Recording, setting
from pipeline.watched import LocalRunner
from pipeline.whisper import precision
from pipeline.whisper.options import WhisperOptions


@dataclass(frozen=True)
class JobOptions:
    """What the job itself decides."""

    runner: str = setting(
        "ray", "Ray Data, on this machine or a cluster; or a plain loop.", rows=False, choices=("ray", "local")
    )
    retry_failed: bool = setting(False, "Take failed recordings up again.", rows=False)
    take_over: bool = setting(
        False, "Write to --out even if another run seems to be at work there; that one stops.", rows=False
    )
    log_json: bool = setting(False, "Tell on stderr what happens as JSON, an object a line.", rows=False)
    max_failed: float = setting(
        0.5, "Exit with an error when a larger share of the recordings failed.", rows=False, within=SHARE
    )


@contextmanager
def interruptible(out: str, recordings: int) -> Iterator[None]:
    """Let SIGTERM end the job as Ctrl-C does, and say how to go on after the ledger has committed what is complete."""
    came = False

    def end(*_: object) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        yield
    except BaseException as error:
        # A library that is just being imported makes an ImportError of the interrupt.
        if not came and not isinstance(error, KeyboardInterrupt):
            raise
        words = f"what is complete of {recordings} recordings is in {out}; run the same command to go on"
        logs.say("interrupted", words, out=out)
        raise KeyboardInterrupt from error


@dataclass(frozen=True)
class Machines:
    """Where the plan runs."""

    runner: Runner
    gpus: int
    export: Callable[[Iterable[metrics.Sample]], None]
    work: Callable[[], Mapping[str, Iterable[metrics.Reading]]]  # by stage, of each worker


@contextmanager
def machines(job: JobOptions, options: RayOptions) -> Iterator[Machines]:
    """Give what runs the plan. Ray starts with its runner's first call: a finished job ends at once."""
    if job.runner == "local":
        here = LocalRunner(local)
        yield Machines(here, gpus_here(), lambda _: None, here.work)
        return
    ray = RayRunner(options)
    with logs.stdout_is_data():
        try:
            yield Machines(ray, ray.gpus() if options.address else gpus_here(), ray.export, ray.work)
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


def work(
    plan: Plan,
    ledger: Ledger,
    todo: Sequence[Recording],
    where: Machines,
    book: Book,
) -> dict[str, Any]:
    """Run the plan over `todo`, say how far it is, and return the counts."""
    counted: dict[str, float] = dict.fromkeys(("ok", "partial", "failed", *book.counted), 0)
    samples_heard = 0
    with (
        _work_noted(ledger, where),
        Progress(todo) as progress,
        closing(complete(plan, ledger, todo, where.runner)) as receipts,
    ):
        for finished, samples in receipts:
            progress.update(finished, samples)
            for item in finished:
                logs.say_finished(item)
                counted[item.outcome.status] += 1
                for name, count in book.counts(item).items():
                    counted[name] += count
            where.export(metrics.samples(finished, progress.left))
            samples_heard += sum(item.outcome.duration for item in finished)  # once, though passages may come twice
    heard_s, wall_s = samples_heard / SAMPLE_RATE, progress.elapsed_s
    counts: dict[str, Any] = {name: round(count, 1) for name, count in counted.items()}
    counts |= {"audio_hours": round(heard_s / 3600, 4)}
    counts |= {"wall_s": round(wall_s, 1), "times_real_time": round(heard_s / max(wall_s, 1e-9), 2)}
    return counts


@contextmanager
def _work_noted(ledger: Ledger, where: Machines) -> Iterator[None]:
    """Put into the run's file what the workers did, when they have ended or the job is interrupted."""
    try:
        yield
    finally:
        ledger.note(work=metrics.summary(where.work()))


def exit_if_failed(counts: Mapping[str, Any], job: JobOptions) -> None:
    """End with an error when too many recordings of this run failed."""
    if counts["failed"] > job.max_failed * max(1, counts["recordings"] - counts["already_done"]):
        sys.exit(1)


def tell_listing(listing: Listing) -> None:
    """Say what of the sources was left out."""
    if listing.passed_over:
        words = f"passed over {listing.passed_over} files without an audio or video ending"
        logs.say("passed_over", words, files=listing.passed_over)
    for note in listing.notes:
        logs.say("note", note)
    if listing.doubles:
        words = f"{listing.doubles} recordings were named more than once; each is taken once"
        logs.say("doubles", words, recordings=listing.doubles)


def tell_start(ledger: Ledger, recordings: int, left: int, out: str) -> None:
    """Say what is done and what is to do."""
    logs.known_as(ledger.run_id)
    done, words = recordings - left, ""
    if done and left:
        words = f"{done} recordings are done in {out}; {left} to go"
    elif not left:
        words = f"all {done} recordings are done in {out}; nothing to do"
    logs.say("started", words, out=out, recordings=recordings, already_done=done, to_do=left)


def tell_counts(counts: Mapping[str, Any]) -> None:
    """Show the counts to people."""
    if not logs.wordy():
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in counts.items():
        table.add_row(name.replace("_", " "), str(value))
    Console(stderr=True).print(table)
