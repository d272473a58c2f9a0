"""The second pass of `transcribe --second-opinion MODEL`: doubtful segments of a finished output are transcribed again.

Policy and words; what is doubtful stands in `pipeline/doubts.py`, how it is heard again in `pipeline/hearing.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobs import logs
from jobs.options import collect, row_values
from jobs.running import JobOptions, interruptible, machines, resolved, work
from pipeline import engines, metrics, questions, storage, text
from pipeline.books import REVIEWS
from pipeline.decode import DecodeOptions
from pipeline.doubts import DoubtOptions
from pipeline.errors import UserError
from pipeline.hearing import excerpts_stage
from pipeline.ledger import Ledger
from pipeline.ray_options import RayOptions
from pipeline.recordings import Recordings
from pipeline.reviews import review
from pipeline.score import ScoreOptions
from pipeline.stages import Plan, mark_stage, transcribe_stage
from pipeline.types import AT_LEAST_ONE, Outcome, setting
from pipeline.whisper.options import WhisperOptions


@dataclass(frozen=True)
class OpinionOptions:
    """Who is asked. Nothing of it changes the first transcripts."""

    second_opinion: str | None = setting(
        None,
        "Transcribe doubtful segments again with this model, which may be the same one, and write to OUT/opinions how"
        " far both texts agree. Needs the extra `evaluate`.",
    )
    second_beam: int = setting(5, "Lines kept by beam search in the second decoding.", within=AT_LEAST_ONE)


def check(values: Mapping[str, Any]) -> None:
    """UserError where the second pass could not be done: before the first one is."""
    if values["second_opinion"] is None:
        return
    if values["add_noise"] is not None:
        raise UserError("--second-opinion would hear the recordings without --add-noise", "leave one of them out")
    for module in ("rapidfuzz", "regex", "whisper_normalizer"):
        text.library(module)
    whisper = second(collect(WhisperOptions, values), values)
    engines.describe(whisper)
    engines.check(whisper, set())


def ask(recordings: Recordings, out: str, job: JobOptions, values: dict[str, Any]) -> dict[str, Any]:
    """Ask about the doubtful segments of `out` that there are no opinions on yet; return the counts."""
    ray, shown = collect(RayOptions, values), storage.redacted(out)
    recordings = recordings.in_language(values["language"])
    with machines(job, ray) as where:
        whisper = second(resolved(collect(WhisperOptions, values), ray, where.gpus), values)
        with (
            interruptible(shown, len(recordings)),
            Ledger.open(
                out,
                _config(whisper, values),
                model=whisper.model,
                book=REVIEWS,
                retry_failed=job.retry_failed,
                take_over=job.take_over,
            ) as ledger,
        ):
            asked = questions.questions(out, recordings, collect(DoubtOptions, values), engines.languages(whisper))
            todo = ledger.todo(asked.recordings, asked.outdated)
            taken = _nothing_to_ask(ledger, todo)
            left = ledger.missing()
            logs.known_as(ledger.run_id)
            _tell_start(len(asked.recordings), len(todo), len(left), shown)
            counts = work(plan_of(whisper, ray, where.gpus, values), ledger, left, where, REVIEWS)
            engine = metrics.summary(where.work()).get("transcribe", {})
    return _told(counts, taken, len(todo), whisper.model) | {"engine_busy_s": engine.get("busy_s", 0.0)}


def second(first: WhisperOptions, values: Mapping[str, Any]) -> WhisperOptions:
    """Return how doubtful segments are decoded: by another model, by beam search, each stretch by itself."""
    chosen = collect(OpinionOptions, values)
    assert chosen.second_opinion is not None
    return replace(first, model=chosen.second_opinion, beam=chosen.second_beam, words=False, reference=False)


def _config(whisper: WhisperOptions, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that changes rows, by name. Which transcripts they judge stands in each row."""
    rows = [row_values(one) for one in (whisper, collect(DecodeOptions, values), collect(DoubtOptions, values))]
    return {name: value for row in rows for name, value in row.items()} | engines.describe(whisper)


def plan_of(whisper: WhisperOptions, ray: RayOptions, gpus: int, values: Mapping[str, Any]) -> Plan:
    """Return the stages of the second pass."""
    on_gpu = float(whisper.device.startswith("cuda") and gpus > 0)
    return (
        excerpts_stage(collect(DecodeOptions, values), ray.decode_labels),
        transcribe_stage(whisper, actors=ray.pool, cpus=ray.cpus_of_actor(on_gpu), gpus=on_gpu),
        mark_stage(ScoreOptions()),
    )


def _nothing_to_ask(ledger: Ledger, todo: Recordings) -> dict[str, float]:
    """Complete the recordings that nothing is asked about; return what they count."""
    counts: dict[str, float] = dict.fromkeys(REVIEWS.counted, 0)
    for recording in todo:
        item = review([], Outcome(recording, passages=0, duration=0, speech=0))
        if not item.opinions and ledger.take(item):
            for name, count in REVIEWS.counts(item).items():
                counts[name] += count
    return counts


def _told(counts: Mapping[str, Any], taken: Mapping[str, float], recordings: int, model: str) -> dict[str, Any]:
    """Return the counts with those of recordings that nothing was asked about, and what share was heard again."""
    sums = {name: round(counts[name] + count, 1) for name, count in taken.items()}
    share = sums["heard_again_s"] / sums["audio_s"] if sums["audio_s"] else 0.0
    kept = {name: counts[name] for name in ("partial", "failed", "wall_s")}
    return {"model": model, "recordings": recordings, **sums, "share_heard_again": round(share, 4), **kept}


def _tell_start(recordings: int, todo: int, left: int, out: str) -> None:
    words = f"second opinion: {left} of {recordings} recordings have doubtful segments to hear again"
    if not todo:
        words = f"second opinion: all {recordings} recordings have theirs in {out}; nothing to do"
    logs.say("second_opinion_started", words, recordings=recordings, to_do=todo, to_hear=left)
