"""Scores: flags with reasons, shares under speech, the language of a recording. Nothing is dropped."""

from __future__ import annotations

import random
import sys
from dataclasses import fields, replace

import pytest

from pipeline.score import FLAGS, ScoreOptions, finish, mark
from pipeline.types import SAMPLE_RATE, Attempt, Outcome, Recording, Segment, Span, Transcript
from schemas.segments import SEGMENTS

DEFAULT = ScoreOptions()
MARKS = {
    "speech_ratio",
    "characters_per_second",
    "tokens_per_second",
    "repetition",
    "repetition_period",
    "variety",
    "hallucination_probability",
    "flags",
}
OUTCOME = Outcome(Recording("r", "r.mp3"), 1, 0, 0)
GOOD = Segment(
    start=0,
    end=4 * SAMPLE_RATE,
    text="Good evening.",
    language="en",
    language_probability=0.9,
    task="transcribe",
    avg_logprob=-0.3,
    compression_ratio=1.4,
    no_speech_prob=0.1,
    temperature=0.0,
    attempts=(Attempt(0.0, -0.3, 1.4),),
    evidence=60.0,
    evidence_per_token=5.0,
    text_logprob=-0.3,
    unlikely_share=0.1,
)


def scored(avg_logprob: float, compression_ratio: float, no_speech_prob: float = 0.1, *earlier: Attempt) -> Segment:
    """Return a segment whose last attempt has these scores."""
    attempts = (*earlier, Attempt(0.2 * len(earlier), avg_logprob, compression_ratio))
    return replace(
        GOOD,
        avg_logprob=avg_logprob,
        compression_ratio=compression_ratio,
        no_speech_prob=no_speech_prob,
        attempts=attempts,
    )


def transcript(
    *segments: Segment,
    speech: tuple[Span, ...] = (),
    passage: int = 0,
    language: str = "en",
    probability: float | None = 0.5,
) -> Transcript:
    return Transcript("r", passage, Span(0, 100 * SAMPLE_RATE), speech, segments, language, probability)


def flags(segment: Segment, options: ScoreOptions = DEFAULT) -> tuple[str, ...]:
    (marked,) = mark(transcript(segment), options).segments
    return marked.flags


def share(segment: Segment, *speech: Span) -> float | None:
    (marked,) = mark(transcript(segment, speech=speech), DEFAULT).segments
    return marked.speech_ratio


def spoken(seconds: int, language: str, probability: float | None, passage: int = 0) -> Transcript:
    return transcript(
        speech=(Span(0, seconds * SAMPLE_RATE),), passage=passage, language=language, probability=probability
    )


# --- flags --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        (GOOD, ()),
        (scored(-1.0, 2.4, 0.6), ()),
        (scored(-1.01, 1.4), ("low_logprob", "fallback_exhausted")),
        (scored(-0.3, 2.41), ("repetitive", "fallback_exhausted")),
        (scored(-0.3, 1.4, 0.61), ("no_speech",)),
        (scored(-1.01, 1.4, 0.61), ("low_logprob", "no_speech")),
        (scored(-1.01, 2.41, 0.61), ("low_logprob", "repetitive", "no_speech")),
        (scored(-0.3, 2.41, 0.61), ("repetitive", "no_speech", "fallback_exhausted")),
        (scored(-0.3, 1.4, 0.1, Attempt(0.0, -3.0, 9.0)), ()),
        (scored(-0.3, 2.41, 0.1, Attempt(0.0, -0.3, 1.4)), ("repetitive", "fallback_exhausted")),
    ],
    ids=[
        "good",
        "at the limits",
        "unlikely",
        "loop",
        "no speech though sure",
        "silence",
        "silence with a loop",
        "loop where nobody speaks",
        "a later attempt passed",
        "only the last attempt counts",
    ],
)
def test_flags_follow_the_numbers(segment: Segment, expected: tuple[str, ...]) -> None:
    assert flags(segment) == expected


def test_the_operating_point_of_inventions_is_an_option() -> None:
    doubtful = replace(scored(-0.9, 1.4, 0.5), evidence=6.0, evidence_per_token=1.0, text_logprob=-0.9)
    (marked,) = mark(transcript(doubtful), DEFAULT).segments
    probability = marked.hallucination_probability
    assert probability is not None
    below, above = (ScoreOptions(max_hallucination=probability + shift) for shift in (-0.001, 0.001))
    assert "hallucination" in flags(doubtful, below)
    assert "hallucination" not in flags(doubtful, above)


def test_text_and_times_are_counted() -> None:
    said = replace(GOOD, text="Bye. Bye. Bye.", tokens=6, end=2 * SAMPLE_RATE)
    (marked,) = mark(transcript(said, speech=(Span(0, SAMPLE_RATE),)), DEFAULT).segments
    assert (marked.characters_per_second, marked.repetition, marked.repetition_period) == (9.0, 9, 3)
    assert marked.variety == 0.5
    assert marked.tokens_per_second == 6.0
    (unheard,) = mark(transcript(said), DEFAULT).segments
    assert unheard.characters_per_second is unheard.tokens_per_second is None


