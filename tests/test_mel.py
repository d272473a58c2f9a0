"""The spectrogram against the reference implementation's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import whisper

from pipeline.whisper import mel


@pytest.mark.parametrize("bands", [80, 128])
def test_spectrogram_equals_the_reference(bands: int) -> None:
    pcm = (np.random.default_rng(7).normal(0, 3000, 16_000 * 7 + 123)).astype(np.int16)
    expected = whisper.log_mel_spectrogram(pcm.astype(np.float32) / 32_768, bands, padding=mel.WINDOW_SAMPLES)
    torch.testing.assert_close(mel.log_mel(torch.from_numpy(pcm), bands), expected, atol=2e-5, rtol=0)


def test_frames_are_ten_milliseconds_and_thirty_seconds_of_silence_follow() -> None:
    assert mel.log_mel(torch.zeros(16_000, dtype=torch.int16), 80).shape == (80, 100 + mel.WINDOW_FRAMES)


def test_short_window_is_padded_with_zeros() -> None:
    window = mel.window(torch.ones(80, 4000), 3900, 100)
    assert window.shape == (80, 3000)
    assert window[:, :100].eq(1).all()
    assert window[:, 100:].eq(0).all()
