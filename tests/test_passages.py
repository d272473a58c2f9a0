"""Passages: every sample accounted for, cut in silence, in the memory of about one passage."""

from __future__ import annotations

import math
import random
import sys
import tracemalloc
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from pipeline.errors import DecodeError
from pipeline.passages import PassageCutter, PassageOptions
from pipeline.types import SAMPLE_RATE, Heard, Passage, Pcm, Recording, Span

RECORDING = Recording(id="r", uri="r.flac", language="nl")
DEFAULT = PassageOptions(max_s=300.0)
WHOLE = PassageOptions(max_s=math.inf, max_gap_s=math.inf)


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")  # pytest shows it where a test fails
    return random.Random(seed)


def seconds(*pairs: tuple[float, float]) -> list[Span]:
    return [Span(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)) for start, end in pairs]


def audio(samples: int) -> Pcm:
    """Return samples that differ from their neighbours, so that a shift shows."""
    return (np.arange(samples) % 30_011).astype(np.int16)


def heard(pcm: Pcm, spans: list[Span], step: int | random.Random = SAMPLE_RATE) -> Iterator[Heard]:
    """Yield `pcm` in blocks with the spans as they settle: when they have ended."""
    at = done = 0
    while at < len(pcm):
        block = pcm[at : at + (step if isinstance(step, int) else step.randint(1, 8 * SAMPLE_RATE))]
        at += len(block)
        new = [span for span in spans[done:] if span.end <= at]
        done += len(new)
        yield Heard(block, tuple(new), min(at, spans[done].start) if done < len(spans) else at)


def cut(length_s: float, spans: list[Span], options: PassageOptions = DEFAULT) -> tuple[list[Passage], PassageCutter]:
    cutter = PassageCutter(RECORDING, heard(audio(round(length_s * SAMPLE_RATE)), spans), options)
    return list(cutter), cutter


def times(spans: Iterable[Span]) -> list[tuple[float, float]]:
    return [(span.start / SAMPLE_RATE, span.end / SAMPLE_RATE) for span in spans]


def random_spans(rng: random.Random, length: int) -> list[Span]:
    spans: list[Span] = []
    at = rng.choice([0, rng.randint(0, 9 * SAMPLE_RATE)])
    while True:
        end = at + rng.choice([rng.randint(1, 500), rng.randint(1, 12 * SAMPLE_RATE)])
        if end > length:
            return spans
        spans.append(Span(at, end))
        at = end + rng.choice([0, 1, rng.randint(0, SAMPLE_RATE), rng.randint(0, 9 * SAMPLE_RATE)])


@pytest.mark.parametrize("number", range(150))
def test_every_sample_is_in_one_passage_or_one_speechless_span(number: int, rng: random.Random) -> None:
    pcm = audio(rng.choice([0, 1, 160, rng.randint(1, 90 * SAMPLE_RATE)]))
    spans = random_spans(rng, len(pcm))
    options = PassageOptions(
        max_s=rng.choice([0.5, 10.0, 20.0, 30.0, math.inf]), max_gap_s=rng.choice([0.0, 0.5, 2.0, 5.0, math.inf])
    )
    cutter = PassageCutter(RECORDING, heard(pcm, spans, rng), options)
    passages = list(cutter)

    parts = sorted([*(p.span for p in passages), *cutter.speechless], key=lambda span: span.start)
    assert [0, *(part.end for part in parts)] == [*(part.start for part in parts), len(pcm)]
    assert all(len(part) > 0 for part in parts)
    assert [p.index for p in passages] == list(range(len(passages)))
    assert all(len(p.pcm) <= options.max_s * SAMPLE_RATE for p in passages)
    assert all(np.array_equal(p.pcm, pcm[p.span.start : p.span.end]) for p in passages)
    assert (cutter.duration, cutter.speech) == (len(pcm), sum(map(len, spans)))
    inside = [span for p in passages for span in p.spans]
    assert sum(map(len, inside)) == sum(map(len, spans))
    assert all(sum(map(span.overlap, inside)) == len(span) for span in spans)
    assert all(p.span.start <= span.start < span.end <= p.span.end for p in passages for span in p.spans)

    at_once = PassageCutter(RECORDING, [Heard(pcm, tuple(spans), len(pcm))], options)
    assert [(p.span, p.spans) for p in at_once] == [(p.span, p.spans) for p in passages]
    assert at_once.speechless == cutter.speechless


@pytest.mark.parametrize("number", range(50))
def test_no_span_is_divided_where_a_pause_is_in_reach(number: int, rng: random.Random) -> None:
    pcm = audio(90 * SAMPLE_RATE)
    spans = random_spans(rng, len(pcm))
    for passage in PassageCutter(RECORDING, heard(pcm, spans, rng), PassageOptions(max_s=15.0, max_gap_s=3.0)):
        end = passage.span.end
        if any(span.start < end < span.end for span in spans):
            assert not any(passage.span.start < span.end <= end for span in spans)


def test_cut_is_in_the_middle_of_the_longest_late_pause() -> None:
    spans = seconds((0, 100), (104, 220), (220.5, 240), (242, 270), (270.6, 400))
    passages, _ = cut(400, spans)
    assert times(p.span for p in passages) == [(0, 241), (241, 400)]
    assert [times(p.spans) for p in passages] == [[(0, 100), (104, 220), (220.5, 240)], [(242, 270), (270.6, 400)]]


