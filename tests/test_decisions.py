"""Decisions: which numbers keep a recording, and the same from its row."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pipeline.books import decisions_book
from pipeline.decision_rows import decision_rows, manifest_line, read_surveys
from pipeline.decisions import REASONS, FilterOptions, decide, survey
from pipeline.types import KEPT, SAMPLE_RATE, Failure, Look, Media, Outcome, Recording, Span, Survey

SECOND = SAMPLE_RATE
RECORDING = Recording("aa", "/radio/é.mp3", 7, "1", None, "Names", '{"show": "Café"}')
OPTIONS = FilterOptions()


def look(index: int, start_s: int, speech_s: int, no_speech: float, **languages: float) -> Look:
    """Return what was heard in 10 s."""
    span = Span(start_s * SECOND, (start_s + 10) * SECOND)
    ranked = tuple(sorted(languages.items(), key=lambda item: -item[1]))
    return Look("aa", index, span, speech_s * SECOND, no_speech, ranked)


def outcome(speech_s: int = 9, sound_s: int = 0, stated_s: float = 600.0, failure: Failure | None = None) -> Outcome:
    """Return the outcome of a recording in which 10 s were listened to, and 10 s only searched for speech."""
    decoded = 0 if failure else 20 * SECOND
    rest = (Span(300 * SECOND, 310 * SECOND),)
    media = Media("mp3", "mp3", 44_100, 2, stated_s=stated_s)
    return Outcome(RECORDING, 1, decoded, speech_s * SECOND, rest, media, failure, sound=sound_s * SECOND)


def found(options: FilterOptions = OPTIONS, no_speech: float = 0.1, **values: int | float | Failure) -> Survey:
    """Decide on a recording that is German, or Dutch."""
    looks = [] if "failure" in values else [look(0, 0, 9, no_speech, de=0.6, nl=0.3, en=0.1)]
    return survey(looks, outcome(**values), options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "made"),
    [
        ("unreadable", found(failure=Failure("decode", "not_audio", "no"))),
        ("duration", found(FilterOptions(min_duration_s=601))),
        ("duration", found(FilterOptions(max_duration_s=599))),
        ("speech", found(speech_s=4)),
        ("speech", found(no_speech=0.9)),
        ("sound", found(FilterOptions(max_sound=0.1), sound_s=3)),
        ("language", found(FilterOptions(language=("en",)))),
        (KEPT, found(FilterOptions(language=("nl", "de"), min_language=0.89))),
        (KEPT, found(FilterOptions(min_duration_s=600, max_duration_s=600))),
    ],
)
def test_a_recording_is_kept_or_says_which_test_it_failed(reason: str, made: Survey) -> None:
    assert made.reason == reason
    assert made.keep == (reason == KEPT)


def test_each_reason_is_explained() -> None:
    assert all(words.endswith(".") for words in REASONS.values())
    assert list(REASONS)[-1] == KEPT


def test_what_says_more_counts_more() -> None:
    looks = [look(0, 0, 9, 0.0, de=0.8, en=0.2), look(1, 20, 1, 0.9, de=0.0, en=1.0)]
    pooled = survey(looks, outcome(), OPTIONS)
    assert pooled.no_speech_prob == pytest.approx(0.09)
    assert dict(pooled.languages)["de"] == pytest.approx(9 * 0.8 / 9.1)


def test_without_speech_there_is_no_language() -> None:
    silent = survey([], outcome(speech_s=0), FilterOptions(min_speech=0))
    assert (silent.languages, silent.no_speech_prob, silent.reason) == ((), None, KEPT)


@pytest.mark.parametrize(
    "made", [found(), found(sound_s=3), found(speech_s=0), found(failure=Failure("open", "unavailable", "503", True))]
)
def test_a_row_is_decided_upon_as_the_recording_was(made: Survey) -> None:
    table = decision_rows([made], part="p", model="m", config_hash="c", run_id="r")
    (again,) = read_surveys(table)
    assert decision_rows([again], part="p", model="m", config_hash="c", run_id="r").equals(table)
    for options in (FilterOptions(min_speech=0.46), FilterOptions(language=("nl", "en"), min_language=0.4)):
        assert decide(again, options).reason == decide(made, options).reason


def test_a_survey_is_complete_when_all_that_was_decoded_is_accounted_for() -> None:
    whole = decisions_book(OPTIONS).whole
    heard = look(0, 0, 9, 0.1, de=1.0)
    assert whole([heard], outcome()).reason == KEPT
    assert whole([look(0, 305, 9, 0.1, de=1.0)], outcome()) is None  # of an attempt that saw other stretches
    assert whole([heard], replace(outcome(), speechless=())) is None


@pytest.mark.parametrize(("asked", "sure", "said"), [(None, 0.5, "de"), (None, 0.9, None), ("nl", 0.9, "nl")])
def test_the_manifest_names_a_language_that_is_asked_for_or_sure(
    asked: str | None, sure: float, said: str | None
) -> None:
    made = found()
    named = replace(made, outcome=replace(made.outcome, recording=replace(RECORDING, language=asked)))
    (row,) = decision_rows([named], part="p", model="m", config_hash="c", run_id="r").to_pylist()
    line = json.loads(manifest_line(row, sure))
    assert line.get("language") == said
    assert {"uri": "/radio/é.mp3", "show": "Café", "initial_prompt": "Names"}.items() <= line.items()
