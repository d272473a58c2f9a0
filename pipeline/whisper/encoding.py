"""Mel windows -> what decoding needs of the audio: cross keys and values, languages, and whether somebody speaks.

On a CPU windows are encoded one at a time (its caches hold one), in threads beside the decoding one; on a GPU many at
once. Knows the network and where the special tokens lie, nothing of passages and batches.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.whisper.device import settle_thread
from pipeline.whisper.model import Feed, Whisper
from pipeline.whisper.tokens import Layout


@dataclass(frozen=True)
class Encoded:
    """One window's audio."""

    audio: Tensor  # cross keys and values [L, 2, H, A, E]
    languages: list[float]  # posterior; [1.0] for English-only models
    speech: float  # one less the no-speech probability


class Encoders:
    """Takes windows and encodes them, in `threads` of their own or, with none, in the caller's when `flush` says so."""

    def __init__(self, model: Whisper, layout: Layout, threads: int) -> None:
        self.model, self.layout = model, layout
        self._pending: list[tuple[Tensor, Future[Encoded]]] = []
        self._pool = ThreadPoolExecutor(threads, "encoder", settle_thread, (1,)) if threads else None

    def submit(self, mel: Tensor) -> Future[Encoded]:
        """Take a window, mel [bands, 3000], or less for the cheap look."""
        if self._pool:
            return self._pool.submit(lambda: self.encode(mel[None])[0])
        future: Future[Encoded] = Future()
        self._pending.append((mel, future))
        return future

    def flush(self) -> None:
        """Encode what waits in the caller's thread."""
        while self._pending:
            shape = self._pending[0][0].shape
            same = [one for one in self._pending if one[0].shape == shape]
            others = [one for one in self._pending if one[0].shape != shape]
            batch, self._pending = same[: self.model.batch], same[self.model.batch :] + others
            encoded = self.encode(torch.stack([mel for mel, _ in batch]))
            for (_, future), one in zip(batch, encoded, strict=True):
                future.set_result(one)

    def forget(self) -> None:
        """Drop what waits for `flush`."""
        self._pending.clear()

    @torch.inference_mode()
    def encode(self, mel: Tensor) -> list[Encoded]:
        """Encode windows [N, bands, 3000], and let the decoder take its first step on them."""
        kv = self.model.decoder.audio(self.model.encoder(mel.to(self.model.dtype)))  # [L, 2, N, H, A, E]
        layout = self.layout
        sot = torch.full((len(mel), 1), layout.sot, device=mel.device)
        cache = self.model.new_cache(len(mel), 1)
        (hidden,) = self.model.decoder([Feed(sot, torch.zeros_like(sot), cache, kv, reach=1)])
        logits = self.model.decoder.logits(hidden[:, 0])  # [N, vocabulary]
        speech = 1 - logits.softmax(1)[:, layout.no_speech]
        languages = logits[:, layout.first_language : layout.first_language + layout.languages].softmax(1)
        posteriors = languages.tolist() if layout.multilingual else [[1.0]] * len(mel)
        each = zip(kv.unbind(2), posteriors, speech.tolist(), strict=True)
        return [Encoded(audio, posterior, probability) for audio, posterior, probability in each]


def kept(audio: Tensor) -> Future[Encoded]:
    """Return the encoding of a window that has been decoded before, and whose language is settled."""
    future: Future[Encoded] = Future()
    future.set_result(Encoded(audio, [], 0.0))
    return future
