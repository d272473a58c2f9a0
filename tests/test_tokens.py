"""Special tokens, prompts and suppressed tokens against the reference implementation's tokenizer."""

from __future__ import annotations

import pytest
import reference

from pipeline.errors import UserError
from pipeline.whisper.locate import locate
from pipeline.whisper.tokens import Layout, Tokens

REFERENCE = reference.tokenizer()


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(locate("base").tokenizer)


@pytest.mark.parametrize(
    ("vocabulary", "multilingual", "languages"), [(51_864, False, 99), (51_865, True, 99), (51_866, True, 100)]
)
def test_layout_equals_the_reference(vocabulary: int, multilingual: bool, languages: int) -> None:
    other = reference.tokenizer(multilingual=multilingual, languages=languages)
    layout = Layout(vocabulary)
    ours = (layout.eot, layout.sot, layout.sot_prev, layout.sot_lm, layout.no_speech, layout.no_timestamps)
    assert ours == (
        other.eot,
        other.sot,
        other.sot_prev,
        other.sot_lm,
        other.no_speech,
        other.no_timestamps,
    )
    assert (layout.translate, layout.transcribe) == (other.translate, other.transcribe)
    assert layout.first_timestamp == other.timestamp_begin


def test_suppressed_tokens_equal_the_reference(tokens: Tokens) -> None:
    special = {REFERENCE.transcribe, REFERENCE.translate, REFERENCE.sot, REFERENCE.sot_prev}
    special |= {REFERENCE.sot_lm, REFERENCE.no_speech}
    assert set(tokens.suppressed((-1,))) == set(REFERENCE.non_speech_tokens) | special
    assert set(tokens.blank) == {*REFERENCE.encode(" "), REFERENCE.eot}


def test_language_codes_equal_the_reference(tokens: Tokens) -> None:
    theirs = {code: REFERENCE.to_language_token(code) for code in REFERENCE.all_language_codes}
    assert {code: tokens.language_token(code) for code in tokens.language_codes} == theirs


@pytest.mark.parametrize("text", [" Hello, world.", " Größe", " 你好,世界", " \U0001f3a7 naïve", "наука"])
def test_text_round_trip_equals_the_reference(tokens: Tokens, text: str) -> None:
    assert tokens.encode(text) == REFERENCE.encode(text)
    assert tokens.decode([*tokens.encode(text), tokens.layout.first_timestamp + 9, tokens.layout.eot]) == text


def test_prompt_is_context_then_start_of_transcript(tokens: Tokens) -> None:
    layout = tokens.layout
    prompt, sot = tokens.prompt("de", "translate", [7, 8], timestamps=True)
    assert prompt == [layout.sot_prev, 7, 8, layout.sot, tokens.language_token("de"), layout.translate]
    assert sot == 3


def test_prompt_without_context_starts_with_start_of_transcript(tokens: Tokens) -> None:
    assert tokens.prompt("en", "transcribe", [], timestamps=True) == ([*REFERENCE.sot_sequence], 0)
    assert tokens.prompt("en", "transcribe", [], timestamps=False)[0] == [
        *REFERENCE.sot_sequence_including_notimestamps
    ]


def test_unknown_language_is_refused_with_the_known_ones(tokens: Tokens) -> None:
    with pytest.raises(UserError, match="no language 'xx'") as caught:
        tokens.language_token("xx")
    assert "en zh de" in caught.value.hint
