"""What a text tells by itself: letters, speed, repetition, variety; the same for every script."""

from __future__ import annotations

import pytest

from pipeline.signs import characters_per_second, letters, repetition, variety
from pipeline.types import SAMPLE_RATE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 5 o'clock!", "its5oclock"),
        ("ＡＢＣ　１２", "abc12"),
        ("नमस्ते", "नमस्ते"),
        ("♪ ... ♪", ""),
        ("Straße", "strasse"),
    ],
)
def test_letters_are_folded_and_alone(text: str, expected: str) -> None:
    assert letters(text) == expected


def test_speed_counts_letters_a_second_of_speech() -> None:
    assert characters_per_second("Guten Tag!", 2 * SAMPLE_RATE) == 4.0
    assert characters_per_second("Guten Tag!", 0) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0)),
        ("Good morning", (2, 1)),  # oo
        ("La la, la la!", (8, 2)),
        ("No. No.", (4, 2)),
        ("That is all. Thank you. Thank you. Thank you.", (24, 8)),
        ("スタッフの音が、音が、音が", (6, 2)),
        ("謝謝大家 謝謝大家", (8, 4)),
        ("aaaaaaa", (7, 1)),
        ("abcabcab", (8, 3)),
        ("____ ____", (8, 1)),
        ("...", (3, 1)),
    ],
)
def test_the_longest_repetition_and_its_period(text: str, expected: tuple[int, int]) -> None:
    assert repetition(text) == expected


def test_repetition_is_what_counting_finds() -> None:
    text = "abababbabbabbaabab"

    def repeats(start: int, length: int, period: int) -> bool:
        stretch = text[start : start + length]
        return length >= 2 * period and all(stretch[i] == stretch[i - period] for i in range(period, length))

    found = [
        (length, -period)
        for start in range(len(text))
        for length in range(2, len(text) - start + 1)
        for period in range(1, length // 2 + 1)
        if repeats(start, length, period)
    ]
    length, period = max(found)
    assert repetition(text) == (length, -period)


def test_variety_is_high_for_ordinary_text_in_every_script() -> None:
    for text in (
        "He should notice the position and temperature of the body.",
        "Все операторы заняты, пожалуйста, подождите немного.",
        "今日はとても良い天気ですね、散歩に行きましょう。",
        "今天天气很好，我们去公园散步吧。",
        "วันนี้อากาศดีมากไปเดินเล่นกันเถอะ",
        "오늘은 날씨가 아주 좋네요.",
    ):
        assert variety(text) > 0.85, text


def test_variety_is_low_for_loops_in_every_script() -> None:
    for text in (
        "la la la la la la la la",
        "音が、音が、音が、音が、音が、音が",
        "да да да да да да да",
        "1.5x4.5x4.5x4.5x4.5x4.5x",
        "________________",
        "♪ ♪ ♪ ♪ ♪ ♪ ♪",
        "❤️❤️❤️❤️❤️❤️❤️❤️",
    ):
        assert variety(text) < 0.55, text


def test_a_text_too_short_to_repeat_anything_is_varied() -> None:
    assert variety("") == variety("Oh.") == 1.0
