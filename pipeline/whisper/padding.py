"""A window's padding, thinned: behind the audio one position in eight is encoded, and weighs in attention as eight.

Padding is the same all along but for the sinusoids of its positions, so that neighbours have nearly the same keys and
values; and attention to eight equal keys is attention to one whose score has log 8 added. What encoding a short
stretch costs goes with its length, then, and the decoder still meets a window of 30 s: with less of it, it errs more.
Knows where the audio ends; no weights, no text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

from pipeline.whisper.mel import WINDOW_FRAMES

AUDIO_POSITIONS = WINDOW_FRAMES // 2  # of the encoder: 50 a second
STRIDE = 8
MARGIN = 50  # positions behind the audio that are encoded one by one
# Up to so many positions a window that attends by itself takes less time than beside others that attend to all 1500.
FEW_POSITIONS = 1000
FRAMES_BEHIND = 4  # that the convolutions need to tell the first position that is thinned


@dataclass(frozen=True)
class Thinned:
    """Of the 1500 positions of a window those that are encoded: A' of them, the first `heard` one by one."""

    heard: int

    @classmethod
    def behind(cls, frames: int, grain: int = STRIDE) -> Thinned | None:
        """Return what is encoded of a window with so many frames of audio; None for all of it.

        `grain` is a multiple of STRIDE: with a coarser one, fewer kinds of windows come, for batches.
        """
        padding = (AUDIO_POSITIONS - math.ceil(frames / 2) - MARGIN) // grain * grain
        return cls(AUDIO_POSITIONS - padding) if padding > 0 else None

    @property
    def frames(self) -> int:
        """Frames of the spectrogram that are looked at."""
        return 2 * self.heard + FRAMES_BEHIND

    @cached_property
    def places(self) -> Tensor:
        """Which positions are encoded: int64 [A']; those of padding are the middle of what they stand for."""
        return torch.cat([torch.arange(self.heard), torch.arange(self.heard + STRIDE // 2, AUDIO_POSITIONS, STRIDE)])

    @property
    def positions(self) -> int:
        """How many are encoded."""
        return self.heard + (AUDIO_POSITIONS - self.heard) // STRIDE

    def bias(self, like: Tensor) -> Tensor:
        """Return what is added to the scores of the keys: [1, 1, 1, A'], in the number format of `like`, beside it."""
        bias = like.new_zeros(1, 1, 1, self.positions)
        bias[..., self.heard :] = math.log(STRIDE)
        return bias

    def dense(self, room: Tensor) -> Tensor:
        """Return the view [..., H, A', E] of the first numbers of [..., H, 1500, E], one behind the other there."""
        *before, heads, _, size = room.shape
        dense = room.view(*before, -1)[..., : heads * self.positions * size]
        return torch.unflatten(dense, -1, (heads, self.positions, size))

    def spread(self, audio: Tensor) -> Tensor:
        """Give each position its keys and values: [..., A', E] -> [..., 1500, E]."""
        heard, padding = audio[..., : self.heard, :], audio[..., self.heard :, :]
        return torch.cat([heard, padding.repeat_interleave(STRIDE, -2)], -2)


Padding = Sequence[tuple[slice, Thinned | None]]  # windows that attend together, and how their padding is thinned
WHOLE: Padding = ((slice(None), None),)


def apart(windows: Sequence[Thinned | None]) -> Padding:
    """Return which windows of some that have room for all positions attend together.

    Those with all positions do, where they are neighbours; of thinned ones each lies dense in its room, for itself.
    """
    parts, at = [], 0
    for one, alike in groupby(windows):
        count = len(list(alike))
        step = 1 if one else count
        parts += [(slice(start, start + step), one) for start in range(at, at + count, step)]
        at += count
    return parts
