"""Noise added to recordings on purpose: what would their transcripts be worth?

Duty: noise so many decibels below a recording's speech, the same each time the recording is read. Knows no files: the
power of the speech and the noise of a recording, where one is named, are given.
Source of the measurement: section 3.7 of the Whisper paper (Radford et al., 2022).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.types import Pcm, setting


@dataclass(frozen=True)
class NoiseOptions:
    """What is added to the audio before anything listens to it."""

    add_noise: float | None = setting(
        None,
        "Add white noise to each recording, this far below its speech, to see what that does to transcripts.",
        "dB",
    )


def noisy(blocks: Iterable[Pcm], power: float, ratio_db: float, recording_id: str) -> Iterator[Pcm]:
    """Yield `blocks` (int16 [samples]) with white noise, `ratio_db` below `power` (mean square of int16 samples).

    What is added depends on the recording and the place in it, never on the blocks.
    """
    random = np.random.default_rng(list(hashlib.sha256(recording_id.encode()).digest()))
    deviation = np.float32((power / 10 ** (ratio_db / 10)) ** 0.5)
    for block in blocks:
        noise = random.standard_normal(len(block), np.float32) * deviation
        yield np.clip(np.rint(block + noise), -32_768, 32_767).astype(np.int16)
