"""Errors between texts: counted like by hand, like by another library, after Whisper's own normalisation."""

from __future__ import annotations

import random

import jiwer
import pytest

from pipeline.text import Errors, TextOptions, align, compare, count, is_spaceless


def least_edits(said: list[str], heard: list[str]) -> int:
    """Return the edit distance by the textbook's table (Wagner and Fischer 1974)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        above, row = row, [i]
        for j, other in enumerate(heard, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other)))
    return row[-1]


def test_errors_of_random_texts_are_the_fewest_edits_and_those_of_jiwer() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    for _ in range(200):
        said, heard = (rng.choices("abcde", k=rng.randint(1, 12)) for _ in range(2))
        found, theirs = count(said, heard), jiwer.process_words(" ".join(said), " ".join(heard))
        assert found.errors == least_edits(said, heard)
        assert found.wer == pytest.approx(theirs.wer)
        assert found.hits + found.substitutions + found.deletions == found.words == len(said)
        assert found.cer == pytest.approx(jiwer.cer(" ".join(said), " ".join(heard)))


@pytest.mark.parametrize(
    ("said", "heard", "language"),
    [
        ("I'm twenty, Mr. Smith!", "i am 20 mister smith", "en"),
        ("The colour of $5", "the color of five dollars", "en"),
        ("[laughter] Well, um, yes.", "well yes", "en"),
        ("Straße, „ja“!", "straße ja", "de"),
        ("你好，世界。", "你好世界", "zh"),
    ],
)
def test_what_the_normalisation_evens_out_is_no_error(said: str, heard: str, language: str) -> None:
    assert compare(said, heard, language).errors.errors == 0


def test_scripts_without_spaces_are_scored_by_characters() -> None:
    found = compare("今日はいい天気", "今日は天気", "ja")
    assert found.spaceless
    assert (found.errors.words, found.errors.deletions) == (7, 2)


@pytest.mark.parametrize(("text", "spaceless"), [("", False), ("42", False), ("สวัสดี", True), ("privet мир", False)])
def test_script_tells_whether_words_have_spaces(text: str, spaceless: bool) -> None:
    assert is_spaceless(text) is spaceless


def test_marks_stay_where_they_are_asked_for() -> None:
    said, heard = "की", "का"  # two vowels of Hindi, which Whisper's own rules drop
    assert compare(said, heard, "hi").errors.errors == 0
    assert compare(said, heard, "hi", TextOptions(normalizer="keep-marks")).errors.errors == 1


def test_silence_has_no_rate_and_its_text_is_inserted() -> None:
    found = compare("", "Thanks for watching!", "en").errors
    assert (found.wer, found.insertions) == (None, 3)
    assert (Errors(words=4, hits=4) + found).wer == 0.75


def test_alignment_puts_words_beside_each_other() -> None:
    steps = [(one.operation, one.reference, one.hypothesis) for one in align(["a", "b", "c"], ["a", "x", "c", "d"])]
    assert steps == [
        ("equal", "a", "a"), ("replace", "b", "x"), ("equal", "c", "c"), ("insert", None, "d")
    ]  # fmt: skip
