"""Which segments are doubtful, and what is heard again for them."""

from __future__ import annotations

from typing import Any

import pytest
from outputs import finished, segment

from pipeline import rows
from pipeline.doubts import PAD, REASONS, WINDOW, DoubtOptions, Question, reasons, stretches
from pipeline.types import SAMPLE_RATE

OPTIONS = DoubtOptions()
DURATION = 600 * SAMPLE_RATE


def told(*segments: tuple[float, float, str], **values: Any) -> list[dict[str, Any]]:
    """Return rows of the segments table, from (start, end, text); those whose text begins with "?" carry a flag."""
    made = [
        segment(start, end, text, *(["no_speech"] if text.startswith("?") else [])) for start, end, text in segments
    ]
    found: list[dict[str, Any]] = rows.segment_rows([finished("aaaa", "/x.mp3", *made)]).to_pylist()
    return [row | {"hallucination_probability": 0.01} | values for row in found]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, ()),
        ({"flags": ["omission"]}, ("flag",)),
        ({"hallucination_probability": 0.06}, ("hallucination",)),
        ({"hallucination_probability": None}, ()),
        ({"text_logprob": -0.6}, ("logprob",)),
        ({"text_logprob": None, "avg_logprob": -0.6}, ("logprob",)),
        ({"text_logprob": -0.4, "avg_logprob": -0.6}, ()),
        ({"temperature": 0.2}, ("fallback",)),
        ({"flags": ["phrase"], "temperature": 0.2}, ("flag", "fallback")),
    ],
)
def test_doubt_has_its_reasons(values: dict[str, Any], why: tuple[str, ...]) -> None:
    (row,) = told((0, 2, "Hello."), **values)
    assert reasons(row, OPTIONS) == why
    assert set(why) <= set(REASONS)


def test_nothing_is_heard_again_without_doubt() -> None:
    assert stretches(told((0, 2, "Hello."), (2, 4, "World.")), OPTIONS, duration=DURATION) == ()


def test_doubtful_segment_is_heard_with_a_second_of_its_neighbours() -> None:
    (one,) = stretches(told((7, 10, "Before."), (10, 12, "?"), (12.5, 14, "After.")), OPTIONS, duration=DURATION)
    assert (one.start, one.end) == (10 * SAMPLE_RATE - PAD, 12 * SAMPLE_RATE + PAD)
    assert (one.before, one.after) == ("Before.", "After.")
    assert [(doubt.index, doubt.start, doubt.end) for doubt in one.doubts] == [(1, 10 * SAMPLE_RATE, 12 * SAMPLE_RATE)]


def test_neighbours_that_are_far_say_nothing() -> None:
    (one,) = stretches(told((3, 8, "Before."), (10, 12, "?"), (14, 15, "After.")), OPTIONS, duration=DURATION)
    assert (one.before, one.after) == ("", "")


def test_doubtful_segments_side_by_side_share_a_stretch() -> None:
    found = stretches(told((0, 2, "?a"), (2, 4, "?b"), (4, 5, "Fine."), (5, 6, "?c")), OPTIONS, duration=DURATION)
    assert [[doubt.text for doubt in one.doubts] for one in found] == [["?a", "?b"], ["?c"]]
    assert (found[0].after, found[1].before) == ("Fine.", "Fine.")


def test_long_pauses_and_other_languages_part_stretches() -> None:
    segments = told((0, 2, "?a"), (5, 6, "?b"), (6, 7, "?c"))
    segments[2]["language"] = "fr"
    found = stretches(segments, OPTIONS, duration=DURATION)
    assert [(one.spoken, one.language) for one in found] == [("en", "en"), ("en", "en"), ("fr", "fr")]


def test_stretch_fits_a_window() -> None:
    found = stretches(told(*((at, at + 7, "?x") for at in range(0, 70, 7))), OPTIONS, duration=DURATION)
    assert [len(one.doubts) for one in found] == [4, 4, 2]
    assert all(one.end - one.start <= WINDOW for one in found)
    (long,) = stretches(told((40, 69.5, "?long")), OPTIONS, duration=DURATION)
    assert (long.start, long.end) == (39.75 * SAMPLE_RATE, 69.75 * SAMPLE_RATE)


def test_stretch_stays_inside_the_recording() -> None:
    (one,) = stretches(told((100, 102, "?")), OPTIONS, begin=100 * SAMPLE_RATE, duration=2 * SAMPLE_RATE + 5)
    assert (one.start, one.end) == (0, 2 * SAMPLE_RATE + 5)


def test_language_in_doubt_is_not_told() -> None:
    mismatch = told((0, 2, "Hi"), flags=["language_mismatch"])
    unsure = told((0, 2, "?"), language_probability=0.4)
    for segments in (mismatch, unsure):
        (one,) = stretches(segments, OPTIONS, duration=DURATION)
        assert (one.spoken, one.language) == ("en", None)


def test_languages_that_the_second_model_does_not_know_are_left_out() -> None:
    segments = told((0, 2, "?a"), (2, 4, "?b"))
    segments[0]["language"] = "fr"
    (one,) = stretches(segments, OPTIONS, duration=DURATION, known={"en"})
    assert [doubt.text for doubt in one.doubts] == ["?b"]
    assert one.before == "?a"


def test_question_travels_as_text() -> None:
    found = stretches(told((0, 2, "?é «字»"), (2, 4, "b\n")), OPTIONS, duration=DURATION)
    question = Question("run1", "channel 1", DURATION, 1, found)
    assert Question.read(question.json()) == question
