"""16 kHz samples -> log-mel spectrogram. Knows nothing of passages and models.

Constants and formulas: `whisper.audio` of the reference implementation; the filter bank is Slaney's (Auditory
Toolbox, 1998), as `librosa.filters.mel` computes it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.types import SAMPLE_RATE

N_FFT = 400  # 25 ms
HOP = 160  # 10 ms
FRAMES_PER_SECOND = SAMPLE_RATE // HOP
WINDOW_SECONDS = 30
WINDOW_FRAMES = WINDOW_SECONDS * FRAMES_PER_SECOND
WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE


def log_mel(pcm: Tensor, bands: int) -> Tensor:
    """Return the spectrogram of int16 (or float, +-1) `pcm` [samples] and 30 s of silence after it.

    Out: float32 [bands, samples // 160 + 3000]. The floor is 8 (80 dB) below the maximum of the whole input.
    """
    samples = pcm.float() / 32_768 if pcm.dtype == torch.int16 else pcm
    samples = F.pad(samples, (0, WINDOW_SAMPLES))
    window = torch.hann_window(N_FFT, device=pcm.device)
    power = torch.stft(samples, N_FFT, HOP, window=window, return_complex=True)[:, :-1].abs() ** 2  # [201, frames]
    mel = filters(bands, pcm.device) @ power  # [bands, frames]
    log = mel.clamp(min=1e-10).log10()
    return (log.maximum(log.max() - 8.0) + 4.0) / 4.0


def window(mel: Tensor, start: int, frames: int) -> Tensor:
    """Return `frames` (<= 3000) frames of `mel` [bands, n] from `start`, padded with 0.0 to [bands, 3000]."""
    part = mel[:, start : start + frames]
    return F.pad(part, (0, WINDOW_FRAMES - part.shape[1]))


@lru_cache(maxsize=4)
def filters(bands: int, device: torch.device) -> Tensor:
    """Return the triangular mel filter bank, each filter of unit area: float32 [bands, 201]."""
    bins = torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)  # Hz [201]
    edges = _hertz(torch.linspace(0, _mel(SAMPLE_RATE / 2), bands + 2, dtype=torch.float64))  # Hz [bands + 2]
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = rising.minimum(falling).clamp(min=0)  # [bands, 201]
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).float().to(device)


# Slaney's scale: linear up to 1 kHz (3 mel per 200 Hz), logarithmic above (27 mel per factor 6.4).
_LINEAR = 200 / 3  # Hz a mel
_KNEE = 1000.0  # Hz
_LOG_STEP = math.log(6.4) / 27


def _mel(hertz: float) -> float:
    return hertz / _LINEAR if hertz < _KNEE else _KNEE / _LINEAR + math.log(hertz / _KNEE) / _LOG_STEP


def _hertz(mel: Tensor) -> Tensor:
    knee = _KNEE / _LINEAR
    return torch.where(mel < knee, mel * _LINEAR, _KNEE * torch.exp(_LOG_STEP * (mel - knee)))
