"""Who speaks in ten seconds: up to three speakers, up to two at once, frame by frame, at inference.

The network of pyannote's segmentation-3.0: band-pass filters, convolutions, LSTMs in both directions, and a class for
each set of speakers (https://arxiv.org/abs/2310.13025). Which of the three a speaker is means nothing outside of the
window. Knows tensors only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.types import SAMPLE_RATE

WINDOW = 10 * SAMPLE_RATE  # samples
SPEAKERS = 3
STEP = 270  # samples from frame to frame
FIRST = 495  # sample in the middle of the first frame
_HALF = 125  # samples of a filter on each side of its middle
_LAYERS, _HIDDEN, _BANDS = 4, 128, 40


class Segmentation:
    """The network, with the weights of pyannote's checkpoint."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Take the checkpoint's tensors, on the device to work on."""
        self._weights = weights
        self._filters = _filters(weights)
        self._lstm = torch.nn.LSTM(60, _HIDDEN, _LAYERS, batch_first=True, bidirectional=True).eval()
        self._lstm.load_state_dict({k.removeprefix("lstm."): v for k, v in weights.items() if k.startswith("lstm.")})
        self._lstm.to(self._filters.device)
        sets = [pick for size in range(3) for pick in combinations(range(SPEAKERS), size)]
        told = [[float(speaker in pick) for speaker in range(SPEAKERS)] for pick in sets]
        self._sets = torch.tensor(told, device=self._filters.device)

    def __call__(self, audio: Tensor) -> Tensor:
        """Return whether each speaker speaks, [batch, frames, SPEAKERS] of 0 and 1, in `audio`, [batch, WINDOW]."""
        x = self._scaled(audio[:, None], "sincnet.wav_norm1d")
        for layer in range(3):
            x = F.conv1d(x, self._filters, stride=10).abs() if layer == 0 else self._convolved(x, layer)
            x = F.leaky_relu(self._scaled(F.max_pool1d(x, 3), f"sincnet.norm1d.{layer}"))
        x = self._lstm(x.transpose(1, 2))[0]
        for layer in range(2):
            x = F.leaky_relu(self._linear(x, f"linear.{layer}"))
        return self._sets[self._linear(x, "classifier").argmax(-1)]

    def _convolved(self, x: Tensor, layer: int) -> Tensor:
        name = f"sincnet.conv1d.{layer}"
        return F.conv1d(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _scaled(self, x: Tensor, name: str) -> Tensor:
        return F.instance_norm(x, weight=self._weights[f"{name}.weight"], bias=self._weights[f"{name}.bias"])

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])


def _filters(weights: Mapping[str, Tensor]) -> Tensor:
    """Return band-pass filters, even ones and odd ones, from the edges of their bands: [2 x bands, 1, taps]."""
    name = "sincnet.conv1d.0.filterbank"
    low = 50.0 + weights[f"{name}.low_hz_"].abs()
    high = (low + 50.0 + weights[f"{name}.band_hz_"].abs()).clamp(50.0, SAMPLE_RATE / 2)
    time = 2 * math.pi * torch.arange(-_HALF, 0, device=low.device) / SAMPLE_RATE
    window, width = weights[f"{name}.window_"], 2 * (high - low)
    even = ((high * time).sin() - (low * time).sin()) / (time / 2) * window
    odd = ((low * time).cos() - (high * time).cos()) / (time / 2) * window
    even = torch.cat([even, width, even.flip(1)], 1)
    odd = torch.cat([odd, torch.zeros_like(width), -odd.flip(1)], 1)
    return torch.cat([even / width, odd / width])[:, None]
