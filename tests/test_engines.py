"""What each engine owes its caller, and what can be asked of one before it is loaded."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.engines import FAKE, FakeEngine, check, describe, load_engine
from pipeline.errors import UserError
from pipeline.stages import CutOptions, cut
from pipeline.types import SAMPLE_RATE, Engine, Passage, Recording, Span, Transcript
from pipeline.whisper.options import WhisperOptions

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"


def passages(*names: str, longest_s: int = 90) -> list[Passage]:
    """Return what examples are cut into: of each passage its first seconds."""
    cuts = [cut(Recording(name, str(EXAMPLES / name)), CutOptions()) for name in names]
    return [first(item, longest_s * SAMPLE_RATE) for items in cuts for item in items if isinstance(item, Passage)]


def first(one: Passage, length: int) -> Passage:
    end = one.start + length
    spans = tuple(Span(span.start, min(span.end, end)) for span in one.spans if span.start < end)
    return replace(one, pcm=one.pcm[:length], spans=spans)


def answers(engine: Engine, given: list[Passage | None]) -> list[Transcript]:
    return [answer for answer in engine.transcribe(given) if answer is not None]


@pytest.fixture(params=[FAKE, "base"], scope="module")
def engine(request: pytest.FixtureRequest) -> Engine:
    return load_engine(WhisperOptions(model=request.param, device="cpu", dtype="float32"))


def test_each_passage_is_answered_once_with_segments_in_it_and_in_order(engine: Engine) -> None:
    given = passages("es_centralita.opus", "ru_kommutator.ogg", "fr_standard.m4a", longest_s=5)
    found = answers(engine, [None, given[0], None, None, *given[1:], None])
    assert sorted((a.recording_id, a.passage, a.span, a.speech) for a in found) == sorted(
        (p.recording_id, p.index, p.span, p.spans) for p in given
    )
    for answer in found:
        assert answer.segments
        assert answer.span.start <= answer.segments[0].start
        assert answer.segments[-1].end <= answer.span.end
        assert all(a.end <= b.start for a, b in pairwise(answer.segments))
        assert all(segment.start <= segment.end for segment in answer.segments)


def test_each_passage_is_looked_at_once(engine: Engine) -> None:
    given = passages("es_centralita.opus", "ru_kommutator.ogg", longest_s=8)
    looks = [look for look in engine.screen([None, given[0], None, *given[1:], None]) if look is not None]
    assert sorted((look.recording_id, look.passage, look.span) for look in looks) == sorted(
        (p.recording_id, p.index, p.span) for p in given
    )
    for look, passage in zip(looks, given, strict=True):
        assert look.speech == sum(map(len, passage.spans))
        assert 0 <= look.no_speech_prob < 1
        likeliest = [probability for _, probability in look.languages]
        assert likeliest == sorted(likeliest, reverse=True)
        assert sum(likeliest) == pytest.approx(1)


def test_a_look_hears_the_language_that_decoding_hears() -> None:
    plain = WhisperOptions(model="base", device="cpu", dtype="float32", temperatures=(0.0,), evidence=False)
    engine = load_engine(plain)
    (passage,) = passages("it_centralino.flac")
    # As much silence as decoding puts behind it: a look would put less.
    pcm = np.pad(passage.pcm[: 8 * SAMPLE_RATE], (0, 22 * SAMPLE_RATE))
    short = Passage("a", 0, 0, pcm, (Span(0, 8 * SAMPLE_RATE),))
    (look,) = (one for one in engine.screen([short]) if one is not None)
    (answer,) = answers(engine, [short])
    assert look.languages[0][0] == answer.language == "it"
    assert look.languages[0][1] == pytest.approx(answer.segments[0].language_probability, abs=1e-4)
    assert look.no_speech_prob == pytest.approx(answer.segments[0].no_speech_prob, abs=1e-4)


def test_nothing_in_is_nothing_out(engine: Engine) -> None:
    assert answers(engine, []) == []
    assert answers(engine, [None, None]) == []


def test_forced_language_is_the_language_of_the_answer(engine: Engine) -> None:
    (passage,) = passages("es_centralita.opus", longest_s=6)
    forced = Passage(passage.recording_id, 0, passage.start, passage.pcm, passage.spans, language="it")
    (answer,) = answers(engine, [forced])
    assert {answer.language, *(segment.language for segment in answer.segments)} == {"it"}


def test_fake_engine_says_something_of_each_speech_span_and_always_the_same() -> None:
    given: list[Passage | None] = [*passages("episode.m4a")]
    first = answers(FakeEngine(), given)
    assert [len(answer.segments) for answer in first] == [len(answer.speech) for answer in first]
    assert answers(FakeEngine(), given[::-1])[::-1] == first


def test_fake_engine_takes_the_time_that_it_is_given_for_each_window_begun() -> None:
    (passage,) = passages("es_centralita.opus")
    windows = -(-len(passage.pcm) // (30 * SAMPLE_RATE))
    begun = time.monotonic()
    answers(load_engine(WhisperOptions(model="fake:0.5")), [passage])
    assert time.monotonic() - begun >= 0.5 * windows


def test_fake_engine_with_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="fake:soon is no model"):
        load_engine(WhisperOptions(model="fake:soon"))


def test_description_of_a_model_is_the_hash_of_its_weights() -> None:
    assert describe(WhisperOptions(model="base")) == {
        "weights_sha256": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
    }
    assert describe(WhisperOptions(model=FAKE)) == {"weights_sha256": ""}


def test_what_the_model_has_no_token_or_room_for_is_refused() -> None:
    check(WhisperOptions(model="base", suppress_tokens=(-1, 51_864), prefix="la " * 100), {"en", "fr"})
    check(WhisperOptions(model=FAKE, suppress_tokens=(60_000,)), {"qq"})
    with pytest.raises(UserError, match="no language 'qq'"):
        check(WhisperOptions(model="base"), {"en", "qq"})
    for token in (51_865, -2):
        with pytest.raises(UserError, match=f"--suppress-tokens {token} is no token"):
            check(WhisperOptions(model="base", suppress_tokens=(-1, token)), set())
    with pytest.raises(UserError, match="--prefix has 300 tokens"):
        check(WhisperOptions(model="base", prefix="la " * 300), set())


def test_model_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        load_engine(WhisperOptions(model=str(tmp_path)))
