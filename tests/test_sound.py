"""The sound of clips in numbers, on real speech made worse in known ways."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipeline import sound, storage
from pipeline.decode import Decoder
from pipeline.edges import edges, excerpts
from pipeline.ffmpeg_process import find_ffmpeg
from pipeline.types import Pcm, Span

RATE = 44_100
AUDIO = Path(__file__).parent.parent / "examples" / "audio"


def decoded(path: Path, rate: int = RATE) -> Pcm:
    decoder = Decoder(partial(storage.open_audio, str(path)), str(path), rate=rate)
    return np.concatenate(list(decoder.blocks()))


@pytest.fixture(scope="module")
def speech() -> Pcm:
    """Ten seconds of clean speech at 44.1 kHz."""
    return decoded(AUDIO / "en_switchboard.mp3")[: 10 * RATE]


def noisy(audio: Pcm, snr_db: float) -> Pcm:
    loud = np.sqrt(np.mean(audio.astype(float) ** 2))
    noise = np.random.default_rng(1).normal(size=len(audio)) * loud / 10 ** (snr_db / 20)
    return np.clip(audio + noise, -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("snr_db", [0, 10, 20])
def test_noise_is_estimated_within_four_decibels(speech: Pcm, snr_db: int) -> None:
    found = sound.measure(noisy(speech, snr_db), RATE).snr_db
    assert found is not None
    assert snr_db - 1 < found < snr_db + 4  # the louder half is up to 3 dB over the whole


def test_clean_speech_is_clean(speech: Pcm) -> None:
    found = sound.measure(speech, RATE)
    assert (found.snr_db or 0) > 25
    assert found.clipped == 0
    assert found.speech_share > 0.8
    assert (found.bandwidth_hz or 0) > 6000


@pytest.mark.parametrize("codec", ["pcm_s16le", "mp3", "aac"])
def test_telephone_audio_in_a_file_of_44_kilohertz_is_found(tmp_path: Path, codec: str) -> None:
    narrow, wide = tmp_path / "narrow.wav", tmp_path / ("wide.wav" if codec == "pcm_s16le" else "wide.mka")
    ffmpeg = [find_ffmpeg(), "-v", "error", "-i"]
    subprocess.run([*ffmpeg, AUDIO / "en_switchboard.mp3", "-t", "10", "-ar", "8000", narrow], check=True)
    subprocess.run([*ffmpeg, narrow, "-ar", str(RATE), "-c:a", codec, "-b:a", "128k", wide], check=True)
    assert 3000 < (sound.measure(decoded(wide), RATE).bandwidth_hz or 0) < 5000


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_clipping_is_found_even_if_turned_down_afterwards(speech: Pcm, scale: float) -> None:
    cut = np.clip(speech.astype(float) * 8, -32768, 32767) * scale
    assert sound.measure(cut.astype(np.int16), RATE).clipped > 0.02


def test_loudness_is_that_of_the_standard() -> None:
    """EBU Tech 3341: a sine of 1 kHz at -23 dBFS in both channels has -23 LUFS; in one channel 3 dB less."""
    sine = np.sin(2 * np.pi * 1000 * np.arange(5 * 48_000) / 48_000) * 10 ** (-23 / 20) * 32_768
    assert sound.measure(sine.astype(np.int16), 48_000).loudness_lufs == pytest.approx(-26.0, abs=0.1)


def test_silence_has_no_numbers_that_it_cannot_have() -> None:
    found = sound.measure(np.zeros(2 * RATE, np.int16), RATE)
    assert (found.loudness_lufs, found.speech_share, found.bandwidth_hz) == (None, 0.0, 0.0)
    assert sound.measure(np.zeros(0, np.int16), RATE).snr_db is None


def test_an_edge_in_a_word_is_louder_than_one_in_silence(speech: Pcm) -> None:
    quiet = np.concatenate([np.zeros(RATE // 10, np.int16), speech, np.zeros(RATE // 10, np.int16)])
    loudest = int(np.argmax(np.abs(speech.astype(int))))
    whole, torn = sound.measure(quiet, RATE).edge_db, sound.measure(speech[:loudest], RATE).edge_db
    assert whole is not None
    assert torn is not None
    assert whole < -40 < -6 < torn


def test_quality_falls_with_noise(speech: Pcm) -> None:
    clean, dirty = sound.quality(speech, RATE), sound.quality(noisy(speech, 5), RATE)
    assert clean is not None
    assert dirty is not None
    assert 1 < dirty < 2.5 < clean < 5


def test_excerpts_are_the_samples_asked_for() -> None:
    audio = np.arange(1000, dtype=np.int16)
    blocks = [audio[at : at + 70] for at in range(0, 1000, 70)]
    spans = [Span(0, 10), Span(5, 100), Span(69, 71), Span(400, 650), Span(990, 1100), Span(1200, 1300)]
    found = list(excerpts(blocks, spans))
    assert [part.tolist() for part in found] == [audio[span.start : span.end].tolist() for span in spans]


def test_excerpts_read_no_further_than_they_must() -> None:
    read = []
    blocks = (read.append(at) or np.zeros(10, np.int16) for at in range(100))
    list(excerpts(blocks, [Span(15, 25)]))
    assert len(read) == 3


def test_edges_lie_in_the_gap_beside_the_speech() -> None:
    """A burst from 1.0 to 2.0 s, its times wrong by 0.1 s; others at 0.5 and 2.5 s."""
    audio = np.random.default_rng(1).normal(0, 20, 3 * 16_000)
    for start, end in ((0.0, 0.5), (1.0, 2.0), (2.5, 3.0)):
        audio[int(start * 16_000) : int(end * 16_000)] *= 200
    found = edges(audio.astype(np.int16), 16_000, (1.1, 1.9), (0.5, 2.5), 0.2)
    assert 0.5 < found.start / 16_000 < 1.0
    assert 2.0 < found.end / 16_000 < 2.5
