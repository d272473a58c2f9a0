"""Speech detection on real speech: found when quiet, noisy or narrow, settled in time, whatever the blocks are."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DecodeError
from pipeline.ffmpeg_process import find_ffmpeg
from pipeline.speech import CONTEXT, FRAME, GROUP, SpeechOptions, _Probabilities, _Segmenter, detect, load_session
from pipeline.types import SAMPLE_RATE, Heard, Pcm, Span

DEFAULT = SpeechOptions()
AUDIO = Path(__file__).parent.parent / "examples" / "audio"


@cache
def decoded(name: str) -> Pcm:
    command = [find_ffmpeg(), "-v", "error", "-i", str(AUDIO / name), "-ac", "1", "-ar", "16000", "-f", "s16le", "-"]
    raw = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.int16)


def speech() -> Pcm:
    return decoded("fr_standard.m4a")


def blocks(pcm: Pcm, size: int = SAMPLE_RATE) -> Iterator[Pcm]:
    return (pcm[at : at + size] for at in range(0, len(pcm), size))


def spans_of(pcm: Pcm, options: SpeechOptions = DEFAULT) -> list[Span]:
    return [span for heard in detect(blocks(pcm), options) for span in heard.spans]


def mask(spans: list[Span], length: int) -> np.ndarray:
    covered = np.zeros(length, bool)
    for span in spans:
        covered[span.start : span.end] = True
    return covered


def found_again(changed: np.ndarray, options: SpeechOptions = DEFAULT) -> float:
    """Return which share of the clean recording's speech is found in its changed version (float, 1.0 full scale)."""
    clean = mask(spans_of(speech()), len(speech()))
    pcm = np.clip(np.round(changed * 32_768), -32_768, 32_767).astype(np.int16)
    return float(mask(spans_of(pcm, options), len(pcm))[: len(clean)][clean].mean())


def clean() -> np.ndarray:
    return speech() / 32_768


def test_speech_is_found_where_it_is() -> None:
    silence = np.zeros(7 * SAMPLE_RATE, np.int16)
    spans = spans_of(np.concatenate([silence, speech(), silence]))
    loud = np.flatnonzero(np.abs(speech()) > 1000) + len(silence)
    assert abs(spans[0].start - int(loud[0])) < 0.4 * SAMPLE_RATE
    assert abs(spans[-1].end - int(loud[-1])) < 0.4 * SAMPLE_RATE
    assert sum(map(len, spans)) > 0.7 * len(speech())


@pytest.mark.parametrize("name", ["music.mp3", "silence.wav"])
def test_music_and_silence_are_not_speech(name: str) -> None:
    assert spans_of(decoded(name)) == []


def test_spans_do_not_depend_on_the_sizes_of_the_blocks() -> None:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    rng = random.Random(seed)
    pcm = np.concatenate([speech(), decoded("music.mp3")])[: -rng.randint(1, 2000)]

    def torn() -> Iterator[Pcm]:
        at = 0
        while at < len(pcm):
            size = rng.choice([0, 1, 511, 512, rng.randint(1, 5000), rng.randint(1, 3 * GROUP)])
            yield pcm[at : at + size]
            at += size

    whole, parts = list(detect([pcm], DEFAULT)), list(detect(torn(), DEFAULT))
    assert [(h.spans, h.until) for h in whole] == [(h.spans, h.until) for h in parts]
    assert all(np.array_equal(one.pcm, other.pcm) for one, other in zip(whole, parts, strict=True))


def test_audio_is_handed_on_untouched() -> None:
    assert np.array_equal(np.concatenate([h.pcm for h in detect(blocks(speech(), 1000), DEFAULT)]), speech())


@pytest.mark.parametrize("samples", [0, 1, 160, 511, 512, 513, GROUP, GROUP + 1])
def test_any_length_is_settled_to_its_end(samples: int) -> None:
    heard = list(detect([speech()[SAMPLE_RATE : SAMPLE_RATE + samples]], DEFAULT))
    assert sum(len(h.pcm) for h in heard) == heard[-1].until == samples
    assert all(0 <= span.start < span.end <= samples for h in heard for span in h.spans)