def test_an_engine_without_attempts_has_no_fallback_to_exhaust() -> None:
    assert flags(replace(scored(-1.01, 1.4), attempts=())) == ("low_logprob",)


def test_limits_are_options() -> None:
    strict = ScoreOptions(flag_logprob=-0.2, flag_compression_ratio=1.0, flag_no_speech=0.05)
    assert flags(GOOD, strict) == ("low_logprob", "repetitive", "no_speech")
    loose = ScoreOptions(flag_logprob=-9.0, flag_compression_ratio=9.0, flag_no_speech=1.0, max_hallucination=1.0)
    assert flags(scored(-3.0, 5.0, 0.99), loose) == ()


def test_marking_again_changes_nothing() -> None:
    once = mark(transcript(scored(-1.01, 2.5), speech=(Span(0, 7),)), DEFAULT)
    assert mark(once, DEFAULT) == once


def test_nothing_is_dropped_or_changed_but_the_marks() -> None:
    segments = tuple(replace(scored(-5.0, 9.0, 1.0), text=f"{number}") for number in range(5))
    marked = mark(transcript(*segments), DEFAULT)
    fresh = {item.name: item.default for item in fields(Segment) if item.name in MARKS}
    assert tuple(replace(segment, **fresh) for segment in marked.segments) == segments
    assert replace(marked, segments=()) == transcript()


def test_each_flag_has_a_reason_and_stands_in_the_schema() -> None:
    doc = SEGMENTS.field("flags").metadata[b"doc"].decode()
    assert all(flag in doc for flag in FLAGS)
    assert all(reason.endswith(".") and len(reason) > 30 for reason in FLAGS.values())
    assert len(set(FLAGS.values())) == len(FLAGS)


# --- speech -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speech", "expected"),
    [
        ((), 0.0),
        ((Span(0, 400),), 1.0),
        ((Span(100, 200),), 1.0),
        ((Span(0, 150),), 0.5),
        ((Span(150, 999),), 0.5),
        ((Span(0, 100), Span(200, 300)), 0.0),
        ((Span(90, 110), Span(120, 130), Span(195, 205)), 0.25),
    ],
    ids=["none", "around it", "exactly", "first half", "second half", "on both sides", "pieces"],
)
def test_speech_ratio_is_the_share_under_speech(speech: tuple[Span, ...], expected: float) -> None:
    assert share(replace(GOOD, start=100, end=200), *speech) == expected


def test_a_segment_of_no_length_has_no_speech_ratio() -> None:
    assert share(replace(GOOD, start=100, end=100), Span(0, 200)) is None


@pytest.mark.parametrize("number", range(5))
def test_speech_ratio_equals_counting_samples(number: int) -> None:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    rng = random.Random(seed)
    edges = sorted(rng.sample(range(1000), 20))
    speech = [Span(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    covered = {sample for span in speech for sample in range(span.start, span.end)}
    for _ in range(50):
        start, end = sorted(rng.sample(range(1000), 2))
        counted = sum(sample in covered for sample in range(start, end)) / (end - start)
        assert share(replace(GOOD, start=start, end=end), *speech) == counted


# --- a whole recording --------------------------------------------------------------------------------------------


def test_segments_are_ordered_by_passage_and_start() -> None:
    one, two, three = (replace(GOOD, start=start, text=str(start)) for start in (1, 2, 3))
    finished = finish([transcript(three, passage=1), transcript(two, one, passage=0)], OUTCOME)
    assert [(passage, segment.text) for passage, segment in finished.segments] == [(0, "1"), (0, "2"), (1, "3")]
    assert finished.outcome is OUTCOME


def test_language_is_voted_by_speech_not_by_passages() -> None:
    passages = [spoken(10, "de", 0.9, 0), spoken(2, "en", 0.99, 1), spoken(3, "en", 0.99, 2)]
    assert finish(passages, OUTCOME).language == "de"


def test_language_probability_is_the_mean_of_its_passages_weighted_by_speech() -> None:
    passages = [spoken(30, "de", 0.9, 0), spoken(10, "de", 0.5, 1), spoken(20, "en", 0.99, 2)]
    assert finish(passages, OUTCOME).language_probability == pytest.approx(0.8)


def test_a_tie_goes_to_the_language_that_comes_first_in_the_recording() -> None:
    passages = [spoken(10, "de", 0.9, 1), spoken(10, "en", 0.9, 0)]
    assert finish(passages, OUTCOME).language == "en"
    assert finish(reversed(passages), OUTCOME).language == "en"


def test_models_that_know_one_language_give_no_probability() -> None:
    finished = finish([spoken(10, "en", None)], OUTCOME)
    assert (finished.language, finished.language_probability) == ("en", None)


def test_a_recording_without_speech_has_no_language() -> None:
    for passages in ([], [transcript(GOOD, language="nn")]):
        finished = finish(passages, OUTCOME)
        assert (finished.language, finished.language_probability) == (None, None)
        assert len(finished.segments) == len(passages)
