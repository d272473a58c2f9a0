"""Texts without times get those of what was heard, where that is sure."""

from __future__ import annotations

from pipeline.anchors import parts


def heard(*texts: str) -> list[dict[str, object]]:
    """Return segments of three seconds each."""
    return [{"start": 3.0 * at, "end": 3.0 * at + 2.5, "text": text} for at, text in enumerate(texts)]


def test_equal_texts_are_cut_at_every_segment() -> None:
    found = parts("Good evening, all. Here is the news!", heard("good evening all", "here is the news"))
    assert [(part.start, part.end, part.text) for part in found] == [
        (0.0, 2.5, "Good evening, all."),
        (3.0, 5.5, "Here is the news!"),
    ]


def test_an_end_beside_a_doubtful_word_is_no_end() -> None:
    found = parts("Good evening all. Hear is the news.", heard("good evening all", "here is the news"))
    assert [(part.start, part.end, part.text) for part in found] == [(0.0, 5.5, "Good evening all. Hear is the news.")]


def test_words_that_were_not_heard_at_an_end_keep_its_parts_together() -> None:
    found = parts("One two three, well, four five six.", heard("one two three", "four five six"))
    assert [part.text for part in found] == ["One two three, well, four five six."]


def test_all_of_the_text_is_in_the_parts_once() -> None:
    text = "Intro that nobody says. One two three. Four five six - and an end."
    found = parts(text, heard("one two three", "four five six", ""))
    assert " ".join(part.text for part in found) == text
    assert [part.heard for part in found] == ["one two three", "four five six"]


def test_scripts_without_spaces_are_cut_between_characters() -> None:
    found = parts("今天天气很好。我们去公园。", heard("今天天气很好", "我们去公园"))
    assert [part.text for part in found] == ["今天天气很好。", "我们去公园。"]


def test_nothing_heard_gives_no_parts() -> None:
    assert parts("Said.", []) == []
