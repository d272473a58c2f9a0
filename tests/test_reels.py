"""How a window's result moves its passage on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.types import SAMPLE_RATE, Passage, Span
from pipeline.whisper.languages import LanguagePool
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
    """Return where the next window starts after one whose text ends with one timestamp at `end`; all in seconds."""
    said = [0.0, " Hello there.", end]
    return after(tokens, said, speech, WhisperOptions(reference=reference), no_speech_prob=no_speech_prob)


def reel_of(speech: Span) -> Reel:
    at = 60 * SAMPLE_RATE
    spans = tuple(Span(at + span.start * SAMPLE_RATE, at + span.end * SAMPLE_RATE) for span in (Span(0, 2), speech))
    passage = Passage("one", 0, at, np.zeros(SECONDS * SAMPLE_RATE, np.int16), spans)
    return Reel(passage, torch.zeros(80, 6000), SECONDS * FRAMES_PER_SECOND, LanguagePool(("en",), "en"))


def after(
    tokens: Tokens,
    said: list[float | str],
    speech: Span,
    options: WhisperOptions,
    *,
    no_speech_prob: float = 0.1,
    logprob: float = -1.0,
) -> float:
    """Return where the next window starts, in seconds, after one that `said` these timestamps and texts.

    The recording's speech is from the passage's start to 2 s, and `speech`, in seconds.
    """
    reel = reel_of(speech)
    window, first = Window.next(reel), tokens.layout.first_timestamp
    ids = [tokens.encode(one) if isinstance(one, str) else [first + round(50 * one)] for one in said]
    line = [token for some in ids for token in some]
    assert window.judge(Candidate(line, [0.0] * len(line), logprob), no_speech_prob, tokens, options)
    window.conclude(tokens, options, UNTIMED)
    assert [segment.text for segment in reel.segments] == [
        " ".join(one.strip() for one in said if isinstance(one, str))
    ]
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


def test_windows_get_on(tokens: Tokens) -> None:
    assert sought(tokens, 4, Span(5, 28)) == SECONDS


def test_what_has_no_end_is_done(tokens: Tokens) -> None:
    assert after(tokens, [5.0, " Hello there."], Span(2, 28), WhisperOptions()) == SECONDS


def test_without_timestamps_each_window_is_heard_once(tokens: Tokens) -> None:
    assert after(tokens, [" Hello", 5.0, " there."], Span(2, 28), WhisperOptions(timestamps=False)) == SECONDS
    assert after(tokens, [0.0, " Hello there.", 8.0], Span(2, 28), WhisperOptions(timestamps=False)) == SECONDS


def test_what_failed_its_gates_is_not_heard_again(tokens: Tokens) -> None:
    once = WhisperOptions(temperatures=(0.0,))
    assert after(tokens, [0.0, " Hello there.", 8.0], Span(2, 28), once) == 8
    assert after(tokens, [0.0, " Hello there.", 8.0], Span(2, 28), once, logprob=-20.0) == SECONDS


OPTIONS = WhisperOptions()
LOOP = " la" * 60


def heard(tokens: Tokens, text: str, *logprobs: float, no_speech_prob: float = 0.1) -> tuple[Reel, Window]:
    """Return a window that said `text`, with context before, and its reel; a mean log-probability an attempt."""
    reel = reel_of(Span(2, 28))
    reel.context = [1, 2, 3]
    window = Window.next(reel)
    first = tokens.layout.first_timestamp
    line = [first, *tokens.encode(text), first + 400]
    for place, mean in enumerate(logprobs):
        candidate = Candidate(line, [0.0] * len(line), mean * (len(line) + 1))
        stands = window.judge(candidate, no_speech_prob, tokens, OPTIONS)
        assert stands == (place == len(logprobs) - 1)
    window.conclude(tokens, OPTIONS, UNTIMED)
    return reel, window


@pytest.mark.parametrize(("attempts", "kept"), [(1, True), (3, True), (4, False), (6, False)])
def test_text_is_context_up_to_temperature_one_half(tokens: Tokens, attempts: int, kept: bool) -> None:
    reel, window = heard(tokens, " Hello there.", *[-1.5] * (attempts - 1), -0.5)
    assert window.passed
    assert [one.temperature for one in reel.segments[0].attempts] == list(OPTIONS.temperatures[:attempts])
    assert reel.segments[0].temperature == OPTIONS.temperatures[attempts - 1]
    text = tokens.encode(" Hello there.")
    assert [token for token in reel.context if token < tokens.layout.eot] == ([1, 2, 3, *text] if kept else [])


def test_silence_is_skipped_even_where_a_loop_was_decoded_and_leaves_the_context_as_it_is(tokens: Tokens) -> None:
    reel, window = heard(tokens, LOOP, -1.5, no_speech_prob=0.7)
    assert window.chosen is None
    assert (reel.segments, reel.context, len(reel.silent)) == ([], [1, 2, 3], 1)
    assert reel.seek == SECONDS * FRAMES_PER_SECOND


def test_a_likely_loop_is_tried_again_whatever_sounds_like_silence(tokens: Tokens) -> None:
    window = Window.next(reel_of(Span(2, 28)))
    line = tokens.encode(LOOP)
    candidate = Candidate(line, [0.0] * len(line), -0.5 * (len(line) + 1))
    assert not window.judge(candidate, 0.7, tokens, OPTIONS)


@pytest.mark.parametrize(("reference", "sought"), [(True, 1), (False, SECONDS)])
def test_where_no_words_are_timed_the_reference_seeks_to_the_last_piece(
    tokens: Tokens, reference: bool, sought: int
) -> None:
    reel = reel_of(Span(2, 28))
    window, line = Window.next(reel), [tokens.layout.first_timestamp + 50]
    options = WhisperOptions(words=True, reference=reference)
    assert window.judge(Candidate(line, [0.0], -0.5), 0.1, tokens, options)
    window.conclude(tokens, options, UNTIMED)
    assert reel.seek == sought * FRAMES_PER_SECOND
