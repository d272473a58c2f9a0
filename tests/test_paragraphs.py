"""Where paragraphs of plain text end."""

from __future__ import annotations

from typing import Any

from pipeline.paragraphs import ParagraphOptions, txt

OPTIONS = ParagraphOptions()


def said(*spoken: tuple[float, float, str], speaker: str | None = None) -> list[dict[str, Any]]:
    return [{"start": start, "end": end, "text": text, "speaker": speaker} for start, end, text in spoken]


def test_segments_without_pauses_are_one_paragraph() -> None:
    assert txt(said((0, 2, "One and"), (2, 4, "two."), (4.5, 6, "Three.")), OPTIONS) == "One and two. Three.\n"


def test_pause_after_a_sentence_begins_a_paragraph() -> None:
    assert txt(said((0, 2, "One."), (4, 6, "Two.")), OPTIONS) == "One.\n\nTwo.\n"


def test_pause_inside_a_sentence_does_not_unless_it_is_long() -> None:
    assert txt(said((0, 2, "One and"), (4, 6, "two.")), OPTIONS) == "One and two.\n"
    assert txt(said((0, 2, "One and"), (8, 9, "two.")), OPTIONS) == "One and\n\ntwo.\n"


def test_speakers_have_paragraphs_of_their_own() -> None:
    rows = said((0, 1, "Good evening."), (1, 2, "How are you?"), speaker="A") + said((2, 3, "Fine."), speaker="B")
    assert txt(rows, OPTIONS) == "A: Good evening. How are you?\n\nB: Fine.\n"


def test_long_paragraphs_end_with_a_sentence_even_inside_of_a_segment() -> None:
    rows = said(*((n, n + 1, "goes on. The next one starts and") for n in range(40)))
    made = txt(rows, ParagraphOptions(max_chars=200)).strip().split("\n\n")
    assert len(made) == 6
    assert all(one.endswith("goes on.") for one in made[:-1])
    assert all(200 <= len(one) < 240 for one in made[:-1])


def test_text_without_any_sentence_is_cut_nevertheless() -> None:
    rows = said(*((n, n + 1, "and so on") for n in range(100)))
    made = txt(rows, ParagraphOptions(max_chars=100)).strip().split("\n\n")
    assert all(len(one) <= 310 for one in made)
    assert " ".join(made) == " ".join(["and so on"] * 100)


def test_scripts_without_spaces_are_joined_without_them() -> None:
    rows = said((0, 1, "今日は"), (1, 2, "いい天気です。"), (2, 3, "明日も。"))
    assert txt(rows, OPTIONS) == "今日はいい天気です。明日も。\n"
    assert txt(said((0, 1, "오늘은"), (1, 2, "좋아요.")), OPTIONS) == "오늘은 좋아요.\n"


def test_empty_segments_and_recordings() -> None:
    assert txt(said((0, 1, " "), (1, 2, "One."), (2, 3, "")), OPTIONS) == "One.\n"
    assert txt([], OPTIONS) == ""
