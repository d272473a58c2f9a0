"""Audio -> log energies of mel bands as Kaldi computes them, which models of speakers are trained on.

Knows tensors only. 80 bands from 20 Hz to 8 kHz, frames of 25 ms every 10 ms, no dither.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from pipeline.types import SAMPLE_RATE

BANDS = 80
HOP = SAMPLE_RATE // 100
FRAME = SAMPLE_RATE // 40
_FFT = 512
_PREEMPHASIS = 0.97
_FLOOR = torch.finfo(torch.float32).eps


def fbank(audio: Tensor) -> Tensor:
    """Return [frames, BANDS] of `audio`, [samples] within -1 and 1; none where it is shorter than a frame."""
    if len(audio) < FRAME:
        return audio.new_zeros((0, BANDS))
    frames = audio.unfold(0, FRAME, HOP)
    frames = frames - frames.mean(1, keepdim=True)
    before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
    window, bank = _window(audio.device), _bank(audio.device)
    power = torch.fft.rfft((frames - _PREEMPHASIS * before) * window, _FFT).abs().square()
    energies: Tensor = (power @ bank).clamp_min(_FLOOR).log()
    return energies


@cache
def _window(device: torch.device) -> Tensor:
    """Return Povey's window: that of Hann to the power of 0.85."""
    return torch.hann_window(FRAME, periodic=False, device=device).pow(0.85)


@cache
def _bank(device: torch.device) -> Tensor:
    """Return triangles on the mel scale, [bins of the spectrum, BANDS]."""
    edges = torch.linspace(_mel(20.0), _mel(SAMPLE_RATE / 2), BANDS + 2, dtype=torch.float64)
    mels = torch.tensor([_mel(bin * SAMPLE_RATE / _FFT) for bin in range(_FFT // 2 + 1)], dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (mels[:, None] - left) / (centre - left)
    falling = (right - mels[:, None]) / (right - centre)
    bank = torch.minimum(rising, falling).clamp_min(0.0)
    bank[-1] = 0.0  # the bin at half the sampling rate belongs to no band
    return bank.to(device, torch.float32)


def _mel(hertz: float) -> float:
    return 1127.0 * math.log1p(hertz / 700.0)
