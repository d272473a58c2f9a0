"""The cheap look at passages: encoder and one step of the decoder, for the language and whether somebody speaks.

Padding is thinned, in every number format: what a look costs goes with the audio that is there.
Knows no text, no windows of decoding and no batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from operator import mul
from typing import Final

import torch
from torch import Tensor

from pipeline.types import Look, Passage
from pipeline.whisper.device import onto
from pipeline.whisper.encoding import Encoded, Encoders
from pipeline.whisper.mel import HOP, WINDOW_FRAMES, log_mel, window
from pipeline.whisper.model import Whisper
from pipeline.whisper.padding import STRIDE
from pipeline.whisper.tokens import Tokens

GPU_GRAIN = 30 * STRIDE  # positions, 4.8 s: few kinds of windows, so that batches are full
AT_ONCE = 32  # passages that are taken before the first is answered


class Screener:
    """Looks at passages with a model that is loaded; `threads` encode, beside the caller's own."""

    def __init__(self, model: Whisper, tokens: Tokens, threads: int) -> None:
        self._model, self._codes = model, tokens.language_codes
        grain = STRIDE if model.device.type == "cpu" else GPU_GRAIN
        self._encoders = Encoders(model, tokens.layout, threads, grain=grain)

    @torch.inference_mode()
    def screen(self, passages: Iterable[Passage | None]) -> Iterator[Look | None]:
        """See `pipeline.types.Engine`."""
        source = iter(passages)
        waiting: deque[tuple[Passage, list[Future[Encoded]]]] = deque()
        more = True
        while more or waiting:
            while more and len(waiting) < AT_ONCE:
                passage = next(source, _END)
                if passage is None:
                    break
                more = passage is not _END
                if isinstance(passage, Passage):
                    waiting.append((passage, [self._encoders.submit(*window) for window in self._windows(passage)]))
            while self._encoders.waiting:
                self._encoders.encode_some(self._model.batch)
            if waiting:
                yield self._look(*waiting.popleft())
            yield None

    def _windows(self, passage: Passage) -> Iterator[tuple[Tensor, int]]:
        """Yield the passage in windows: mel [bands, 3000], and how many of its frames are audio."""
        pcm = onto(self._model.device, torch.from_numpy(passage.pcm.copy()))
        mel = log_mel(pcm, self._model.dims.mel_bands)
        frames = max(1, len(pcm) // HOP)
        for start in range(0, frames, WINDOW_FRAMES):
            here = min(WINDOW_FRAMES, frames - start)
            yield window(mel, start, here), here

    def _look(self, passage: Passage, windows: list[Future[Encoded]]) -> Look:
        """Pool the windows: the languages of each count as far as somebody seems to speak there."""
        heard = [window.result() for window in windows]
        weights = [max(one.speech, 1e-9) for one in heard]
        posteriors = zip(*(one.languages for one in heard), strict=True)  # a language's in each window
        pooled = [sum(map(mul, weights, its)) / sum(weights) for its in posteriors]
        ranked = sorted(zip(self._codes, pooled, strict=True), key=lambda item: -item[1])
        no_speech = 1 - sum(one.speech for one in heard) / len(heard)
        speech = sum(map(len, passage.spans))
        return Look(passage.recording_id, passage.index, passage.span, speech, no_speech, tuple(ranked))


_END: Final = object()
