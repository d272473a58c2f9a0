"""Mel windows -> what decoding needs of the audio: cross keys and values, languages, and whether somebody speaks.

On a CPU windows are encoded one at a time (its caches hold one), in threads beside the decoding one; on a GPU many at
once. Knows the network and where the special tokens lie, nothing of passages and batches.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.whisper.device import Arriving, settle_thread
from pipeline.whisper.model import Feed, Whisper
from pipeline.whisper.padding import FEW_POSITIONS, Thinned
from pipeline.whisper.tokens import Layout

CPU = torch.device("cpu")
NOTHING = Arriving(torch.empty(0, 0))


@dataclass(frozen=True)
class Encoded:
    """One window's audio."""

    kv: Tensor  # cross keys and values [L, 2, H, A', E]
    thinned: Thinned | None  # how its padding is
    scores: Arriving  # of its batch: [N, 1 + languages]
    row: int  # its own in them

    @property
    def audio(self) -> Tensor:
        """Cross keys and values of all positions, [L, 2, H, A, E]."""
        return self.thinned.spread(self.kv) if self.thinned else self.kv

    @property
    def quickest(self) -> tuple[Tensor, Thinned | None]:
        """Cross keys and values as steps take the least time with them, [L, 2, H, A', E], and how these are thinned."""
        many = self.thinned and self.thinned.positions > FEW_POSITIONS
        return (self.audio, None) if many else (self.kv, self.thinned)

    @property
    def there(self) -> bool:
        """Whether it can be read without waiting."""
        return self.scores.there

    @property
    def speech(self) -> float:
        """One less the no-speech probability."""
        return float(self.scores.read()[self.row, 0])

    @property
    def languages(self) -> list[float]:
        """The posterior; [1.0] for English-only models."""
        return self.scores.read()[self.row, 1:].tolist()


class Encoders:
    """Takes windows and encodes them, in `threads` of their own or, with none, in the caller's, when it says so."""

    def __init__(self, model: Whisper, layout: Layout, threads: int, *, grain: int = 0) -> None:
        """`grain`: see `Thinned.behind`; 0 encodes all padding."""
        self.model, self.layout = model, layout
        self._grain = grain
        self._pending: list[tuple[Tensor, Thinned | None, Future[Encoded]]] = []
        self._pool = ThreadPoolExecutor(threads, "encoder", settle_thread, (1, CPU)) if threads else None
        # Encoding is bound by arithmetic, decoding by reading memory: beside each other they take less time.
        self._stream = _new_stream(model.device) if model.device.type == "cuda" else None

    def submit(self, mel: Tensor, frames: int) -> Future[Encoded]:
        """Take a window, mel [bands, 3000], whose audio is so many frames long."""
        thinned = Thinned.behind(frames, self._grain) if self._grain else None
        if self._pool:
            return self._pool.submit(lambda: self.encode(mel[None], thinned)[0])
        future: Future[Encoded] = Future()
        self._pending.append((mel, thinned, future))
        return future

    @property
    def threaded(self) -> bool:
        """Whether threads of their own encode, so that nothing waits for `encode_some`."""
        return self._pool is not None

    @property
    def waiting(self) -> int:
        """Windows that wait for `encode_some`."""
        return len(self._pending)

    def encode_some(self, most: int) -> int:
        """Encode the oldest of what waits and others that are padded alike, in the caller's thread; return how many.

        The oldest comes first, and the others stay in order: who waits for one window must not starve behind others.
        """
        _, thinned, _ = self._pending[0]
        batch = [one for one in self._pending if one[1] == thinned][:most]
        encoded = self._in_other_queue(torch.stack([mel for mel, _, _ in batch]), thinned)
        for (_, _, future), one in zip(batch, encoded, strict=True):
            future.set_result(one)
        self._pending = [one for one in self._pending if not one[2].done()]
        return len(batch)

    def _in_other_queue(self, mel: Tensor, thinned: Thinned | None) -> list[Encoded]:
        """Encode in the GPU's other queue. What is `there` may be used in the caller's."""
        if self._stream is None:
            return self.encode(mel, thinned)
        callers = torch.cuda.current_stream()
        self._stream.wait_stream(callers)
        mel.record_stream(self._stream)
        with torch.cuda.stream(self._stream):
            encoded = self.encode(mel, thinned)
        encoded[0].kv.record_stream(callers)  # a view: of all of them
        return encoded

    def forget(self) -> None:
        """Drop what waits."""
        self._pending.clear()

    @torch.inference_mode()
    def encode(self, mel: Tensor, thinned: Thinned | None = None) -> list[Encoded]:
        """Encode windows [N, bands, 3000], all padded alike, and let the decoder take its first step on them."""
        kv = self.model.decoder.audio(self.model.encoder(mel.to(self.model.dtype), thinned))  # [L, 2, N, H, A', E]
        layout = self.layout
        sot = torch.full((len(mel), 1), layout.sot, device=mel.device)
        cache = self.model.new_cache(len(mel), 1)
        padding = ((slice(None), thinned),)
        (hidden,) = self.model.decoder([Feed(sot, torch.zeros_like(sot), cache, kv, reach=1, padding=padding)])
        logits = self.model.decoder.logits(hidden[:, 0])  # [N, vocabulary]
        speech = 1 - logits.softmax(1)[:, layout.no_speech, None]
        languages = logits[:, layout.first_language : layout.first_language + layout.languages].softmax(1)
        scores = Arriving(torch.cat([speech, languages if layout.multilingual else torch.ones_like(speech)], 1))
        return [Encoded(one, thinned, scores, row) for row, one in enumerate(kv.unbind(2))]


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def kept(kv: Tensor, thinned: Thinned | None) -> Future[Encoded]:
    """Return the encoding of a window that has been decoded before, and whose language is settled."""
    future: Future[Encoded] = Future()
    future.set_result(Encoded(kv, thinned, NOTHING, 0))
    return future
