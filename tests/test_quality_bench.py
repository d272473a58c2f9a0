"""The parts of bench/quality.py that need no model: conditions, the verdict on a segment, logistic regression."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))  # behind the library: a bench there is called pipeline, too

from conditions import Case, levelled, mixed, telephone
from elsewhere import LINE, VOICES
from judged import judged
from logistic import auroc, fit, sigmoid
from quality import lines

from pipeline.types import SAMPLE_RATE, Segment

RNG = np.random.default_rng(7)
TONE = (8_000 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.int16)
NOISE = RNG.normal(0, 500, SAMPLE_RATE // 3).astype(np.int16)
SEGMENT = Segment(0, 2 * SAMPLE_RATE, "", "en", 0.9, "transcribe", -0.3, 1.2, 0.1, 0.0, ())


def level(samples: np.ndarray) -> float:
    return 20 * float(np.log10(np.sqrt(np.mean(samples.astype(float) ** 2)) / 32_768))


def verdicts(case: Case, *texts: tuple[float, float, str]) -> list[bool | None]:
    segments = [
        replace(SEGMENT, start=round(start * SAMPLE_RATE), end=round(end * SAMPLE_RATE), text=text)
        for start, end, text in texts
    ]
    return [row["invented"] for row in judged(case, segments)]


def case(text: str, gaps: tuple[tuple[float, float], ...] = ()) -> Case:
    return Case("c", "g", "clean", TONE, text, "en", gaps=gaps)


# --- conditions -------------------------------------------------------------------------------------------------------


def test_noise_lies_so_far_below_speech() -> None:
    for noise_db in (10, -10):
        both = mixed(TONE, NOISE, noise_db).astype(float)
        share = np.abs(np.fft.rfft(both)) ** 2
        tone = share[438:443].sum()
        assert 10 * np.log10(tone / (share.sum() - tone)) == pytest.approx(noise_db, abs=0.5)


def test_levels_are_what_is_asked_for() -> None:
    assert level(levelled(TONE, -45)) == pytest.approx(-45, abs=0.1)


def test_a_telephone_lets_the_middle_through() -> None:
    deep = (8_000 * np.sin(2 * np.pi * 100 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.int16)
    assert level(telephone(TONE)) == pytest.approx(level(TONE), abs=0.5)
    assert np.abs(telephone(deep)).max() < 100


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_any_text_is_invented_where_nothing_is_said() -> None:
    assert verdicts(case(""), (0, 2, "Thank you.")) == [True]


def test_words_that_were_said_are_right_and_others_invented() -> None:
    said = case("He should notice the position of the body. Thanks to all who came tonight.")
    heard = [(0, 4, "He should notice the position of a body."), (4, 8, "Subscribe, click, and like us below!")]
    assert verdicts(said, *heard) == [False, True]


def test_misheard_words_are_in_doubt() -> None:
    assert verdicts(
        case("Hier heeft al een hele tijd niemand opgeruimd"), (0, 3, "hir heft al ne hele teit nieman op geruint")
    ) == [None]


def test_misheard_words_are_held_against_what_is_said_there_and_not_against_all_that_is_misheard() -> None:
    said = case("But behold these kine. Miss Innes, he said, stopping me.")
    heard = [(0, 2, "But before it is kind."), (2, 4, "This Yinz, he said, stopping me.")]
    assert verdicts(said, *heard) == [None, None]
    heard = [(0, 2, "We will be right back."), (2, 4, "Miss Innes, he said, stopping me.")]
    assert verdicts(said, *heard) == [True, False]


def test_text_in_a_gap_is_invented_though_words_are_said_beside_it() -> None:
    said = case("Good morning to all of you. The weather is fine today.", gaps=((3.0, 12.0),))
    heard = [
        (0, 3, "Good morning to all of you."),
        (4, 11, "Thanks for watching!"),
        (12, 15, "The weather is fine today."),
    ]
    assert verdicts(said, *heard) == [False, True, False]


def test_loops_of_a_said_word_are_invented() -> None:
    assert verdicts(case("and so it goes on"), (0, 9, "goes " * 12)) == [True]


# --- recordings from elsewhere ----------------------------------------------------------------------------------------


def test_lines_of_a_script_have_their_names_and_texts() -> None:
    script = """dialogId("let-m-divna", "font_small", "What kind of ship is that?")
dialogStr("Co je to za loď?")

dialogId("let-v-vrak0", "font_big", "A wreck.")
dialogStr("To je vrak.")"""
    assert LINE.findall(script) == [("let-m-divna", "Co je to za loď?"), ("let-v-vrak0", "To je vrak.")]


def test_sounds_that_people_make_are_told_by_their_names() -> None:
    assert all(map(VOICES.search, ("sound/default/voices/jump.ogg", "sounds/verygood.wav", "sfx/evillaugh.wav")))
    assert not any(map(VOICES.search, ("sounds/shell.wav", "sfx/evil.wav")))


# --- logistic regression ----------------------------------------------------------------------------------------------


def test_the_fit_finds_the_weights_that_made_the_labels() -> None:
    x = RNG.normal(3, 2, (20_000, 2))
    labels = (RNG.random(20_000) < sigmoid(-1 + 0.8 * x[:, 0] - 0.5 * x[:, 1])).astype(float)
    found = fit(x, labels, [+1, -1], np.ones(20_000), 0.0)
    assert found == pytest.approx([-1, 0.8, -0.5], abs=0.12)


def test_a_weight_of_the_wrong_sign_is_nothing() -> None:
    x = RNG.normal(0, 1, (2_000, 1))
    assert fit(x, (x[:, 0] > 0).astype(float), [-1], np.ones(2_000), 0.01)[1] == 0


def test_a_table_without_rows_is_shown_as_one() -> None:
    assert lines([]) == "-"
    assert lines([{"language": "en", "segments": 3}]).split() == ["language", "segments", "en", "3"]


def test_auroc_counts_pairs_in_order() -> None:
    labels = np.array([True, True, False, False])
    assert auroc(np.array([4.0, 3.0, 2.0, 1.0]), labels) == 1.0
    assert auroc(np.array([1.0, 3.0, 2.0, 1.0]), labels) == 0.625
