"""Passages -> transcripts: windows of many passages in one batch that is refilled as they end.

Knows the order of things: encode, detect the language, decode, judge, seek. How each is done stands in the modules
beside. A passage has at most one window in work; a window that fails its gates goes back to the queue for the next
temperature, its encoded audio kept.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from pipeline.types import SAMPLE_RATE, Attempt, Passage, Segment, Transcript
from pipeline.whisper import mel as audio
from pipeline.whisper.device import resolve
from pipeline.whisper.languages import Evidence
from pipeline.whisper.locate import locate
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.rules import Rules
from pipeline.whisper.seek import FRAMES_PER_TIMESTAMP, SAMPLES_PER_TIMESTAMP, cut
from pipeline.whisper.slots import Order, Result, Slots
from pipeline.whisper.tokens import compression_ratio
from pipeline.whisper.weights import load

MARGIN = SAMPLE_RATE // 2  # kept before speech when silence is skipped
SLIVER = SAMPLE_RATE // 4  # less speech than this behind the last timestamp is its own fading out
CONTEXT_RESET_TEMPERATURE = 0.5  # text decoded above it is no context: it may be a loop or an invention


@dataclass
class Reel:
    """A passage on its way through the engine."""

    passage: Passage
    mel: Tensor  # [bands, frames + 3000]
    frames: int  # of content, 10 ms each
    language: Evidence
    seek: int = 0  # frame where the next window starts
    context: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)


@dataclass(frozen=True)
class Try:
    """One decoding of a window, and how it scored."""

    result: Result
    scores: Attempt


@dataclass
class Window:
    """One decoding window of a reel, until it is accepted."""

    reel: Reel
    start: int  # frame in the passage
    frames: int  # of content, at most 3000
    audio: Tensor | None = None  # cross keys and values [L, 2, H, A, E]; None while a slot holds them
    language: str = ""
    language_probability: float | None = None
    tries: list[Try] = field(default_factory=list)


class WhisperEngine:
    """`pipeline.types.Engine`, in torch, on a CPU or a GPU."""

    def __init__(self, options: WhisperOptions) -> None:
        """Load the model; UserError when it cannot be had."""
        self.options = options
        self.device, dtype = resolve(options)
        if self.device.type == "cpu":  # Ray gives an actor without CPU tokens a single thread
            torch.set_num_threads(options.threads or os.cpu_count() or 1)
        self.model, self.tokens = load(locate(options.model), dtype, self.device)
        first = round(options.max_initial_timestamp_s * audio.FRAMES_PER_SECOND / FRAMES_PER_TIMESTAMP)
        self.rules = Rules(self.tokens, first, self.device)
        self.slots = options.slots or (16 if self.device.type == "cpu" else 128)

    @torch.inference_mode()
    def transcribe(self, passages: Iterable[Passage | None]) -> Iterator[Transcript | None]:
        """Answer each passage once, in any order; see `pipeline.types.Engine`. Yields None after each step."""
        source = iter(passages)
        greedy: Slots[Window] = Slots(self.model, self.rules, self.slots, 1, sampling=False)
        few = max(1, self.slots // 4)  # windows that are sampled at once, with `best_of` candidates each
        lanes = {False: greedy}
        waiting: dict[bool, deque[Window]] = {False: deque(), True: deque()}
        more = True
        while more or any(waiting.values()) or any(lane.busy for lane in lanes.values()):
            # No new passage while many windows wait for another try: each holds its encoded audio.
            while more and len(waiting[False]) < greedy.free and len(waiting[True]) < few:
                passage = next(source, _END)
                if passage is None:
                    break
                more = passage is not _END
                if isinstance(passage, Passage):
                    yield from self._next_window(self._reel(passage), waiting[False])
            if waiting[True] and True not in lanes:
                lanes[True] = Slots(self.model, self.rules, few, self.options.best_of, sampling=True)
            for sampling, lane in lanes.items():
                yield from self._fill(lane, waiting[sampling])
                if lane.busy:
                    lane.step()
                for slot in lane.ended():
                    window, result = lane.jobs[slot], lane.result(slot)
                    if self._judge(window, result):
                        lane.release(slot)
                        yield from self._next_window(window.reel, waiting[False])
                    else:
                        window.audio = lane.audio(slot)
                        lane.release(slot)
                        waiting[True].append(window)
            yield None

    def _reel(self, passage: Passage) -> Reel:
        pcm = torch.from_numpy(passage.pcm.copy()).to(self.device)
        spectrogram = audio.log_mel(pcm, self.model.dims.mel_bands)
        evidence = Evidence(
            self.tokens.language_codes if self.tokens.layout.multilingual else ("en",), passage.language
        )
        return Reel(passage, spectrogram, len(passage.pcm) // audio.HOP, evidence)

    def _next_window(self, reel: Reel, waiting: deque[Window]) -> Iterator[Transcript]:
        """Put the reel's next window into the queue, or yield its transcript when there is none."""
        reel.seek = self._jump(reel)
        if reel.seek < reel.frames:
            waiting.append(Window(reel, reel.seek, min(audio.WINDOW_FRAMES, reel.frames - reel.seek)))
            return
        passage = reel.passage
        language, probability = reel.language.verdict()
        yield Transcript(
            passage.recording_id,
            passage.index,
            passage.span,
            passage.spans,
            tuple(reel.segments),
            language,
            probability if self.tokens.layout.multilingual else None,
        )

    def _jump(self, reel: Reel) -> int:
        """Return where to go on: behind a long stretch without speech, at the end if no speech follows."""
        if math.isinf(self.options.jump_s):
            return reel.seek
        here = reel.passage.start + reel.seek * audio.HOP
        ahead = [span for span in reel.passage.spans if span.end > here + SLIVER]
        if not ahead:
            return reel.frames
        gap = ahead[0].start - here
        if gap <= self.options.jump_s * SAMPLE_RATE:
            return reel.seek
        return reel.seek + (gap - MARGIN) // audio.HOP

    def _fill(self, lane: Slots[Window], waiting: deque[Window]) -> Iterator[None]:
        """Encode what is new and admit what fits; yield after each encoding."""
        windows = [waiting.popleft() for _ in range(min(lane.free, len(waiting)))]
        for window in windows:
            if window.audio is None:
                self._encode(window)
                yield None
        if windows:
            lane.admit([self._order(window, lane.width) for window in windows])

    def _encode(self, window: Window) -> None:
        """Encode the window and choose its language by the decoder's first step."""
        mel = audio.window(window.reel.mel, window.start, window.frames).to(self.model.decoder.positions.dtype)
        kv = self.model.decoder.audio(self.model.encoder(mel[None]))  # [L, 2, 1, H, A, E]
        window.audio = kv[:, :, 0]
        layout = self.tokens.layout
        sot = torch.tensor([[layout.sot]], device=self.device)
        hidden = self.model.decoder(sot, torch.zeros_like(sot), self.model.new_cache(1, 1), kv, 1)
        logits = self.model.decoder.logits(hidden[:, 0])[0]
        speech = 1 - float(logits.softmax(0)[layout.no_speech])
        languages = logits[layout.first_language : layout.first_language + layout.languages]
        posterior = languages.softmax(0).tolist() if layout.multilingual else [1.0]
        window.language, probability = window.reel.language.add(posterior, weight=speech)
        window.language_probability = probability if layout.multilingual else None

    def _order(self, window: Window, width: int) -> Order[Window]:
        assert window.audio is not None
        context = window.reel.context if self.options.context == "passage" else []
        prompt, sot = self.tokens.prompt(window.language, self.options.task, context)
        temperature = self.options.temperatures[len(window.tries)]
        passage = window.reel.passage
        start = passage.start + window.start * audio.HOP
        seeds = tuple(_seed(passage.recording_id, start, temperature, i) for i in range(width))
        order = Order(window, prompt, sot, window.audio, temperature, seeds)
        window.audio = None
        return order

    def _judge(self, window: Window, result: Result) -> bool:
        """Accept a result and write its segments, or return False: the next temperature is to be tried."""
        options = self.options
        temperature = options.temperatures[len(window.tries)]
        ratio = compression_ratio(self.tokens.decode(result.tokens).strip())
        window.tries.append(Try(result, Attempt(temperature, result.avg_logprob, ratio)))
        unlikely = result.avg_logprob < options.logprob_threshold
        looping = ratio > options.compression_ratio_threshold
        silent = unlikely and result.no_speech_prob > options.no_speech_threshold
        failed = (unlikely or looping) and not silent
        if failed and len(window.tries) < len(options.temperatures):
            return False
        if silent:
            window.reel.seek = window.start + window.frames
        else:
            self._write(window, self._best(window.tries) if failed else window.tries[-1])
        return True

    def _best(self, tries: list[Try]) -> Try:
        """Choose among attempts that all failed: the likeliest that is no loop, as faster-whisper does, or the last."""
        if self.options.exhausted == "last":
            return tries[-1]
        limit = self.options.compression_ratio_threshold
        plain = [one for one in tries if one.scores.compression_ratio <= limit]
        return max(plain or tries, key=lambda one: one.scores.avg_logprob)

    def _write(self, window: Window, chosen: Try) -> None:
        """Add the window's segments to its reel and seek on."""
        reel, scores = window.reel, chosen.scores
        pieces, advance = cut(chosen.result.tokens, window.frames, self.tokens.layout)
        origin = reel.passage.start + window.start * audio.HOP
        trusted = window.tries[-1].scores.temperature <= CONTEXT_RESET_TEMPERATURE
        if not trusted:
            reel.context = []
        for piece in pieces:
            text = self.tokens.decode(list(piece.tokens)).strip()
            if not text or piece.start == piece.end:
                continue
            if trusted:
                reel.context += piece.tokens
            reel.segments.append(
                Segment(
                    start=origin + piece.start * SAMPLES_PER_TIMESTAMP,
                    end=min(origin + piece.end * SAMPLES_PER_TIMESTAMP, reel.passage.span.end),
                    text=text,
                    language=window.language,
                    language_probability=window.language_probability,
                    task=self.options.task,
                    avg_logprob=scores.avg_logprob,
                    compression_ratio=scores.compression_ratio,
                    no_speech_prob=chosen.result.no_speech_prob,
                    temperature=scores.temperature,
                    attempts=tuple(one.scores for one in window.tries),
                )
            )
        reel.seek = window.start + advance


def _seed(recording_id: str, start: int, temperature: float, candidate: int) -> int:
    """Return the seed of a candidate: a function of where it stands, not of when or beside whom it is decoded."""
    name = f"{recording_id} {start} {temperature} {candidate}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


_END: Final = object()
