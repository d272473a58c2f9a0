"""A passage -> the voices in it: who speaks when in each stretch of ten seconds, and what each of them sounds like.

Windows overlap by half, and each speaks for its middle only, where it knows what comes before and after. What a voice
sounds like is taken from where it is alone, as far as it is. A passage is listened to by itself: what is found does
not depend on what else the actor has to do. Which voices are one speaker's is decided when the recording is complete,
in `pipeline/speakers.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.types import Passage, Span, Voice
from pipeline.voices.fbank import FRAME, HOP, fbank
from pipeline.voices.segmentation import FIRST, SPEAKERS, STEP, WINDOW, Segmentation

STRIDE = WINDOW // 2
TOGETHER = 16  # windows in a batch
LEAST = 30  # frames of sound (0.3 s) that a voice is told by
MOST = 400  # frames after which more of it tells hardly more
UNIT = 100  # frames: lengths are filled up to a multiple of these, so that voices can share a batch

Embedder = Callable[[Tensor], Tensor]  # [batch, frames, bands] -> [batch, size]


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    """A speaker of a window: where in its middle he speaks, in samples of the passage, and the frames of his alone."""

    window: int
    spans: tuple[Span, ...]
    frames: Tensor  # numbers of mel frames of the passage
    alone: int  # samples


class Listener:
    """Tells the voices of passages apart."""

    def __init__(self, segmentation: Segmentation, embed: Embedder, device: torch.device) -> None:
        """Take the models, which are on `device`."""
        self._segmentation, self._embed, self._device = segmentation, embed, device

    @torch.inference_mode()
    def __call__(self, passage: Passage) -> tuple[Voice, ...]:
        """Return the voices of a passage, window by window."""
        if len(passage.pcm) < LEAST * HOP:
            return ()
        audio = torch.from_numpy(passage.pcm.astype(np.float32) / 32768).to(self._device)
        heard = [one for one in self._heard(audio) if len(one.frames) >= LEAST]
        vectors = self._vectors(fbank(audio), heard)
        return tuple(
            Voice(
                one.window,
                tuple(Span(passage.start + span.start, passage.start + span.end) for span in one.spans),
                one.alone,
                vector,
            )
            for one, vector in zip(heard, vectors, strict=True)
        )

    def _heard(self, audio: Tensor) -> Iterator[_Heard]:
        """Yield the speakers of each window."""
        count = 1 + max(0, -(-(len(audio) - WINDOW) // STRIDE))
        padded = torch.nn.functional.pad(audio, (0, (count - 1) * STRIDE + WINDOW - len(audio)))
        windows = padded.unfold(0, WINDOW, STRIDE)
        for first in range(0, count, TOGETHER):
            for number, speaking in enumerate(self._segmentation(windows[first : first + TOGETHER]).cpu(), first):
                start = 0 if number == 0 else STRIDE // 2
                end = WINDOW if number == count - 1 else WINDOW - STRIDE // 2
                middle = Span(start, min(end, len(audio) - number * STRIDE))
                yield from _speakers(number, speaking.bool(), middle, len(audio))

    def _vectors(self, mel: Tensor, heard: list[_Heard]) -> list[tuple[float, ...]]:
        """Return what each voice sounds like: those that are filled up to the same length go through as one batch."""
        alike: dict[int, list[int]] = defaultdict(list)
        for index, one in enumerate(heard):
            alike[-(-len(one.frames) // UNIT)].append(index)
        found: dict[int, tuple[float, ...]] = {}
        for units, indices in alike.items():
            for first in range(0, len(indices), TOGETHER):
                some = indices[first : first + TOGETHER]
                batch = torch.stack([_filled(mel[heard[index].frames.to(mel.device)], units * UNIT) for index in some])
                vectors = torch.nn.functional.normalize(self._embed(batch)).cpu()
                found |= {index: tuple(vector.tolist()) for index, vector in zip(some, vectors, strict=True)}
        return [found[index] for index in range(len(heard))]


def _speakers(window: int, speaking: Tensor, middle: Span, length: int) -> Iterator[_Heard]:
    """Yield those who speak in the `middle` of a window. `speaking`: [frames of the segmentation, SPEAKERS]."""
    offset = window * STRIDE
    frames = torch.arange(max(0, -(-offset // HOP)), (min(offset + WINDOW, length) - FRAME) // HOP + 1)
    places = ((frames * HOP + FRAME // 2 - offset - FIRST) / STEP).round().long().clamp(0, len(speaking) - 1)
    crowd = speaking.sum(1)
    for speaker in range(SPEAKERS):
        spans = tuple(_spans(speaking[:, speaker], middle, offset))
        if not spans:
            continue
        alone = speaking[:, speaker] & (crowd == 1)
        mine = frames[alone[places]]
        told = mine if len(mine) >= LEAST else frames[speaking[places, speaker]]
        yield _Heard(window, spans, _most(told, offset), len(mine) * HOP)


def _spans(active: Tensor, middle: Span, offset: int) -> Iterator[Span]:
    """Yield the stretches in which a speaker is active, within the `middle`, in samples of the passage."""
    turns = torch.diff(active.int(), prepend=torch.zeros(1), append=torch.zeros(1)).nonzero()[:, 0].tolist()
    for first, last in zip(turns[::2], turns[1::2], strict=True):
        start = 0 if first == 0 else first * STEP + FIRST - STEP // 2
        end = WINDOW if last == len(active) else last * STEP + FIRST - STEP // 2
        start, end = max(start, middle.start), min(end, middle.end)
        if end > start:
            yield Span(offset + start, offset + end)


def _most(frames: Tensor, offset: int) -> Tensor:
    """Return at most MOST of the frames: those closest to the middle of the window, in order."""
    distance = (frames * HOP - offset - WINDOW // 2).abs()
    return frames[distance.argsort(stable=True)[:MOST].sort().values]


def _filled(features: Tensor, length: int) -> Tensor:
    """Return the features without their mean, begun anew as often as it takes to fill `length`."""
    return (features - features.mean(0)).repeat(-(-length // len(features)), 1)[:length]
