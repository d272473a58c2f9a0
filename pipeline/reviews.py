"""Second opinions as rows: a recording's question and the answers to it -> a Review -> Arrow.

Duty: what the second model's text says of each segment that was asked about. Knows no audio, no files, and no commits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from pipeline.agreement import agreements
from pipeline.doubts import Doubt, Question, Stretch
from pipeline.rows import failure_columns
from pipeline.types import SAMPLE_RATE, Opinion, Outcome, Review, Segment, Transcript
from schemas.opinions import OPINIONS
from schemas.reviews import REVIEWS


def review(answers: Sequence[Transcript], outcome: Outcome) -> Review:
    """Hold the answers, one for each stretch that could be heard again, against the first texts."""
    question = Question.read(outcome.recording.asked)
    opinions: list[Opinion] = []
    for number, stretch in enumerate(question.stretches):
        answer = answers[number] if number < len(answers) else None
        opinions += _unheard(stretch) if answer is None else _opinions(stretch, answer)
    return Review(outcome, tuple(opinions), question.audio, question.doubtful, question.transcript)


def opinion_rows(reviews: Iterable[Review]) -> pa.Table:
    """Reviews -> rows of `schemas.opinions.OPINIONS`."""
    rows: list[dict[str, Any]] = []
    for item in reviews:
        recording = item.outcome.recording
        for one in item.opinions:
            row = {name: getattr(one, name) for name in Opinion.__dataclass_fields__ if name != "span"}
            place = {name: (recording.start + getattr(one.span, name)) / SAMPLE_RATE for name in ("start", "end")}
            rows.append({"recording_id": recording.id, **row, **place})
    return pa.Table.from_pylist(rows, schema=OPINIONS)


def review_rows(reviews: Iterable[Review], *, part: str, model: str, config_hash: str, run_id: str) -> pa.Table:
    """Reviews -> rows of `schemas.reviews.REVIEWS`."""
    rows = []
    for item in reviews:
        recording, failure = item.outcome.recording, item.outcome.failure
        rows.append(
            {
                "recording_id": recording.id,
                "uri": recording.uri,
                "version": recording.version,
                "transcript": item.transcript,
                "part": part,
                "status": item.outcome.status,
                **failure_columns(failure),
                "doubtful": item.doubtful,
                "asked": len(item.opinions),
                "heard_s": item.outcome.duration / SAMPLE_RATE,
                "model": model,
                "config_hash": config_hash,
                "run_id": run_id,
            }
        )
    return pa.Table.from_pylist(rows, schema=REVIEWS)


def _opinions(stretch: Stretch, answer: Transcript) -> list[Opinion]:
    ordered = sorted(answer.segments, key=lambda segment: segment.start)
    heard = " ".join(segment.text.strip() for segment in ordered).strip()
    texts = [doubt.text for doubt in stretch.doubts]
    agreed = agreements(texts, heard, stretch.spoken, stretch.before, stretch.after)
    return [
        Opinion(
            doubt.index,
            doubt.reasons,
            answer.span,
            heard,
            answer.language,
            words=one.words,
            wer=one.wer,
            cer=one.cer,
            edge_cer=one.edge_cer,
            **_scores(doubt, ordered),
        )
        for doubt, one in zip(stretch.doubts, agreed, strict=True)
    ]


def _unheard(stretch: Stretch) -> list[Opinion]:
    return [Opinion(doubt.index, doubt.reasons, stretch.span) for doubt in stretch.doubts]


def _scores(doubt: Doubt, segments: Sequence[Segment]) -> dict[str, float | None]:
    """Return the worst numbers of the second text's segments that lie under the first one."""
    under = [one for one in segments if one.start < doubt.end and one.end > doubt.start]

    def worst(choose: Callable[[list[float]], float], name: str) -> float | None:
        values = [value for one in under if (value := getattr(one, name)) is not None]
        return choose(values) if values else None

    return {
        "avg_logprob": worst(min, "avg_logprob"),
        "no_speech_prob": worst(max, "no_speech_prob"),
        "evidence_per_token": worst(min, "evidence_per_token"),
        "hallucination_probability": worst(max, "hallucination_probability"),
    }
