"""How well texts pack; and when one is given up as a loop: after it has repeated itself, and never an ordinary one."""

from __future__ import annotations

import pytest
from whisper.utils import compression_ratio as reference_ratio

from pipeline.whisper.loops import compression_ratio, hopeless

THRESHOLD = 2.4
SPOKEN = (
    "The switchboard stood in the hall of the post office, and whoever wanted to speak with the next town had to"
    " wait until one of the three lines was free. In the evening the operator wrote down every call that had been"
    " asked for, its length, and what the caller owed; on Sundays her daughter took the plugs and the headset."
)


@pytest.mark.parametrize("text", ["", "one sentence only", "la la la la la la la la la la la la"])
def test_compression_ratio_equals_the_reference(text: str) -> None:
    assert compression_ratio(text) == reference_ratio(text)


@pytest.mark.parametrize("loop", ["e ", "Thank you. ", "И так далее, и так далее. ", "ご視聴ありがとうございました"])
def test_loop_is_given_up_before_it_has_filled_half_of_the_room(loop: str) -> None:
    first = next(count for count in range(1, 225) if hopeless(loop * count, count, 224 - count, THRESHOLD))
    assert 20 < first < 140


def test_ordinary_text_is_never_given_up() -> None:
    words = SPOKEN.split()
    for count in range(1, len(words) + 1):
        assert not hopeless(" ".join(words[:count]), count, 224 - count, THRESHOLD)


def test_loop_behind_much_ordinary_text_may_still_pass() -> None:
    assert not hopeless(SPOKEN + " Yes." * 4, 80, 20, THRESHOLD)


def test_nothing_said_is_no_loop() -> None:
    assert not hopeless("", 0, 224, THRESHOLD)
