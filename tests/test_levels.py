"""The power of speech, and its ratio to what is heard beside it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.levels import Meter
from pipeline.types import SAMPLE_RATE, Heard, Pcm, Span

SPEECH = (Span(2 * SAMPLE_RATE, 5 * SAMPLE_RATE), Span(7 * SAMPLE_RATE, 9 * SAMPLE_RATE))
SPOKEN = 0.7  # share of a span that is speech; the rest are its pauses


def audio(speech: float, noise: float) -> Pcm:
    """Ten seconds of noise of deviation `noise`, and of more, of `speech`, in most of each second of SPEECH."""
    random = np.random.default_rng(1)
    made = random.standard_normal(10 * SAMPLE_RATE) * noise
    for span in SPEECH:
        for start in range(span.start, span.end, SAMPLE_RATE):
            length = round(SPOKEN * SAMPLE_RATE)
            made[start : start + length] += random.standard_normal(length) * speech
    return made.astype(np.int16)


def heard(pcm: Pcm, block: int = 10 * SAMPLE_RATE, spans: tuple[Span, ...] = SPEECH) -> Iterator[Heard]:
    """Hand the audio on in blocks; a span is settled with the block that its end lies in."""
    for start in range(0, len(pcm), block):
        end = min(start + block, len(pcm))
        open_spans = [span.start for span in spans if span.start < end < span.end]
        settled = tuple(span for span in spans if start < span.end <= end)
        yield Heard(pcm[start:end], settled, min([end, *open_spans]))


def measured(*blocks: Heard) -> Meter:
    meter = Meter()
    deque(meter.listen(blocks), maxlen=0)
    return meter


@pytest.mark.parametrize("ratio", [30, 12, 0])
def test_the_ratio_is_that_of_speech_to_noise(ratio: float) -> None:
    meter = measured(*heard(audio(3000 / math.sqrt(SPOKEN), 3000 / 10 ** (ratio / 20))))
    assert meter.snr_db == pytest.approx(ratio, abs=1)


def test_music_beside_the_speech_is_no_noise_of_it() -> None:
    pcm = audio(3000, 100)
    quiet = measured(*heard(pcm)).snr_db
    pcm[: 2 * SAMPLE_RATE] = audio(9000, 9000)[: 2 * SAMPLE_RATE]
    assert measured(*heard(pcm)).snr_db == quiet


def test_power_is_that_of_the_speech_alone() -> None:
    assert math.sqrt(measured(*heard(audio(3000, 0))).power or 0) == pytest.approx(3000 * math.sqrt(SPOKEN), rel=0.01)


def test_blocks_change_nothing() -> None:
    pcm = audio(3000, 100)
    whole, pieces = measured(*heard(pcm)), measured(*heard(pcm, block=7_777))
    assert pieces.power == pytest.approx(whole.power)
    assert pieces.snr_db == whole.snr_db


def test_there_is_no_ratio_without_speech() -> None:
    assert measured(*heard(audio(3000, 100), spans=())).snr_db is None
    assert measured(*heard(audio(3000, 100), spans=(Span(0, SAMPLE_RATE // 4),))).snr_db is None


def test_a_steady_sound_is_no_speech_above_a_noise() -> None:
    assert (measured(*heard(np.full(10 * SAMPLE_RATE, 500, np.int16))).snr_db or 0) < -10


def test_without_speech_the_power_is_that_of_all() -> None:
    pcm = np.full(SAMPLE_RATE, 500, np.int16)
    assert measured(*heard(pcm, spans=())).power == pytest.approx(250_000)


def test_what_is_never_decided_takes_no_memory() -> None:
    meter = measured(*heard(np.tile(audio(3000, 100), 30), block=SAMPLE_RATE, spans=()))
    assert len(meter._undecided) < 100
    assert meter._spans == []


def test_silence_and_nothing_have_no_power() -> None:
    assert measured().power is None
    assert measured(*heard(np.zeros(SAMPLE_RATE, np.int16), spans=())).power is None