@pytest.mark.parametrize("options", [DEFAULT, replace(DEFAULT, max_span_s=2.0, pad_ms=400, min_silence_ms=0)])
def test_spans_are_apart_and_none_starts_in_what_was_settled(options: SpeechOptions) -> None:
    settled, end, count = 0, 0, 0
    for heard in detect(blocks(decoded("episode.m4a")), options):
        for span in heard.spans:
            assert end <= span.start < span.end
            assert settled <= span.start
            end, count = span.end, count + 1
        assert settled <= heard.until
        assert end <= heard.until
        settled = heard.until
    assert count > 10


@pytest.mark.parametrize("number", range(100))
def test_spans_of_any_probabilities_are_apart_and_cover_what_is_likely(number: int) -> None:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    rng = random.Random(seed)
    options = SpeechOptions(
        pad_ms=rng.choice([0, 30, 400]),
        min_silence_ms=rng.choice([0, 500, 3000]),
        min_speech_ms=0,
        max_span_s=rng.choice([0.1, 1.0, 30.0]),
    )
    odds = [odd for _ in range(60) for odd in [rng.choice([0.0, 0.05, 0.15, 0.9])] * rng.choice([1, 3, 30])]
    segmenter = _Segmenter(options)
    found: list[Span] = []
    settled = 0
    for value in odds:
        for span in segmenter.feed([value]):
            assert settled <= span.start < span.end
            assert not found or found[-1].end <= span.start
            found.append(span)
        assert segmenter.until >= max(settled, found[-1].end if found else 0)
        settled = segmenter.until
    covered = mask(found + segmenter.finish(), len(odds) * FRAME)
    assert all(covered[at * FRAME : (at + 1) * FRAME].all() for at, odd in enumerate(odds) if odd >= options.threshold)


def test_a_span_that_begins_with_a_group_was_not_settled_before() -> None:
    first = spans_of(speech())[0].start + DEFAULT.pad_ms * SAMPLE_RATE // 1000
    for shift in range(-2 * FRAME, 6 * FRAME, FRAME):
        settled = 0
        for heard in detect([np.zeros(GROUP - first + shift, np.int16), speech()], DEFAULT):
            assert all(settled <= span.start for span in heard.spans)
            settled = heard.until


def test_groups_are_heard_as_one_recording() -> None:
    pcm = speech()[: 5 * GROUP]
    audio = np.concatenate([np.zeros(CONTEXT), pcm / 32_768]).astype(np.float32)
    frames, level = [], -120.0
    for at in range(0, len(pcm), FRAME):
        power = 10 * np.log10(np.var(audio[CONTEXT + at :][:FRAME], dtype=np.float64) + 1e-12)
        level = max(power, level - DEFAULT.release_db_s * FRAME / SAMPLE_RATE)
        frame = audio[at : at + CONTEXT + FRAME]
        gain = 10 ** (np.clip(DEFAULT.level_db - level, 0, DEFAULT.max_gain_db) / 20)
        frames.append((frame - frame.mean()) * np.float32(gain))
    state = np.zeros((1, 1, 128), np.float32)
    inputs = {"input": np.array(frames, np.float32), "h": state, "c": state}
    at_once = load_session().run(["speech_probs"], inputs)[0].reshape(-1)

    listener = _Probabilities(DEFAULT)
    in_groups = [value for group in blocks(pcm, GROUP) for value in listener(group)]
    np.testing.assert_allclose(in_groups, at_once, atol=1e-4)


@pytest.mark.parametrize("gain", [0.1, 0.01, 0.001])
def test_quiet_speech_is_found(gain: float) -> None:
    assert found_again(clean() * gain) > 0.97


