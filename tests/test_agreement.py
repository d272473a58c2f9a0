"""How far a second text agrees with the first, segment by segment."""

from __future__ import annotations

import pytest

from pipeline.agreement import agreements


def wers(segments: list[str], heard: str, language: str = "en", **near: str) -> list[float | None]:
    return [one.wer for one in agreements(segments, heard, language, **near)]


def test_the_same_words_agree_whatever_their_case_and_punctuation() -> None:
    (one,) = agreements(["Hello, world. It's 21 Degrees!"], "hello world it is twenty one degrees", "en")
    assert (one.wer, one.cer, one.edge_cer) == (0, 0, 0)


def test_each_segment_gets_the_words_that_fall_to_it() -> None:
    segments = ["the cat sat on the mat", "and then it went away", "nobody knows where"]
    assert wers(segments, "the cat sat on a mat and then it went away") == [1 / 6, 0, 1]


def test_words_of_the_neighbours_count_for_nothing() -> None:
    near = {"before": "so this is the story", "after": "which was long ago"}
    assert wers(["a man came home"], "the story a man came home which", **near) == [0]
    assert wers(["a man came home"], "glory a man came home witch", **near) == [0]
    assert wers(["a man came home"], "the story an old man came home which", **near) == [0.5]


def test_what_is_more_at_an_edge_counts() -> None:
    assert wers(["a man came home"], "then a man came home early") == [0.5]


def test_nothing_heard_is_no_agreement() -> None:
    (one,) = agreements(["Thanks for watching!"], "", "en")
    assert (one.words, one.wer, one.cer, one.edge_cer) == (3, 1, 1, 1)


def test_edges_are_told_apart_from_the_middle() -> None:
    middle, edge = (
        agreements(["one two three four five six seven"], heard, "fr")[0]
        for heard in ("one two three XXXX five six seven", "one two three four five six XXXXX")
    )
    assert middle.wer == edge.wer == 1 / 7
    assert (middle.edge_cer, edge.edge_cer) == (0, pytest.approx(5 / len("five six seven")))


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    (one,) = agreements(["今日は天気がいいです。"], "今日は天気がよいです", "ja")
    assert (one.words, one.wer) == (10, 0.1)


def test_segment_without_words_has_no_rate() -> None:
    assert wers(["...", "well then"], "well then") == [None, 0]
