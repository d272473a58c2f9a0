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
from torch.nn import functional as F

from pipeline.types import Passage, Pcm, Span, Voice
from pipeline.voices.fbank import FRAME, HOP, fbank
from pipeline.voices.segmentation import FIRST, SPEAKERS, STEP, WINDOW, Segmentation

STRIDE = WINDOW // 2
TOGETHER = 16  # windows in a batch: a passage's, but for one that is a whole recording
LEAST = 30  # frames of sound (0.3 s) that a voice is told by
MOST = 400  # frames after which more of it tells hardly more
UNIT = 100  # frames: lengths are filled up to a multiple of these, so that voices can share a batch

Embedder = Callable[[Tensor], Tensor]  # [batch, frames, bands] -> [batch, size]


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    """A speaker of a window: where in its middle that one speaks, in samples of the passage, and some of the sound."""

    window: int
    spans: tuple[Span, ...]
    alone: int  # samples
    features: Tensor  # [frames, bands]


class Listener:
    """Tells the voices of passages apart."""

    def __init__(self, segmentation: Segmentation, embed: Embedder, device: torch.device) -> None:
        """Take the models, which are on `device`."""
        self._segmentation, self._embed, self._device = segmentation, embed, device

    @torch.inference_mode()
    def __call__(self, passage: Passage) -> tuple[Voice, ...]:
        """Return the voices of a passage, window by window."""
        length, voices = len(passage.pcm), []
        count = 1 + max(0, -(-(length - WINDOW) // STRIDE))
        for first in range(0, count, TOGETHER):
            middles = [_middle(number, count, length) for number in range(first, min(first + TOGETHER, count))]
            heard = [one for one in self._heard(passage.pcm, first, middles) if len(one.features) >= LEAST]
            for one, vector in zip(heard, self._vectors(heard), strict=True):
                spans = tuple(Span(passage.start + span.start, passage.start + span.end) for span in one.spans)
                voices.append(Voice(one.window, spans, one.alone, vector))
        return tuple(voices)

    def _heard(self, pcm: Pcm, first: int, middles: list[Span]) -> Iterator[_Heard]:
        """Yield the speakers of windows, the `first` of which has this number. Each speaks for its middle."""
        begin, length = first * STRIDE, (len(middles) - 1) * STRIDE + WINDOW
        audio = torch.from_numpy(pcm[begin : begin + length].astype(np.float32) / 32768).to(self._device)
        windows = F.pad(audio, (0, length - len(audio))).unfold(0, WINDOW, STRIDE)
        for place, (speaking, middle) in enumerate(zip(self._segmentation(windows).cpu(), middles, strict=True)):
            mel = fbank(audio[place * STRIDE :][:WINDOW])
            yield from _speakers(first + place, speaking.bool(), middle, mel)

    def _vectors(self, heard: list[_Heard]) -> list[tuple[float, ...]]:
        """Return what each voice sounds like: those that are filled up to the same length go through as one batch."""
        alike: dict[int, list[int]] = defaultdict(list)
        for index, one in enumerate(heard):
            alike[-(-len(one.features) // UNIT) * UNIT].append(index)
        found: dict[int, tuple[float, ...]] = {}
        for length, indices in alike.items():
            batch = torch.stack([_filled(heard[index].features, length) for index in indices])
            vectors = F.normalize(self._embed(batch)).cpu()
            found |= {index: tuple(vector.tolist()) for index, vector in zip(indices, vectors, strict=True)}
        return [found[index] for index in range(len(heard))]


def _middle(number: int, count: int, length: int) -> Span:
    """Return the stretch of a passage that its window of this number speaks for."""
    start = number * STRIDE + (STRIDE // 2 if number else 0)
    return Span(start, min(length, (number + 1) * STRIDE + STRIDE // 2) if number < count - 1 else length)


def _speakers(window: int, speaking: Tensor, middle: Span, mel: Tensor) -> Iterator[_Heard]:
    """Yield those who speak in the `middle` of a window. `speaking`: [frames of the segmentation, SPEAKERS]."""
    frames = torch.arange(len(mel))
    places = ((frames * HOP + FRAME // 2 - FIRST) / STEP).round().long().clamp(0, len(speaking) - 1)
    crowd = speaking.sum(1)
    for speaker in range(SPEAKERS):
        spans = tuple(_spans(speaking[:, speaker], middle, window * STRIDE))
        if not spans:
            continue
        mine = frames[(speaking[:, speaker] & (crowd == 1))[places]]
        told = mine if len(mine) >= LEAST else frames[speaking[places, speaker]]
        yield _Heard(window, spans, len(mine) * HOP, mel[_most(told).to(mel.device)])


def _spans(active: Tensor, middle: Span, offset: int) -> Iterator[Span]:
    """Yield the stretches of the `middle` in which a speaker is active; the window begins at `offset`."""
    turns = torch.diff(active.int(), prepend=torch.zeros(1), append=torch.zeros(1)).nonzero()[:, 0].tolist()
    for first, last in zip(turns[::2], turns[1::2], strict=True):
        start = 0 if first == 0 else first * STEP + FIRST - STEP // 2
        end = WINDOW if last == len(active) else last * STEP + FIRST - STEP // 2
        start, end = max(offset + start, middle.start), min(offset + end, middle.end)
        if end > start:
            yield Span(start, end)


def _most(frames: Tensor) -> Tensor:
    """Return at most MOST of the frames: those closest to the middle of the window, in order."""
    distance = (frames * HOP - WINDOW // 2).abs()
    return frames[distance.argsort(stable=True)[:MOST].sort().values]


def _filled(features: Tensor, length: int) -> Tensor:
    """Return the features without their mean, begun anew as often as it takes to fill `length`."""
    return (features - features.mean(0)).repeat(-(-length // len(features)), 1)[:length]