def test_it_is_the_gain_that_finds_quiet_speech() -> None:
    assert found_again(clean() * 0.001, replace(DEFAULT, max_gain_db=0.0)) < 0.9


def test_quiet_speech_on_a_constant_offset_is_found() -> None:
    assert found_again(clean() * 0.01 + 0.2) > 0.97


def test_quiet_speaker_after_a_loud_one_is_found() -> None:
    loud = decoded("en_switchboard.mp3")
    pcm = np.concatenate([loud, (speech() * 0.02).astype(np.int16)])
    alone = mask(spans_of(speech()), len(speech()))
    assert mask(spans_of(pcm), len(pcm))[len(loud) :][alone].mean() > 0.95


def test_clipped_speech_is_found() -> None:
    assert found_again(clean() * 30) > 0.95


def test_speech_over_music_is_found() -> None:
    music = np.resize(decoded("music.mp3"), len(speech())) / 32_768
    music *= np.sqrt(np.mean(clean() ** 2) / np.mean(music**2))
    assert found_again(clean() / 2 + music / 2) > 0.95  # as loud as the speech


def test_speech_in_noise_on_a_telephone_line_is_found() -> None:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    noise = np.random.default_rng(seed).normal(size=len(speech())) * np.sqrt(np.mean(clean() ** 2)) / 3  # 10 dB below
    spectrum = np.fft.rfft(clean() + noise)
    hertz = np.fft.rfftfreq(len(speech()), 1 / SAMPLE_RATE)
    spectrum[(hertz < 300) | (hertz > 3400)] = 0
    assert found_again(np.fft.irfft(spectrum, len(speech())) * 0.1) > 0.95


def test_a_long_span_is_split_in_pauses_and_loses_nothing() -> None:
    one = replace(DEFAULT, min_silence_ms=60_000, max_span_s=600.0)
    split = replace(one, max_span_s=10.0)
    whole, parts = spans_of(speech(), one), spans_of(speech(), split)
    assert len(whole) == 1
    assert len(parts) > 2
    assert all(len(part) <= 12 * SAMPLE_RATE for part in parts)  # a pause is waited for
    assert (parts[0].start, parts[-1].end) == (whole[0].start, whole[0].end)
    assert all(before.end == after.start for before, after in pairwise(parts))
    words = mask(spans_of(speech(), replace(DEFAULT, min_silence_ms=64, pad_ms=0)), len(speech()))
    assert not any(words[part.end] for part in parts[:-1])


def test_what_came_before_an_error_is_settled_before_it() -> None:
    heard: list[Heard] = []

    def broken() -> Iterator[Pcm]:
        yield from blocks(speech()[: 9 * SAMPLE_RATE], 700)
        raise DecodeError("truncated", "the end is missing")

    with pytest.raises(DecodeError, match="the end is missing"):
        heard.extend(iter(detect(broken(), DEFAULT)))
    kept = list(detect([speech()[: 9 * SAMPLE_RATE]], DEFAULT))
    assert [(h.spans, h.until, len(h.pcm)) for h in heard] == [(h.spans, h.until, len(h.pcm)) for h in kept]
    assert heard[-1].until == 9 * SAMPLE_RATE


def test_memory_does_not_grow_with_the_recording() -> None:
    second = np.zeros(SAMPLE_RATE, np.int16)
    list(detect([second], DEFAULT))  # loads the model
    tracemalloc.start()
    try:
        for _ in detect((second.copy() for _ in range(450)), DEFAULT):
            pass
        assert tracemalloc.get_traced_memory()[1] < 5_000_000  # of 14 MB
    finally:
        tracemalloc.stop()


def test_detecting_loads_neither_torch_nor_the_package_of_the_model() -> None:
    program = (
        "import sys, numpy; from pipeline.speech import SpeechOptions, detect;"
        "list(detect([numpy.zeros(16000, numpy.int16)], SpeechOptions()));"
        "print(sorted({'torch', 'ray', 'silero_vad'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
