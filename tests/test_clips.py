"""Clips: what is said together, and nothing said twice or left out."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from pipeline.clips import Clip, ClipOptions, cut, ends_sentence, join, letters

OPTIONS = ClipOptions(min_s=3.0, max_s=15.0, target_s=8.0, max_pause_s=2.0)
LOOSE = ClipOptions(min_s=0.5, max_s=15.0, target_s=2.0, max_pause_s=2.0)


def segment(index: int, start: float, end: float, text: str, *flags: str, **other: Any) -> dict[str, Any]:
    """Return a row of the segments table."""
    row = {"index": index, "start": start, "end": end, "text": text, "language": "en", "task": "transcribe"}
    return row | {"flags": list(flags), "speaker": None} | other


def spoken(*texts: str, word_s: float = 0.4, pause_s: float = 0.6, **other: Any) -> tuple[list[Any], list[Any]]:
    """Return segments and words: `texts` one after the other, with pauses between them and none inside."""
    segments, words, at = [], [], 0.0
    for index, text in enumerate(texts):
        begun = at
        for number, word in enumerate(text.split()):
            row = {"segment": index, "index": number, "start": at, "end": at + word_s, "word": f" {word}"}
            words.append(row | {"probability": 0.9})
            at += word_s
        segments.append(segment(index, begun, at, text, **other))
        at += pause_s
    return segments, words


def texts(clips: list[Clip]) -> list[str]:
    return [clip.text for clip in clips]


def test_sentences_are_merged_up_to_the_wanted_length_and_cut_at_their_ends() -> None:
    segments, words = spoken(*["One two three four five six."] * 6)
    clips = cut(segments, words, 20.0, OPTIONS)
    assert all(clip.text.endswith(".") for clip in clips)
    assert all(OPTIONS.min_s <= clip.end - clip.start <= OPTIONS.max_s for clip in clips)
    assert len(clips) < 6


def test_a_pause_is_preferred_to_no_pause_where_no_sentence_ends() -> None:
    segments, words = spoken("one two three four five six seven eight nine ten", "eleven twelve " * 8)
    clips = cut(segments, words, 20.0, ClipOptions(1.0, 8.0, 5.0))
    assert clips[0].text.endswith("ten")


def test_a_long_pause_is_never_inside_a_clip() -> None:
    segments, words = spoken("One two.", "Three four.", pause_s=2.5)
    assert texts(cut(segments, words, 10.0, OPTIONS)) == ["One two.", "Three four."]


def test_doubtful_segments_stay_apart_from_good_ones() -> None:
    segments, words = spoken("Good one.", "Bad one.", "Good two.")
    segments[1]["flags"] = ["repetitive"]
    clips = cut(segments, words, 10.0, OPTIONS)
    assert [[bool(row["flags"]) for row in clip.segments] for clip in clips] == [[False], [True], [False]]


def test_languages_stay_apart() -> None:
    segments, words = spoken("Good day.", "Guten Tag.")
    segments[1]["language"] = "de"
    assert texts(cut(segments, words, 10.0, OPTIONS)) == ["Good day.", "Guten Tag."]


def test_speakers_stay_apart_where_asked() -> None:
    segments, words = spoken("Good day.", "To you, too.")
    segments[0]["speaker"], segments[1]["speaker"] = "A", "B"
    assert len(cut(segments, words, 10.0, OPTIONS)) == 1
    assert len(cut(segments, words, 10.0, ClipOptions(by_speaker=True))) == 2


def test_without_words_segments_are_merged_whole() -> None:
    segments, _ = spoken(*["One two three four five six."] * 4)
    clips = cut(segments, [], 20.0, OPTIONS)
    assert " ".join(texts(clips)) == " ".join(row["text"] for row in segments)
    assert all(not clip.words for clip in clips)


def test_a_clip_knows_how_far_its_edges_may_go() -> None:
    segments, words = spoken("One two three.", "Four five six.", pause_s=1.0)
    first, second = cut(segments, words, 10.0, LOOSE)
    assert (first.before, first.after) == (0.0, second.start)
    assert (second.before, second.after) == (first.end, 10.0)


def test_what_has_no_pause_is_cut_all_the_same() -> None:
    segments, words = spoken("word " * 100)
    assert all(clip.end - clip.start <= OPTIONS.max_s for clip in cut(segments, words, 50.0, OPTIONS))


def test_times_that_run_backwards_do_no_harm() -> None:
    segments = [segment(0, 0.0, 5.0, "One."), segment(1, 4.0, 6.0, "Two."), segment(2, 3.0, 3.5, "Three.")]
    (clip,) = cut(segments, [], 8.0, OPTIONS)
    assert (clip.start, clip.end, clip.text) == (0.0, 6.0, "One. Two. Three.")


@pytest.mark.parametrize("seed", range(20))
def test_every_word_is_in_exactly_one_clip_in_order(seed: int) -> None:
    rng = random.Random(seed)
    said = [" ".join(rng.choices(["yes", "no.", "well,", "what?"], k=rng.randint(1, 40))) for _ in range(30)]
    segments, words = spoken(*said, word_s=rng.uniform(0.05, 1), pause_s=rng.choice([0, 0.05, 0.2, 3]))
    for row in segments:
        row["flags"] = rng.choice([[], [], ["no_speech"]])
    clips = cut(segments, words, 1e4, OPTIONS)
    assert [word for clip in clips for word in clip.words] == words
    assert all(a.end <= b.start for a, b in pairwise(clips))
    fit = [clip for clip in clips if len(clip.words) > 1]
    assert all(clip.end - clip.start + 2 * OPTIONS.room_s <= OPTIONS.max_s + 1e-6 for clip in fit)


@pytest.mark.parametrize(
    ("left", "right", "joined"),
    [
        ("Yes.", "No.", "Yes. No."),
        ("はい。", "いいえ。", "はい。いいえ。"),
        ("네.", "아니요.", "네. 아니요."),
        ("", " a", "a"),
    ],
)
def test_texts_are_joined_as_their_script_does(left: str, right: str, joined: str) -> None:
    assert join(left, right) == joined


@pytest.mark.parametrize("text", ["Done.", 'He said "no."', "क्या।", "本当？", "Well… "])
def test_ends_of_sentences_are_known_in_many_scripts(text: str) -> None:
    assert ends_sentence(text)
    assert not ends_sentence(text.rstrip() + " and")


def test_letters_are_what_is_pronounced() -> None:
    assert (letters("It's 5, no?"), letters("…"), letters("हिन्दी")) == (6, 0, 6)
