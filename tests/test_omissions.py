"""Omissions: text is taken away from a good transcript, and what is missing is found, with its times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from pipeline import rows, score
from pipeline.cover import Cover
from pipeline.omissions import REASONS, beside, letters, omissions
from pipeline.score import ScoreOptions
from pipeline.types import SAMPLE_RATE, Attempt, Omission, Outcome, Recording, Segment, Span, Transcript, Word
from schemas.recordings import RECORDINGS

SENTENCES = [
    "The harbour was quiet when the first boats came in that morning.",
    "Nobody on the quay had slept, and the fog would not lift.",
    "An old man counted the crates, and he counted them once more.",
    "Somewhere behind the sheds a radio played a song from before the war.",
    "Then the bell rang twice and everybody went back to their work.",
    "By noon the market was open and the fish were nearly gone.",
]
LENGTH = 5 * SAMPLE_RATE  # of a sentence of about 50 letters and a pause


def spoken(text: str, at: int, length: int = LENGTH) -> Segment:
    return Segment(
        start=at,
        end=at + length,
        text=text,
        language="en",
        language_probability=0.9,
        task="transcribe",
        avg_logprob=-0.3,
        compression_ratio=1.4,
        no_speech_prob=0.1,
        temperature=0.0,
        attempts=(Attempt(0.0, -0.3, 1.4),),
    )


def passage(segments: Iterable[Segment], speech: tuple[Span, ...] | None = None, **values: object) -> Transcript:
    """Return a passage of 30 s: six sentences, one after the other, with a pause of a second behind each."""
    if speech is None:
        speech = tuple(Span(at * LENGTH, (at + 1) * LENGTH - SAMPLE_RATE) for at in range(6))
    return replace(Transcript("r", 0, Span(0, 6 * LENGTH), speech, tuple(segments), "en", 0.9), **values)  # type: ignore[arg-type]


GOOD = [spoken(text, at * LENGTH) for at, text in enumerate(SENTENCES)]


def reasons(transcript: Transcript) -> list[str]:
    return [omission.reason for omission in omissions([transcript])]


def test_a_good_transcript_lacks_nothing() -> None:
    assert omissions([passage(GOOD)]) == ()


@pytest.mark.parametrize("gone", range(6))
def test_a_sentence_without_its_segment_is_found_where_it_was(gone: int) -> None:
    (found,) = omissions([passage(segment for segment in GOOD if segment is not GOOD[gone])])
    assert found.reason == "no_text"
    assert GOOD[gone].start <= found.start < found.end <= GOOD[gone].end
    assert 3.4 * SAMPLE_RATE <= found.speech <= 4 * SAMPLE_RATE


def test_a_whole_passage_without_text_is_found() -> None:
    (found,) = omissions([passage([])])
    assert (found.reason, found.end - found.start) == ("no_text", 28.6 * SAMPLE_RATE)


def test_a_window_that_the_model_took_for_silence_is_told_apart() -> None:
    assert reasons(passage([], silent=(Span(0, 6 * LENGTH),))) == ["silenced"]


@pytest.mark.parametrize("cut", range(6))
def test_a_sentence_of_which_the_end_is_missing_is_found(cut: int) -> None:
    text = GOOD[cut].text
    cut_off = [replace(one, text=text[: 4 * len(text) // 10]) if one is GOOD[cut] else one for one in GOOD]
    (found,) = omissions([passage(cut_off)])
    assert (found.reason, found.start, found.end) == ("too_short", GOOD[cut].start, GOOD[cut].end)
    assert 1.5 * SAMPLE_RATE <= found.speech <= 2.8 * SAMPLE_RATE


def test_a_passage_that_is_thin_all_over_is_found_as_one_stretch() -> None:
    thin = passage(spoken(SENTENCES[0][:34], one.start) for one in GOOD)  # 28 letters of 52
    (found,) = omissions([passage(GOOD), passage(GOOD), thin])
    assert (found.reason, found.start, found.end) == ("too_short", 0, 6 * LENGTH)


def test_short_gaps_between_times_are_no_omissions() -> None:
    late = [replace(one, start=one.start + SAMPLE_RATE, end=one.end - SAMPLE_RATE) for one in GOOD]
    assert omissions([passage(late)]) == ()


def test_a_quick_speaker_does_not_excuse_what_is_missing_beside() -> None:
    quick = spoken(SENTENCES[3] + " It went on until noon.", 0, 4 * SAMPLE_RATE)  # 19 letters a second
    speech = (Span(0, 4 * SAMPLE_RATE), Span(round(4.2 * SAMPLE_RATE), round(6.4 * SAMPLE_RATE)))
    assert reasons(passage([quick], speech)) == ["no_text"]


def test_text_that_ends_too_early_by_its_times_alone_is_no_omission() -> None:
    early = [replace(GOOD[0], end=SAMPLE_RATE), *GOOD[1:]]  # all of its letters are there
    assert omissions([passage(early)]) == ()


def test_silence_without_text_is_no_omission() -> None:
    assert omissions([passage(GOOD[:3], tuple(Span(at * LENGTH, (at + 1) * LENGTH) for at in range(3)))]) == ()


def test_words_with_times_tell_what_a_long_segment_leaves_out() -> None:
    text = " ".join(SENTENCES)
    words = tuple(
        Word(at, at + SAMPLE_RATE // 3, " word", 0.9)
        for at in range(0, 6 * LENGTH, SAMPLE_RATE // 2)
        if not 9 * SAMPLE_RATE < at < 15 * SAMPLE_RATE
    )
    one = replace(spoken(text, 0, 6 * LENGTH), words=words)
    (found,) = omissions([passage([one])])
    assert found.reason == "no_text"
    assert 9 * SAMPLE_RATE < found.start < found.end < 15 * SAMPLE_RATE


def test_what_words_tell_as_missing_is_not_told_again_of_the_segment_around() -> None:
    words = tuple(Word(at, at + SAMPLE_RATE // 3, " word", 0.9) for at in range(0, LENGTH, SAMPLE_RATE // 2))
    one = replace(spoken(SENTENCES[0], 0, 6 * LENGTH), words=(*words, Word(29 * SAMPLE_RATE, 6 * LENGTH, " word", 0.9)))
    (found,) = omissions([passage([one])])
    assert found.reason == "no_text"


def test_a_cover_without_stretches_covers_the_rest() -> None:
    spans, gone = [Span(0, 10), Span(20, 30), Span(35, 50)], [Span(4, 6), Span(8, 22), Span(29, 60)]
    rest = Cover(spans).without(gone)
    expected = {at for span in spans for at in range(span.start, span.end)}
    expected -= {at for span in gone for at in range(span.start, span.end)}
    assert {at for at in range(60) if rest.samples(Span(at, at + 1))} == expected
    assert Cover(spans).without([]).samples(Span(0, 60)) == 35


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("1995", "nineteen ninety five"),
        ("我们今天在港口看到了很多船", "We saw many ships in the harbour today, all of us."),
        ("私たちは今日港でたくさんの船を見ました", "We saw many ships in the harbour today, all of us."),
        ("오늘 우리는 항구에서 많은 배를 보았습니다", "We saw many ships in the harbour today, all of us."),
        ("Сегодня мы видели в гавани много кораблей", "We saw many ships in the harbour today, all of us."),
    ],
)
def test_scripts_are_measured_by_what_it_takes_to_say_them(text: str, others: str) -> None:
    assert letters(text) == pytest.approx(letters(others), rel=0.35)
    assert letters(" ...—!?") == 0


def test_the_recording_row_lists_them_and_the_segments_beside_are_flagged() -> None:
    outcome = Outcome(Recording("r", "r.mp3"), 1, 6 * LENGTH, 24 * SAMPLE_RATE)
    marked = score.mark(passage(one for one in GOOD if one is not GOOD[2]), ScoreOptions())
    finished = score.finish([marked], outcome)
    flagged = ["omission" in segment.flags for _, segment in finished.segments]
    assert flagged == [False, True, True, False, False]
    (row,) = rows.recording_rows([finished], part="p", model="m", config_hash="c", run_id="r").to_pylist()
    (listed,) = row["omissions"]
    assert (listed["reason"], listed["speech_s"]) == ("no_text", row["omitted_s"])
    assert 10 <= listed["start"] < listed["end"] <= 15


def test_a_segment_far_off_is_not_beside() -> None:
    assert not beside(GOOD[0], Omission(3 * LENGTH, 4 * LENGTH, LENGTH, "no_text"))


def test_each_reason_stands_in_the_schema() -> None:
    doc = RECORDINGS.field("omissions").metadata[b"doc"].decode()
    assert all(reason in doc for reason in REASONS)
