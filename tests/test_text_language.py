"""Languages of texts and of their audio: what is read, what is heard, and when one contradicts the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from outputs import segment
from speech_examples import answers, clip, passage

from pipeline import rows, score
from pipeline.score import ScoreOptions
from pipeline.text_language import KIN, letters, mismatch, read, related
from pipeline.types import SAMPLE_RATE, Guess, Outcome, Recording, Segment, Span, Transcript
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.options import WhisperOptions

SENTENCES = {
    "en": "I will call you back as soon as the train has left the station.",
    "de": "Ich rufe dich zurück, sobald der Zug den Bahnhof verlassen hat.",
    "fr": "Je te rappelle dès que le train aura quitté la gare de Lyon.",
    "es": "Te volveré a llamar en cuanto el tren haya salido de la estación.",
    "it": "Ti richiamo appena il treno sarà partito dalla stazione centrale.",
    "nl": "Ik bel je terug zodra de trein het station heeft verlaten.",
    "pl": "Oddzwonię do ciebie, gdy tylko pociąg odjedzie ze stacji.",
    "ru": "Я перезвоню тебе, как только поезд отойдёт от станции.",
    "tr": "Tren istasyondan ayrılır ayrılmaz seni tekrar arayacağım.",
    "fi": "Soitan sinulle takaisin heti kun juna on lähtenyt asemalta.",
    "ja": "電車が駅を出たらすぐに電話をかけ直します。",
    "zh": "火车一离开车站我就给你回电话。",
    "ko": "기차가 역을 떠나자마자 다시 전화할게요.",
    "ar": "سأتصل بك مرة أخرى بمجرد مغادرة القطار المحطة.",
    "hi": "ट्रेन के स्टेशन से निकलते ही मैं आपको वापस फ़ोन करूँगा।",
}


def spoken(text: str, *heard: Guess, task: str = "transcribe") -> Segment:
    """Return a marked segment with this text, in audio that sounds like these languages."""
    one = replace(segment(0, 4, text), languages=heard, task=task)
    (marked,) = score.mark(Transcript("r", 0, Span(0, 4), (), (one,), "en", 0.9), ScoreOptions()).segments
    return marked


@pytest.mark.parametrize("language", SENTENCES)
def test_sentences_are_read_in_their_language(language: str) -> None:
    found = read(SENTENCES[language])
    assert found is not None
    assert found.language == language


@pytest.mark.parametrize(
    "text", ["", "Okay.", "1, 2, 3, 4, 5, 6, 7, 8, 9", "ha ha ha ha ha ha ha ha ha ha", "♪♪♪", "はい。"]
)
def test_texts_too_short_to_tell_have_no_language(text: str) -> None:
    assert read(text) is None


def test_letters_of_dense_scripts_count_more_and_repeated_words_once() -> None:
    assert letters("la la la") == 2
    assert letters("我们") == 5


@pytest.mark.parametrize("language", ["de", "fr", "ru", "ja", "ar"])
def test_text_in_another_language_than_its_audio_is_flagged(language: str) -> None:
    flagged = spoken(SENTENCES[language], Guess("en", 0.97), Guess("cy", 0.01))
    assert "language_mismatch" in flagged.flags
    assert (flagged.text_language, language) == (language, language)


@pytest.mark.parametrize("language", SENTENCES)
def test_text_in_the_language_of_its_audio_is_not_flagged(language: str) -> None:
    assert "language_mismatch" not in spoken(SENTENCES[language], Guess(language, 0.97)).flags


@pytest.mark.parametrize(
    "heard",
    [
        (),
        (Guess("en", 0.4), Guess("ru", 0.3), Guess("nn", 0.2)),
        (Guess("en", 0.85), Guess("de", 0.1)),
    ],
    ids=["nothing", "unsure", "a second guess"],
)
def test_audio_that_may_be_in_the_texts_language_is_no_contradiction(heard: tuple[Guess, ...]) -> None:
    assert not mismatch(spoken(SENTENCES["de"], *heard))


def test_short_text_is_no_contradiction() -> None:
    assert not mismatch(spoken("Guten Tag", Guess("en", 0.99)))


def test_related_languages_are_no_contradiction() -> None:
    assert related("no", "nn")
    assert related("hr", "sr")
    assert related("id", "ms")
    assert not related("es", "it")
    assert not related("en", "de")
    assert not mismatch(replace(spoken(SENTENCES["nl"], Guess("af", 0.9)), text_language_probability=1.0))
    assert all(len(group.split()) > 1 for group in KIN.split(", "))


def test_a_translation_must_be_english_whatever_the_audio_sounds_like() -> None:
    assert not mismatch(spoken(SENTENCES["en"], Guess("de", 0.99), task="translate"))
    assert mismatch(spoken(SENTENCES["de"], Guess("de", 0.99), task="translate"))


def test_a_recordings_languages_are_those_of_its_passages_weighted_by_speech() -> None:
    long = Transcript("r", 0, Span(0, 40), (Span(0, 30),), (), "de", 0.9, (Guess("de", 0.9), Guess("nl", 0.1)))
    short = Transcript("r", 1, Span(40, 50), (Span(40, 50),), (), "en", 0.8, (Guess("en", 0.8), Guess("de", 0.2)))
    finished = score.finish([short, long], Outcome(Recording("r", "r.mp3"), 2, 50 * SAMPLE_RATE, 40))
    assert [(guess.language, round(guess.probability, 6)) for guess in finished.languages] == [
        ("de", 0.725),
        ("en", 0.2),
        ("nl", 0.075),
    ]
    (row,) = rows.recording_rows([finished], part="p", model="m", config_hash="c", run_id="r").to_pylist()
    assert [guess["language"] for guess in row["languages"]] == ["de", "en", "nl"]


def test_a_forced_language_hides_neither_the_heard_one_nor_the_contradiction() -> None:
    engine = WhisperEngine(WhisperOptions(temperatures=(0.0,), evidence=False))
    one = clip(passage("fr_standard.m4a", "en"), 10)
    (transcript,) = answers(engine, one).values()
    assert transcript.language == "en"
    assert transcript.languages[0].language == "fr"
    assert transcript.segments
    assert all((one.language, one.languages[0].language) == ("en", "fr") for one in transcript.segments)
    assert all(len(one.languages) == 3 for one in transcript.segments)
    sure = [
        one for one in score.mark(transcript, ScoreOptions()).segments if (one.text_language_probability or 0) > 0.9
    ]
    assert all(("language_mismatch" in one.flags) == (one.text_language != "fr") for one in sure)
    assert transcript.segments[0].language_probability == pytest.approx(
        next((guess.probability for guess in transcript.languages if guess.language == "en"), 0.0), abs=0.01
    )