def test_cut_is_where_a_span_was_split_when_there_is_no_pause() -> None:
    spans = seconds(*((start, start + 25) for start in range(0, 400, 25)))
    passages, _ = cut(400, spans)
    assert times(p.span for p in passages) == [(0, 300), (300, 400)]


def test_an_early_pause_is_better_than_a_divided_span() -> None:
    passages, _ = cut(500, seconds((0, 20), (21, 310), (311, 500)))
    assert times(p.span for p in passages) == [(0, 20.5), (20.5, 310.5), (310.5, 500)]


def test_a_span_longer_than_a_passage_is_divided() -> None:
    passages, _ = cut(700, seconds((0, 700)))
    assert times(p.span for p in passages) == [(0, 300), (300, 600), (600, 700)]
    assert [times(p.spans) for p in passages] == [[(0, 300)], [(300, 600)], [(600, 700)]]


def test_long_silence_belongs_to_no_passage() -> None:
    passages, cutter = cut(100, seconds((10, 20), (40, 50)))
    assert times(p.span for p in passages) == [(9.6, 20.4), (39.6, 50.4)]
    assert times(cutter.speechless) == [(0, 9.6), (20.4, 39.6), (50.4, 100)]


def test_short_silence_stays_inside_and_around_the_passage() -> None:
    passages, cutter = cut(28, seconds((4, 10), (15, 24)))
    assert times(p.span for p in passages) == [(0, 28)]
    assert cutter.speechless == ()


def test_a_passage_ends_with_its_speech_when_silence_follows_at_its_limit() -> None:
    passages, cutter = cut(320, seconds((0, 100), (100.5, 299)))
    assert times(p.span for p in passages) == [(0, 299.4)]
    assert times(cutter.speechless) == [(299.4, 320)]


@pytest.mark.parametrize("length_s", [1 / SAMPLE_RATE, 0.01, 2.0, 60.0])
def test_recording_without_speech_is_one_speechless_span(length_s: float) -> None:
    passages, cutter = cut(length_s, [])
    assert passages == []
    assert times(cutter.speechless) == [(0, length_s)]


def test_recording_without_samples_has_nothing() -> None:
    passages, cutter = cut(0, [])
    assert (passages, cutter.speechless, cutter.duration, cutter.speech) == ([], (), 0, 0)


def test_a_few_samples_of_speech_make_a_passage() -> None:
    passages, _ = cut(0.01, [Span(3, 7)])
    assert [(p.span, p.spans) for p in passages] == [(Span(0, 160), (Span(3, 7),))]


def test_passage_carries_id_and_forced_language() -> None:
    passages, _ = cut(20, seconds((0, 5), (15, 20)))
    assert [(p.recording_id, p.index, p.language) for p in passages] == [("r", 0, "nl"), ("r", 1, "nl")]


@pytest.mark.parametrize("spans", [[], seconds((100, 101), (500, 900))])
def test_infinite_limits_make_the_whole_recording_one_passage(spans: list[Span]) -> None:
    passages, cutter = cut(1000, spans, WHOLE)
    assert [(p.span, list(p.spans)) for p in passages] == [(Span(0, 1000 * SAMPLE_RATE), spans)]
    assert cutter.speechless == ()


def test_what_came_before_an_error_comes_out_before_it() -> None:
    def broken() -> Iterator[Heard]:
        yield from heard(audio(50 * SAMPLE_RATE), seconds((1, 20), (35, 50)))
        raise DecodeError("truncated", "moov atom not found")

    cutter = PassageCutter(RECORDING, broken(), PassageOptions())
    passages: list[Passage] = []
    with pytest.raises(DecodeError, match="moov atom"):
        passages.extend(iter(cutter))
    assert times(p.span for p in passages) == [(0, 20.4), (34.6, 50)]
    assert times(cutter.speechless) == [(20.4, 34.6)]
    assert (cutter.duration, cutter.speech) == (50 * SAMPLE_RATE, 34 * SAMPLE_RATE)


def _peak_of(spans: list[Span], hours: float) -> int:
    """Return the bytes held at most while so many hours are cut and each passage is let go."""
    total = round(hours * 3600)
    settled = {-(-span.end // SAMPLE_RATE): span for span in spans}

    def stream() -> Iterator[Heard]:
        starts = iter([*(span.start for span in spans), total * SAMPLE_RATE])
        pending = next(starts)
        for second in range(1, total + 1):
            span = settled.get(second)
            pending = next(starts) if span else pending
            yield Heard(np.zeros(SAMPLE_RATE, np.int16), (span,) if span else (), min(pending, second * SAMPLE_RATE))

    tracemalloc.start()
    try:
        for _ in PassageCutter(RECORDING, stream(), PassageOptions()):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_silence_of_two_hours_is_not_held() -> None:
    assert _peak_of([], 2) < 2_000_000  # two hours are 230 MB


def test_speech_of_two_hours_is_held_by_the_passage() -> None:
    spans = seconds(*((start, start + 19) for start in range(0, 7200, 20)))
    assert _peak_of(spans, 2) < 32_000_000  # a passage is 9.6 MB; two while one is put together, and one let go
