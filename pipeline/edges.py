"""A recording's audio read again: the stretches that clips need, as ffmpeg decodes them, and the edges in silence.

Audio comes from the first stretch to the last in one piece: a seek for each would cost more where clips lie close, and
lands elsewhere in many formats. Memory: the stretch and a block. Knows samples and times; no texts and no tables.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.types import Pcm, Span

FRAME_S = 0.01  # in which edges are sought
TOLERANCE_S = 0.15  # by which times of words may be wrong
REACH_S = 0.5  # no edge is farther from the speech
_FLOOR = 1e-9  # power below which all is equally silent: -90 dB
_AWAY = 50.0  # dB a second: what it costs an edge to be elsewhere than wanted


def excerpts(blocks: Iterable[Pcm], spans: Sequence[Span]) -> Iterator[Pcm]:
    """Yield the samples of each of `spans`, which begin in order and may overlap; short or empty where audio ends.

    Reads no further than the last span. What `blocks` raises is raised after the spans that came whole before it.
    """
    held: deque[Pcm] = deque()
    start = end = 0  # samples that `held` reaches from and to
    stream = iter(blocks)
    for span in spans:
        while held and start + len(held[0]) <= span.start:
            start += len(held.popleft())
        while end < span.end:
            block = next(stream, None)
            if block is None:
                break
            end += len(block)
            held.append(block)
            while held and start + len(held[0]) <= span.start:
                start += len(held.popleft())
        audio = np.concatenate(held) if held else np.empty(0, np.int16)
        yield audio[max(0, span.start - start) : max(0, span.end - start)].copy()


def edges(audio: Pcm, rate: int, speech: tuple[float, float], room: tuple[float, float], pad_s: float) -> Span:
    """Return the part of `audio` that is the clip: its edges where it is quiet, about `pad_s` from the speech.

    `speech` says where the speech is by the times of its words, and `room` from where to where an edge may be, in
    seconds of `audio`. An edge may lie `TOLERANCE_S` inside of both, because these times are rough.
    """
    frame = max(1, round(FRAME_S * rate))
    level = levels(audio, frame)
    if not len(level):
        return Span(0, len(audio))
    start = _quiet(level, room[0] - TOLERANCE_S, speech[0] + TOLERANCE_S, speech[0] - pad_s)
    end = _quiet(level, speech[1] - TOLERANCE_S, room[1] + TOLERANCE_S, speech[1] + pad_s)
    return Span(start * frame, min((end + 1) * frame, len(audio))) if end > start else Span(0, len(audio))


def levels(audio: Pcm, frame: int) -> NDArray[np.float64]:
    """Return the level of each frame in dB of full scale, over three frames."""
    count = len(audio) // frame
    power = np.square(audio[: count * frame].astype(np.float64) / 32_768).reshape(count, frame).mean(axis=1)
    if count >= 3:
        padded = np.concatenate([power[:1], power, power[-1:]])
        power = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    decibels: NDArray[np.float64] = 10 * np.log10(power + _FLOOR)
    return decibels


def _quiet(level: NDArray[np.float64], first_s: float, last_s: float, wanted_s: float) -> int:
    """Return the frame between two times that is quietest, less what its way from the wanted time costs."""
    first = min(max(0, round(first_s / FRAME_S)), len(level) - 1)
    last = min(max(first, round(last_s / FRAME_S)), len(level) - 1)
    times = np.arange(first, last + 1) * FRAME_S
    return first + int(np.argmin(level[first : last + 1] + _AWAY * np.abs(times - wanted_s)))
