"""The probability of an invention: low for the numbers of speech, high for those of inventions, whatever is missing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from speech_examples import answers, clip, passage

from pipeline import hallucination_weights
from pipeline.engines import FakeEngine
from pipeline.hallucination import WITH, WITHOUT, inputs, probability
from pipeline.score import ScoreOptions, mark
from pipeline.types import SAMPLE_RATE, Attempt, Passage, Segment, Span
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.options import WhisperOptions

SPOKEN = Segment(
    start=0,
    end=4 * SAMPLE_RATE,
    text="Good evening, and welcome to the show.",
    language="en",
    language_probability=0.9,
    task="transcribe",
    avg_logprob=-0.25,
    compression_ratio=1.1,
    no_speech_prob=0.05,
    temperature=0.0,
    attempts=(Attempt(0.0, -0.25, 1.1),),
    tokens=10,
    evidence=50.0,
    evidence_per_token=5.0,
    text_logprob=-0.25,
    unlikely_share=0.05,
    speech_ratio=0.95,
)
INVENTED = replace(
    SPOKEN,
    text="Thanks for watching!",
    avg_logprob=-0.6,
    no_speech_prob=0.7,
    tokens=5,
    evidence=0.5,
    evidence_per_token=0.1,
    text_logprob=-0.7,
    unlikely_share=0.4,
    speech_ratio=0.1,
)


def without_evidence(segment: Segment) -> Segment:
    return replace(segment, evidence=None, evidence_per_token=None, text_logprob=None, unlikely_share=None)


def test_numbers_of_speech_and_of_an_invention_lie_on_both_sides() -> None:
    assert probability(SPOKEN) < 0.02
    assert probability(INVENTED) > 0.9


def test_without_evidence_there_is_a_probability_too() -> None:
    assert probability(without_evidence(SPOKEN)) < 0.1
    assert probability(without_evidence(INVENTED)) > 0.5


def test_a_segment_of_no_length_counts_as_under_speech() -> None:
    for one in (SPOKEN, without_evidence(SPOKEN)):
        assert probability(replace(one, speech_ratio=None)) == probability(replace(one, speech_ratio=1.0))


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"evidence": 60.0}, {"evidence": 3.0}),
        ({"evidence_per_token": 6.0}, {"evidence_per_token": 0.5}),
        ({"text_logprob": -0.1}, {"text_logprob": -1.5}),
        ({"unlikely_share": 0.0}, {"unlikely_share": 0.9}),
        ({"avg_logprob": -0.1}, {"avg_logprob": -1.5}),
        ({"speech_ratio": 1.0}, {"speech_ratio": 0.0}),
        ({"evidence": None, "avg_logprob": -0.1}, {"evidence": None, "avg_logprob": -1.5}),
        ({"no_speech_prob": 0.01}, {"no_speech_prob": 0.9}),
        ({"evidence": None, "speech_ratio": 1.0}, {"evidence": None, "speech_ratio": 0.0}),
        ({"text": "Nothing comes again in this."}, {"text": "la la la la la la la la"}),
    ],
)
def test_no_number_speaks_against_its_meaning(better: dict[str, object], worse: dict[str, object]) -> None:
    for segment in (SPOKEN, INVENTED):
        assert probability(replace(segment, **better)) <= probability(replace(segment, **worse))  # type: ignore[arg-type]


def test_a_single_token_decides_less_than_many() -> None:
    def odds(share: float, tokens: int) -> float:
        found = probability(replace(SPOKEN, unlikely_share=share, tokens=tokens))
        return math.log(found / (1 - found))

    differences = [odds(1.0, tokens) - odds(0.0, tokens) for tokens in (0, 1, 2, 5, 20)]
    assert differences[0] == 0
    assert differences == sorted(differences)
    assert differences[1] < differences[-1] / 3


def test_the_engine_without_a_model_gives_all_that_is_weighed() -> None:
    one = Passage("a", 0, 0, np.zeros(SAMPLE_RATE, np.int16), (Span(0, SAMPLE_RATE),))
    (found,) = FakeEngine().transcribe([one])
    assert found is not None
    assert inputs(found.segments[0]).keys() == WITH.keys()


def test_numbers_out_of_bounds_give_probabilities() -> None:
    for evidence in (-1e9, 1e9):
        for no_speech in (0.0, 1.0):
            for logprob in (-math.inf, 0.0):
                wild = replace(SPOKEN, evidence=evidence, no_speech_prob=no_speech, avg_logprob=logprob)
                assert 0 <= probability(wild) <= 1


def test_weights_are_of_the_inputs_and_have_their_signs() -> None:
    for signs, weights, segment in (
        (WITH, hallucination_weights.WITH_EVIDENCE, SPOKEN),
        (WITHOUT, hallucination_weights.WITHOUT_EVIDENCE, without_evidence(SPOKEN)),
    ):
        assert weights.keys() == {"bias", *signs}
        assert all(sign * weights[name] >= 0 for name, sign in signs.items())
        assert inputs(segment).keys() == signs.keys()


def test_real_speech_and_a_text_that_noise_brings_forth() -> None:
    open_gates = WhisperOptions(temperatures=(0.0,), logprob_threshold=-9.0, no_speech_threshold=1.0)
    samples = np.random.default_rng(5).normal(0, 300, 20 * SAMPLE_RATE).astype(np.int16)
    noise = Passage("noise", 0, 0, samples, (Span(0, len(samples)),), "en")
    found = answers(WhisperEngine(open_gates), clip(passage("es_centralita.opus", "es"), 12), noise)
    spoken = mark(found["es_centralita.opus"], ScoreOptions()).segments
    invented = mark(found["noise"], ScoreOptions()).segments
    assert spoken
    assert all((one.hallucination_probability or 0.0) < 0.2 and "hallucination" not in one.flags for one in spoken)
    assert invented
    assert all("hallucination" in one.flags for one in invented)
