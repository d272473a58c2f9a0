"""How a window's result moves its passage on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.types import SAMPLE_RATE, Passage, Span
from pipeline.whisper.languages import Evidence
from pipeline.whisper.locate import locate
from pipeline.whisper.mel import FRAMES_PER_SECOND
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.reels import Reel, Window
from pipeline.whisper.search import Candidate
from pipeline.whisper.tokens import Tokens
from pipeline.whisper.words import UNTIMED

SECONDS = 28  # of the passage


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(locate("base").tokenizer)


def sought(tokens: Tokens, end: float, speech: Span, *, no_speech_prob: float = 0.1, reference: bool = False) -> float:
    """Return where the next window starts after one whose text ends with a single timestamp at `end`; all in seconds.

    The recording's speech is from the passage's start to 2 s, and `speech`.
    """
    at = 60 * SAMPLE_RATE
    spans = tuple(Span(at + span.start * SAMPLE_RATE, at + span.end * SAMPLE_RATE) for span in (Span(0, 2), speech))
    passage = Passage("one", 0, at, np.zeros(SECONDS * SAMPLE_RATE, np.int16), spans)
    reel = Reel(passage, torch.zeros(80, 6000), SECONDS * FRAMES_PER_SECOND, Evidence(("en",), "en"))
    window, options = Window.next(reel), WhisperOptions(reference=reference)
    first = tokens.layout.first_timestamp
    said = [first, *tokens.encode(" Hello there."), first + round(50 * end)]
    assert window.judge(Candidate(said, [0.0] * len(said), -1.0), no_speech_prob, tokens, options)
    window.conclude(tokens, options, UNTIMED)
    assert [segment.text for segment in reel.segments] == ["Hello there."]
    return reel.seek / FRAMES_PER_SECOND


def test_window_whose_output_ends_early_is_done_where_nobody_speaks_any_more(tokens: Tokens) -> None:
    assert sought(tokens, 8, Span(2, 10)) == SECONDS  # two seconds of speech are left, no more


def test_speech_that_the_output_leaves_out_is_heard_again(tokens: Tokens) -> None:
    assert sought(tokens, 8, Span(7, 11)) == 8
    assert sought(tokens, 8, Span(20, 23)) == 8


def test_the_reference_goes_on_behind_the_window_whatever_is_left_out(tokens: Tokens) -> None:
    assert sought(tokens, 8, Span(20, 28), reference=True) == SECONDS


def test_what_sounds_like_no_speech_is_not_heard_again(tokens: Tokens) -> None:
    assert sought(tokens, 8, Span(20, 28), no_speech_prob=0.7) == SECONDS


def test_each_window_gets_on(tokens: Tokens) -> None:
    assert sought(tokens, 1, Span(3, 28)) == SECONDS
