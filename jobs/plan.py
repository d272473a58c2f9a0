"""`bulkscribe plan`: what transcribing the sources would take, from their headers and a few of them done for real."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from jobs import second_opinion
from jobs.options import collect, settings, stores
from jobs.running import gpus_here, resolved, tell_listing
from jobs.second_opinion import OpinionOptions
from jobs.transcribe import as_asked, plan_of
from pipeline import engines
from pipeline.decode import DecodeOptions
from pipeline.doubts import DoubtOptions
from pipeline.draws import draw_enough, stretch_of
from pipeline.errors import UserError
from pipeline.forecast import Estimate, Forecast, Measured, forecast, listed_of
from pipeline.noise import NoiseOptions
from pipeline.passages import PassageOptions
from pipeline.probes import Probe, probe_all
from pipeline.ray_options import RayOptions
from pipeline.resampling import ResampleOptions
from pipeline.score import ScoreOptions
from pipeline.sources import resolve
from pipeline.speakers import SpeakerOptions
from pipeline.speech import SpeechOptions
from pipeline.trial import measure, measure_again
from pipeline.types import AT_LEAST_ONE, NOT_NEGATIVE, Finished, setting
from pipeline.voices.options import VoiceOptions
from pipeline.whisper.options import WhisperOptions


@dataclass(frozen=True)
class PlanOptions:
    """How much is looked at, and for whom the sum is made."""

    language: str | None = setting(None, "Code of the language of all recordings; by default it is detected.")
    probe: int = setting(400, "Recordings, drawn by chance, whose headers are read.", within=AT_LEAST_ONE)
    measure: int = setting(
        16, "Of these, recordings that are transcribed for real, at least; drawn by length.", within=AT_LEAST_ONE
    )
    measure_min_s: float = setting(
        480.0, "Least that is transcribed of all of them, of more recordings if need be.", "s", within=NOT_NEGATIVE
    )
    measure_max_s: float = setting(
        60.0,
        "Most that is transcribed of each of them, where it can be sought at a place drawn by chance.",
        "s",
        within=AT_LEAST_ONE,
    )
    actors: tuple[int, ...] = setting((1, 4, 16), "Numbers of actors to tell the wall time for.", within=AT_LEAST_ONE)
    price_per_hour: float | None = setting(
        None, "What a machine with one actor costs an hour, in any currency.", within=NOT_NEGATIVE
    )


@click.command(epilog="Example:  bulkscribe plan 's3://archive/radio/*.mp3' --model large-v3 --price-per-hour 2.5")
@click.argument("source", nargs=-1, required=True)
@settings(PlanOptions)
@stores
@settings(WhisperOptions)
@settings(SpeakerOptions)
@settings(VoiceOptions)
@settings(SpeechOptions)
@settings(PassageOptions)
@settings(DecodeOptions)
@settings(ScoreOptions)
@settings(NoiseOptions)
@settings(OpinionOptions)
@settings(DoubtOptions)
@settings(ResampleOptions)
def command(source: tuple[str, ...], **values: Any) -> None:
    """Say what `transcribe` with the same options would take: hours, wall time, output, money, each with its range.

    SOURCE is what `transcribe` takes. Headers of a sample are read by range, and a few recordings are transcribed on
    this machine, of which nothing is written. An actor in the sums is this machine.
    """
    values = as_asked(values)
    options, resampling = collect(PlanOptions, values), collect(ResampleOptions, values)
    second_opinion.check(values)
    listing = resolve(source)
    tell_listing(listing)
    recordings = listing.recordings.in_language(options.language)
    whisper = resolved(collect(WhisperOptions, values), RayOptions(), gpus_here())
    engines.describe(whisper)  # a model that is not there is told before anything is read
    if values["speakers"]:
        engines.describe_voices(collect(VoiceOptions, values))
    engines.check(whisper, recordings.languages())
    chance = random.Random(resampling.seed)
    drawn = sorted(chance.sample(range(len(recordings)), min(options.probe, len(recordings))))
    click.echo(f"reading {len(drawn)} headers of {len(recordings)} recordings", err=True)
    probes = probe_all([recordings[at] for at in drawn])
    readable = [one for one in probes if not one.trouble]
    if not readable:
        raise UserError("none of the recordings that were looked at can be read", f"the first: {probes[0].trouble}")
    most_s = options.measure_max_s
    standing = draw_enough(readable, options.measure, options.measure_min_s, most_s, chance)
    chosen = [stretch_of(one, most_s, chance) for one in readable if one.recording.id in standing]
    click.echo(f"transcribing up to {most_s:g} s of {len(chosen)} recordings", err=True)
    measured, finished = measure(plan_of(whisper, RayOptions(), gpus_here(), values), chosen)
    if not measured.seconds:
        failures = [one.outcome.failure for one in finished if one.outcome.failure]
        why = f"the first: {failures[0].kind}: {failures[0].message}" if failures else "they are empty"
        raise UserError("nothing of the recordings that were to be measured could be decoded", why)
    uris = (uri for table in recordings.tables(["uri"]) for uri in table["uri"].to_pylist())
    listed = listed_of(uris, map(int, recordings.sizes()))
    found = forecast(listed, probes, measured, standing, resampling)
    again = _again(finished, whisper, values) if values["second_opinion"] is not None else None
    second = forecast(listed, probes, again, standing, resampling) if again else None
    load_s = measured.load_s + (again.load_s if again else 0.0)
    every = found.then(second) if second else found
    told = _told(every, listed.recordings, listed.bytes, probes, measured, load_s, whisper, options)
    if second and again:
        told["second_opinion"] = _told_second(second, again, values["second_opinion"])
    _show(told)
    click.echo(json.dumps(told))


def _again(finished: Sequence[Finished], first: WhisperOptions, values: dict[str, Any]) -> Measured:
    """Ask for a second opinion on what was transcribed; return what that took."""
    whisper = second_opinion.second(first, values)
    click.echo(f"transcribing again with {whisper.model} what is doubtful", err=True)
    plan = second_opinion.plan_of(whisper, RayOptions(), gpus_here(), values)
    return measure_again(plan, finished, collect(DoubtOptions, values), engines.languages(whisper))


def _told_second(found: Forecast, measured: Measured, model: str) -> dict[str, Any]:
    """Return what of the sums is the second pass, as the JSON line tells it."""
    return {
        "model": model,
        "heard_again_hours": _span(found.speech_s.times(1 / 3600)),
        "cpu_hours": _span(found.cpu_s.times(1 / 3600)),
        "machine_hours": _span(found.wall_s.times(1 / 3600)),
        "measured": _costs(measured),
    }


def _told(
    found: Forecast,
    recordings: int,
    size: int,
    probes: Sequence[Probe],
    measured: Measured,
    load_s: float,
    whisper: WhisperOptions,
    options: PlanOptions,
) -> dict[str, Any]:
    """Return everything as the JSON line tells it."""
    wall = {str(count): _span(found.wall_s.times(1 / count).plus(load_s), 1) for count in options.actors}
    machine_hours = found.wall_s.times(1 / 3600)
    told: dict[str, Any] = {
        "recordings": recordings,
        "probed": len(probes),
        "unreadable": _span(found.unreadable, 1),
        "bytes": size,
        "audio_hours": _span(found.audio_s.times(1 / 3600)),
        "speech_hours": _span(found.speech_s.times(1 / 3600)),
        "formats": dict(Counter(one.format for one in probes if not one.trouble).most_common(10)),
        "troubles": dict(
            Counter((one.trouble or "").partition(":")[0] for one in probes if one.trouble).most_common(10)
        ),
        "languages": {language: round(share, 4) for language, share in found.languages.items()},
        "model": whisper.model,
        "device": whisper.device,
        "dtype": whisper.dtype,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "measured": _costs(measured) | {"recordings": len(measured.heard), "audio_s": round(measured.seconds, 1)},
        "times_real_time": round(measured.seconds / max(measured.wall_s, 1e-9), 2),
        "cpu_hours": _span(found.cpu_s.times(1 / 3600)),
        "machine_hours": _span(machine_hours),
        "wall_s": wall,
        "output_bytes": _span(found.output_bytes, 0),
    }
    if whisper.device.startswith("cuda"):
        told["gpu_hours"] = told["machine_hours"]
    if options.price_per_hour is not None:
        told["price"] = _span(machine_hours.times(options.price_per_hour), 2)
    return told


def _costs(measured: Measured) -> dict[str, float]:
    return {name: round(value, 2) for name, value in asdict(replace(measured, heard=())).items() if name != "heard"}


def _span(one: Estimate, digits: int = 6) -> dict[str, float]:
    return {name: round(value, digits) for name, value in asdict(one).items()}


def _show(told: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name in ("recordings", "unreadable", "bytes"):
        table.add_row(name, _words(told[name], _number))
    for name in ("audio", "speech"):
        table.add_row(name, _words(told[f"{name}_hours"], lambda hours: _clock(3600 * hours)))
    table.add_row("formats", "; ".join(f"{name}: {count}" for name, count in told["formats"].items()))
    table.add_row("languages", ", ".join(f"{code} {100 * share:.0f} %" for code, share in told["languages"].items()))
    measured = f"{_clock(told['measured']['audio_s'])} of audio, {told['times_real_time']:g} x real time"
    table.add_row("measured here", f"{measured}, {told['device']}, {told['dtype']}, {told['cores']} cores")
    for name in ("cpu_hours", "machine_hours", "gpu_hours"):
        if name in told:
            table.add_row(name.replace("_hours", " time"), _words(told[name], lambda hours: _clock(3600 * hours)))
    if "second_opinion" in told:
        second = told["second_opinion"]
        hours = (
            _words(second[name], lambda hours: _clock(3600 * hours)) for name in ("heard_again_hours", "machine_hours")
        )
        table.add_row("of that second opinion", f"{second['model']}: {next(hours)} heard again, {next(hours)}")
    for count, seconds in told["wall_s"].items():
        table.add_row(f"wall time, {count} actor{'s' if count != '1' else ''}", _words(seconds, _clock))
    table.add_row("output bytes", _words(told["output_bytes"], _number))
    if "price" in told:
        table.add_row("price", _words(told["price"], lambda price: f"{price:,.2f}"))
    Console(stderr=True).print(table)


def _words(value: Any, shown: Callable[[float], str]) -> str:
    if not isinstance(value, dict):
        return shown(value)
    if value["low"] == value["high"]:
        return shown(value["value"])
    return f"{shown(value['value'])} ({shown(value['low'])} to {shown(value['high'])})"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _clock(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
