"""The engine on real speech: the reference's words and numbers, whoever shares the batch."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference
import torch
from speech_examples import LANGUAGES, answers, clip, passage, passes, said, with_options

from pipeline.types import SAMPLE_RATE, Passage, Segment, Span, Transcript
from pipeline.whisper.engine import Lane, WhisperEngine
from pipeline.whisper.memory import fitting, lane_ratio
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.reels import Reel, Window
from pipeline.whisper.search import Greedy
from pipeline.whisper.slots import Order, Slots
from pipeline.whisper.steps import Shape, Steps

# What the reference does: no jumps, no fallback here (its samples are other random numbers than ours).
PLAIN = WhisperOptions(jump_s=math.inf, temperatures=(0.0,), dtype="float32")


@pytest.fixture(scope="module")
def passages() -> dict[str, Passage]:
    return {name: passage(name, language) for name, language in LANGUAGES.items()}


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    return WhisperEngine(PLAIN)


ONE, TWO, WHOLE = 10, 33, 60  # seconds of audio: windows, or all there is


def every(length_s: int) -> list[Any]:
    return [pytest.param(name, length_s, marks=pytest.mark.slow) for name in LANGUAGES]


@pytest.mark.parametrize(("name", "length_s"), [("ru_kommutator.ogg", ONE), *every(WHOLE)])
def test_greedy_text_times_and_scores_equal_the_reference(
    engine: WhisperEngine, passages: dict[str, Passage], name: str, length_s: int
) -> None:
    options = replace(PLAIN, context="none")
    assert_as_the_reference(engine, clip(passages[name], length_s), options, condition_on_previous_text=False)


@pytest.mark.parametrize(("name", "length_s"), [("en_switchboard.mp3", TWO), *every(WHOLE)])
def test_context_equals_the_reference(
    engine: WhisperEngine, passages: dict[str, Passage], name: str, length_s: int
) -> None:
    assert_as_the_reference(engine, clip(passages[name], length_s), replace(PLAIN, context="passage"))


@pytest.mark.parametrize(("name", "length_s"), [("es_centralita.opus", ONE), *every(35)])
def test_beam_search_equals_the_reference(
    engine: WhisperEngine, passages: dict[str, Passage], name: str, length_s: int
) -> None:
    options = replace(PLAIN, beam=5, patience=1.2, context="passage")
    assert_as_the_reference(engine, clip(passages[name], length_s), options, beam_size=5, patience=1.2)


@pytest.mark.parametrize(
    ("ours", "theirs", "length_s"),
    [
        ({"initial_prompt": "Radio Liberté, Marseille."}, {"initial_prompt": "Radio Liberté, Marseille."}, ONE),
        ({"prefix": "Bonjour"}, {"prefix": "Bonjour"}, ONE),
        ({"timestamps": False}, {"without_timestamps": True}, ONE),
        ({"max_initial_timestamp_s": 0.2}, {"max_initial_timestamp": 0.2}, ONE),
        ({"task": "translate"}, {"task": "translate"}, ONE),
        pytest.param(
            *({"initial_prompt": "Marseille"}, {"initial_prompt": "Marseille"}, TWO),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *({"hotwords": "Marseille"}, {"initial_prompt": "Marseille", "carry_initial_prompt": True}, TWO),
            marks=pytest.mark.slow,
        ),
        pytest.param({"suppress_tokens": (11, 13)}, {"suppress_tokens": "11,13"}, TWO, marks=pytest.mark.slow),
        pytest.param(
            *({"beam": 3, "length_penalty": 0.5}, {"beam_size": 3, "length_penalty": 0.5}, TWO),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda options: ",".join(options) if isinstance(options, dict) else "",
)
def test_options_equal_the_reference(
    engine: WhisperEngine, passages: dict[str, Passage], ours: dict[str, Any], theirs: dict[str, Any], length_s: int
) -> None:
    one = clip(passages["fr_standard.m4a"], length_s)
    assert_as_the_reference(engine, one, replace(PLAIN, context="passage", **ours), **theirs)


def assert_as_the_reference(engine: WhisperEngine, one: Passage, options: WhisperOptions, **theirs: Any) -> None:
    """Hold text, times and scores of a passage equal to what the reference makes of it."""
    ours = answers(with_options(engine, replace(options, slots=1)), one)[one.recording_id].segments
    expected = reference.transcribe(engine.model, one.pcm, language=one.language, **theirs)
    length = len(one.pcm) / SAMPLE_RATE  # our segments end with the audio, the reference's may run over it
    assert said(ours) == [
        (pytest.approx(s["start"], abs=1e-6), pytest.approx(min(s["end"], length), abs=1e-6), s["text"].strip())
        for s in expected
    ]
    for mine, other in zip(ours, expected, strict=True):
        assert mine.avg_logprob == pytest.approx(other["avg_logprob"], abs=1e-3)
        assert mine.no_speech_prob == pytest.approx(other["no_speech_prob"], abs=1e-3)
        assert mine.compression_ratio == other["compression_ratio"]


def test_language_is_heard(engine: WhisperEngine, passages: dict[str, Passage]) -> None:
    some = ("es_centralita.opus", "fr_standard.m4a", "ru_kommutator.ogg")
    heard = answers(engine, *(replace(clip(passages[name], 4), language=None) for name in some))
    assert {name: transcript.language for name, transcript in heard.items()} == {name: LANGUAGES[name] for name in some}


@pytest.mark.parametrize(
    ("temperatures", "mates"), [((0.0, 0.6), 4), pytest.param((0.0, 0.4, 1.0), 5, marks=pytest.mark.slow)]
)
def test_text_and_scores_do_not_depend_on_batch_mates(
    temperatures: tuple[float, ...], mates: int, engine: WhisperEngine, passages: dict[str, Passage]
) -> None:
    # Gates that nothing passes: every temperature is tried, so that sampling is held, too.
    strict = with_options(engine, replace(PLAIN, temperatures=temperatures, logprob_threshold=-0.01))
    names = list(passages)[:mates]
    together = answers(strict, *(clip(passages[name], 5) for name in names))
    for name in names[::2]:
        alone, among = answers(strict, clip(passages[name], 5))[name], together[name]
        assert said(alone.segments) == said(among.segments)
        for mine, other in zip(alone.segments, among.segments, strict=True):
            # Sums over a row may run in another order beside other rows: the last bits, no more.
            assert scores(mine) == pytest.approx(scores(other), abs=1e-5)


@torch.inference_mode()
def test_prompts_are_read_as_if_each_were_alone(engine: WhisperEngine) -> None:
    contexts = ([], engine.tokens.encode(" Gracias por llamar a la centralita." * 5))
    prompts = [engine.tokens.prompt("es", "transcribe", context, timestamps=True) for context in contexts]
    orders = [Order(None, prompt, sot, engine.silence[:, :, 0]) for prompt, sot in prompts]
    slots = Slots(engine.model, engine.rules, Greedy(engine.tokens.layout.eot), len(orders))
    with passes(engine.model) as seen:
        slots.admit(orders)
    assert seen == [[[prompt]] for prompt, _ in prompts]


def scores(segment: Segment) -> list[float]:
    """Return the scores of a segment and of the attempts before it."""
    attempts = [score for one in segment.attempts for score in (one.avg_logprob, one.compression_ratio)]
    return [*attempts, segment.evidence or 0.0]


def test_slots_fewer_than_passages_are_refilled(engine: WhisperEngine, passages: dict[str, Passage]) -> None:
    few = with_options(engine, PLAIN)
    few.slots = 2
    clips = [clip(one, 10) for one in passages.values()]
    refilled, roomy = answers(few, *clips), answers(engine, *clips)
    assert {name: said(one.segments) for name, one in refilled.items()} == {
        name: said(one.segments) for name, one in roomy.items()
    }


def test_one_thread_encodes_and_decodes_in_turn(engine: WhisperEngine, passages: dict[str, Passage]) -> None:
    # Many more than are encoded ahead.
    clips = [replace(clip(one, 3), recording_id=f"{name} {i}") for name, one in passages.items() for i in range(2)]
    alone = answers(WhisperEngine(replace(PLAIN, threads=1)), *clips)
    assert {name: said(one.segments) for name, one in alone.items()} == {
        name: said(one.segments) for name, one in answers(engine, *clips).items()
    }


@pytest.mark.parametrize("room", [26.0, 100.0, 399.0, 400.0, 401.0, 1000.0])
def test_slots_fill_the_memory_and_no_more(room: float) -> None:
    def needed(slots: int) -> float:
        return slots * 5 + min(slots, 16) * 20

    slots = fitting(room, 5, 20, 16)
    assert needed(slots) <= room < needed(slots + 1)


@pytest.mark.parametrize("beam", [1, 5])
def test_slots_of_a_cpu_fill_their_room_within_bounds(
    engine: WhisperEngine, beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slots() -> int:
        return with_options(engine, replace(PLAIN, slots=0, beam=beam)).slots

    def taken(count: int) -> int:
        lanes = with_options(engine, replace(PLAIN, slots=count, beam=beam))._lanes()
        buffers = (buffer for lane in lanes for buffer in (lane.slots._audio, lane.slots._cache))
        return sum(buffer.nbytes for buffer in buffers) + count * engine.model.bytes_of_audio

    monkeypatch.setattr("pipeline.whisper.memory.CPU_SLOTS", (1, 48))
    monkeypatch.setattr("pipeline.whisper.memory.CPU_ROOM", room := 2**29)
    assert taken(slots()) <= room < taken(slots() + lane_ratio(engine.model))
    monkeypatch.setattr("pipeline.whisper.memory.CPU_SLOTS", (16, 17))
    assert slots() == 16
    monkeypatch.setattr("pipeline.whisper.memory.CPU_ROOM", 2**40)
    assert slots() == 17


def test_out_of_memory_halves_the_slots_and_loses_nothing(
    engine: WhisperEngine, passages: dict[str, Passage], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [clip(one, 6) for one in list(passages.values())[:3]]
    plain = replace(PLAIN, evidence=False)
    roomy = answers(with_options(engine, plain), *clips)
    step, steps = Steps.step, iter(range(10**6))

    def out_of_memory_at_times(self: Steps, shape: Shape) -> None:
        if next(steps) in (3, 12):
            taken.extend(weakref.ref(slots) for slots in self._lanes)
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(self, shape)

    taken: list[weakref.ref[Slots[Window]]] = []
    halve = WhisperEngine._with_half_the_slots

    def halve_what_is_free(self: WhisperEngine, windows: list[list[Window]]) -> tuple[Lane, Lane]:
        assert all(slots() is None for slots in taken), "the memory of the slots until now is not free yet"
        return halve(self, windows)

    reel, reels = WhisperEngine._reel, iter(range(10**6))

    def out_of_memory_once(self: WhisperEngine, passage: Passage) -> Reel:
        if next(reels) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return reel(self, passage)

    next_window, ends = WhisperEngine._next_window, iter(range(10**6))

    def out_of_memory_at_an_end(self: WhisperEngine, reel: Reel, waiting: deque[Window]) -> Iterator[Transcript]:
        if reel.seek and next(ends) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield from next_window(self, reel, waiting)

    monkeypatch.setattr(WhisperEngine, "_reel", out_of_memory_once)
    monkeypatch.setattr(WhisperEngine, "_next_window", out_of_memory_at_an_end)
    monkeypatch.setattr(Steps, "step", out_of_memory_at_times)
    monkeypatch.setattr(WhisperEngine, "_with_half_the_slots", halve_what_is_free)
    short = with_options(engine, plain)
    short.slots = 16
    assert {name: said(one.segments) for name, one in answers(short, *clips).items()} == {
        name: said(one.segments) for name, one in roomy.items()
    }
    assert short.slots == 1


def test_engine_goes_on_while_nothing_comes_in(engine: WhisperEngine, passages: dict[str, Passage]) -> None:
    def dripping() -> Iterator[Passage | None]:
        for one in list(passages.values())[:3]:
            yield clip(one, 2)
            yield from [None] * 50

    heard = {transcript.recording_id for transcript in engine.transcribe(dripping()) if transcript}
    assert heard == set(list(LANGUAGES)[:3])


def test_failed_window_tries_all_temperatures_and_best_attempt_stands(
    engine: WhisperEngine, passages: dict[str, Passage]
) -> None:
    schedule = (0.0, 0.5, 1.0)
    strict = with_options(engine, replace(PLAIN, temperatures=schedule, best_of=2, logprob_threshold=-0.01))
    one = clip(passages["en_switchboard.mp3"], 4)
    best = answers(strict, one)[one.recording_id].segments[0]
    assert tuple(attempt.temperature for attempt in best.attempts) == schedule
    assert best.avg_logprob == max(attempt.avg_logprob for attempt in best.attempts)
    strict.options = replace(strict.options, exhausted="last")
    last = answers(strict, one)[one.recording_id].segments[0]
    assert last.temperature == 1.0
    assert last.avg_logprob == last.attempts[-1].avg_logprob


def test_window_without_speech_and_without_confidence_is_skipped(engine: WhisperEngine) -> None:
    silence = Passage("silence", 0, 0, np.zeros(10 * SAMPLE_RATE, np.int16), (Span(0, 10 * SAMPLE_RATE),), "en")
    gated = with_options(engine, replace(PLAIN, logprob_threshold=0.0, no_speech_threshold=0.1))
    assert answers(gated, silence)["silence"].segments == ()


def test_long_stretches_without_speech_are_jumped_over(engine: WhisperEngine, passages: dict[str, Passage]) -> None:
    speech = passages["en_switchboard.mp3"].pcm[: 5 * SAMPLE_RATE]
    gap = np.zeros(45 * SAMPLE_RATE, np.int16)
    late = Span(50 * SAMPLE_RATE, 55 * SAMPLE_RATE)
    pcm = np.concatenate([speech, gap, speech])
    one = Passage("gap", 0, 0, pcm, (Span(0, 5 * SAMPLE_RATE), late), "en")
    jumping = with_options(engine, replace(PLAIN, jump_s=3.0))
    segments = answers(jumping, one)["gap"].segments
    middle = [segment for segment in segments if segment.start > 7 * SAMPLE_RATE and segment.end < 49 * SAMPLE_RATE]
    assert middle == []
    assert any(segment.start >= 49 * SAMPLE_RATE for segment in segments)
