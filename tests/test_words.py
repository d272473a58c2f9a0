"""Word times: against the reference on real speech, and the parts of it alone."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from speech_examples import LANGUAGES, answers, clip, passage, passes, said, with_options

from pipeline.types import SAMPLE_RATE
from pipeline.whisper.alignment import Alignment, Spoken, _median, align, warp
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.locate import locate
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.reels import Window
from pipeline.whisper.tokens import Tokens
from pipeline.whisper.words import Bounds, Timing, assign, split, timings

PLAIN = WhisperOptions(jump_s=math.inf, temperatures=(0.0,), dtype="float32", words=True)


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    return WhisperEngine(PLAIN)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(locate("base").tokenizer)


# The first seconds of one at once, two windows of every one among the slow tests.
EVERY = [pytest.param(name, 40, marks=pytest.mark.slow) for name in LANGUAGES]


@pytest.mark.parametrize(("name", "length_s"), [("es_centralita.opus", 12), *EVERY])
def test_words_times_and_probabilities_equal_the_reference(engine: WhisperEngine, name: str, length_s: int) -> None:
    one = clip(passage(name, LANGUAGES[name]), length_s)
    ours = answers(with_options(engine, replace(PLAIN, reference=True, slots=1)), one)[name].segments
    theirs = reference.transcribe(engine.model, one.pcm, language=one.language, word_timestamps=True)
    length = len(one.pcm) / SAMPLE_RATE
    assert [segment.text for segment in ours] == [segment["text"].strip() for segment in theirs]
    mine = [word for segment in ours for word in segment.words]
    expected = [word for segment in theirs for word in segment["words"]]
    assert [word.text for word in mine] == [word["word"] for word in expected]
    for word, other in zip(mine, expected, strict=True):
        assert word.start / SAMPLE_RATE == pytest.approx(min(other["start"], length), abs=0.011)
        assert word.end / SAMPLE_RATE == pytest.approx(min(other["end"], length), abs=0.011)
        assert word.probability == pytest.approx(other["probability"], abs=1e-3)
    for segment, other in zip(ours, theirs, strict=True):
        assert segment.start / SAMPLE_RATE == pytest.approx(other["start"], abs=0.011)
        assert segment.end / SAMPLE_RATE == pytest.approx(min(other["end"], length), abs=0.011)


def test_words_do_not_change_the_text_and_make_it_up(engine: WhisperEngine) -> None:
    clips = [clip(passage(name, language), 5) for name, language in list(LANGUAGES.items())[:2]]
    with_words, without = answers(engine, *clips), answers(with_options(engine, replace(PLAIN, words=False)), *clips)
    assert {name: said(one.segments) for name, one in with_words.items()} == {
        name: said(one.segments) for name, one in without.items()
    }
    for segment in (segment for one in with_words.values() for segment in one.segments):
        assert "".join(word.text for word in segment.words).strip() == segment.text
        assert all(word.start <= word.end for word in segment.words)
    assert not any(segment.words for one in without.values() for segment in one.segments)


def test_words_do_not_depend_on_what_else_is_aligned(engine: WhisperEngine, tokens: Tokens) -> None:
    one = clip(passage("es_centralita.opus", "es"), 12)
    (encoded,) = engine.encoders.encode(Window.next(engine._reel(one)).mel[None])
    start, _ = tokens.prompt("es", "transcribe", [], timestamps=False)
    texts = (tokens.encode(" Gracias por llamar a la centralita." * times) for times in (1, 9))
    spoken = [Spoken(start, text, tokens.layout.eot, encoded.audio, 1200) for text in texts]
    with passes(engine.model) as together:
        found = align(engine.model, spoken)
    with passes(engine.model) as alone:
        expected = [align(engine.model, [one])[0] for one in spoken]
    assert together == alone
    for mine, other in zip(found, expected, strict=True):
        assert list(mine.times) == list(other.times)
        np.testing.assert_allclose(mine.probabilities, other.probabilities, atol=1e-6)


def test_warping_all_at_once_equals_the_plain_recurrence() -> None:
    seed = random.randrange(2**31)
    print("seed", seed)  # noqa: T201 (a failure must be repeatable)
    rng = np.random.default_rng(seed)
    # Few different costs, so that ties, which the order of the moves decides, are met.
    costs = [rng.integers(-2, 3, (rng.integers(1, 12), rng.integers(1, 40))).astype(float) for _ in range(30)]
    for cost, first in zip(costs, warp(costs), strict=True):
        assert first.tolist() == plain_warp(cost)


def plain_warp(cost: np.ndarray) -> list[float]:
    height, width = cost.shape
    total = np.full((height + 1, width + 1), np.inf, np.float32)
    moves = np.zeros((height + 1, width + 1), int)
    total[0, 0] = 0
    for i in range(1, height + 1):
        for j in range(1, width + 1):
            diagonal, down, along = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            if diagonal < down and diagonal < along:
                moves[i, j], best = 0, diagonal
            elif down < diagonal and down < along:
                moves[i, j], best = 1, down
            else:
                moves[i, j], best = 2, along
            total[i, j] = best + cost[i - 1, j - 1]
    first = [0.0] * height
    i, j = height, width
    while i and j:
        first[i - 1] = float(j - 1)
        i, j = i - (moves[i, j] != 2), j - (moves[i, j] != 1)
    return first


def test_running_median_equals_the_sorted_middle() -> None:
    x = torch.randn(3, 4, 50)
    windows = torch.nn.functional.pad(x, (3, 3), mode="reflect").unfold(2, 7, 1)
    assert torch.equal(_median(x), windows.sort(3).values[..., 3])
    assert torch.equal(_median(x[..., :3]), x[..., :3])


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        (" Hello, world.", "en", [" Hello", ",", " world", "."]),
        (" l'été naïf", "fr", [" l'été", " naïf"]),
        ("你好吗", "zh", ["你", "好", "吗"]),
        (" \U0001f3a7 on", "en", [" \U0001f3a7", " on"]),
    ],
)
def test_text_is_split_into_words_of_whole_characters(
    tokens: Tokens, text: str, language: str, words: list[str]
) -> None:
    pieces = split(tokens, tokens.encode(text), language)
    if language == "zh":
        assert "".join(piece for piece, _ in pieces) == text
        assert all("\ufffd" not in piece for piece, _ in pieces)
        assert len(pieces) > 1
    elif "'" in text:
        assert "".join(piece for piece, _ in pieces) == text
    else:
        assert [piece for piece, _ in pieces] == words
    assert sum(count for _, count in pieces) == len(tokens.encode(text))


@pytest.mark.parametrize("text", ["好 🜁", " 𠮷", "한 뷁", "🫠"])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_text_that_ends_inside_a_character_is_split_all_the_same(tokens: Tokens, text: str, language: str) -> None:
    cut_short = tokens.encode(text)[:-1]
    pieces = split(tokens, cut_short, language)
    assert "".join(piece for piece, _ in pieces) == tokens.decode(cut_short)
    assert sum(count for _, count in pieces) == len(cut_short)


def test_punctuation_joins_its_word() -> None:
    words = [(" “", 1), (" Hello", 1), (",", 1), (" world", 1), ("!", 1), ("”", 1)]
    timed, _ = timings(words, Alignment(np.arange(7) / 10, np.full(6, 0.5)))
    assert [(word.text, word.tokens) for word in timed if word.text] == [(" “ Hello,", 3), (" world!”", 3)]


def test_word_after_a_sentence_end_is_shortened_to_twice_the_median() -> None:
    words = [(" one", 1), (" two", 1), (" three", 1), (".", 1), (" four", 1)]
    timed, median = timings(words, Alignment(np.array([0.0, 0.2, 0.4, 0.6, 0.8, 5.0]), np.ones(5)))
    assert median == pytest.approx(0.2)
    assert timed[-1].start == pytest.approx(5.0 - 0.4)


def test_first_word_after_a_pause_is_shortened_and_bounds_follow_the_words() -> None:
    words = [Timing(" late", 1, 0.0, 6.0, 1.0), Timing(" word", 1, 6.0, 6.2, 1.0)]
    segment = Bounds(100.0, 106.3, 2)
    ((first, second),) = assign(words, 0.2, [segment], origin=100.0, last=90.0)
    assert first.start == pytest.approx(105.6)
    assert (segment.start, segment.end) == (pytest.approx(105.6), pytest.approx(106.2))
    assert second.end == pytest.approx(106.2)
