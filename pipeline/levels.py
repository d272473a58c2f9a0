"""How loud the speech of a recording is, and how far above what is heard between its words.

Duty: mean power under the speech spans, and the signal-to-noise ratio. Constant memory: levels are counted in steps of
half a decibel. Knows no files and no passages.

Spans of speech hold their short pauses, and a margin on both sides. So the least powers under them are those of the
noise that the speech stands in: the tenth percentile is taken. (NIST's STNR finds both in a histogram of levels, too.)
What lies outside of the spans does not count: an opening melody says nothing about the speech behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.types import SAMPLE_RATE, Heard, Pcm, Span

FRAME = SAMPLE_RATE // 100  # samples: 10 ms
LEAST = 50  # frames of speech, half a second, before a ratio is given
QUIET = 0.1  # share of the frames under speech that are taken for pauses
LEAST_RATIO = 0.01  # -20 dB
STEPS = 2  # counts a decibel
TOP = 91  # dB: power of a full-scale square wave, 32,767 squared, is 90.3


class Meter:
    """Listens to a recording once. Powers are mean squares of int16 samples."""

    def __init__(self) -> None:
        """Nothing is heard yet."""
        self._carried: Pcm = np.empty(0, np.int16)  # less than a frame
        self._undecided: NDArray[np.float64] = np.empty(0)  # power of frames whose spans are not settled
        self._first = 0  # index of the first of these
        self._spans: list[Span] = []
        self._spoken, self._spoken_frames = 0.0, 0
        self._all, self._all_frames = 0.0, 0
        self._levels = np.zeros(STEPS * TOP, np.int64)  # frames of speech by their power in dB, at least 0

    def listen(self, heard: Iterable[Heard]) -> Iterator[Heard]:
        """Yield `heard` as it is, and measure it."""
        for one in heard:
            audio = np.concatenate([self._carried, one.pcm])
            whole = len(audio) // FRAME * FRAME
            self._carried = audio[whole:]
            frames = audio[:whole].astype(np.float32).reshape(-1, FRAME)
            powers = np.einsum("ij,ij->i", frames, frames, dtype=np.float64) / FRAME
            self._undecided = np.concatenate([self._undecided, powers])
            self._spans += one.spans
            self._decide(one.until)
            yield one

    def _decide(self, until: int) -> None:
        ready = min(len(self._undecided), max(0, until // FRAME - self._first))
        powers, self._undecided = self._undecided[:ready], self._undecided[ready:]
        middles = (self._first + np.arange(ready)) * FRAME + FRAME // 2
        spoken = np.zeros(ready, np.bool_)
        for span in self._spans:
            low, high = np.searchsorted(middles, (span.start, span.end))
            spoken[low:high] = True
        self._first += ready
        self._spans = [span for span in self._spans if span.end > self._first * FRAME]
        self._all, self._all_frames = self._all + float(powers.sum()), self._all_frames + ready
        self._spoken += float(powers[spoken].sum())
        self._spoken_frames += int(spoken.sum())
        steps = (STEPS * 10 * np.log10(np.maximum(powers[spoken], 1))).astype(np.int64)
        self._levels += np.bincount(steps, minlength=len(self._levels))

    @property
    def power(self) -> float | None:
        """Mean power of the speech; of everything where there is no speech; None where nothing is heard."""
        total, frames = (self._spoken, self._spoken_frames) if self._spoken_frames else (self._all, self._all_frames)
        return total / frames if frames and total else None

    @property
    def snr_db(self) -> float | None:
        """Signal-to-noise ratio of the speech in dB: its power without the noise's, over the noise's.

        None with less than half a second of speech; never below -20, where the two cannot be told apart.
        """
        if self._spoken_frames < LEAST or not self._spoken:
            return None
        quiet = int(np.searchsorted(np.cumsum(self._levels), QUIET * self._spoken_frames))
        noise = 10 ** ((quiet + 0.5) / STEPS / 10)
        speech = self._spoken / self._spoken_frames
        return 10 * math.log10(max(speech / noise - 1, LEAST_RATIO))
