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
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor

from pipeline.types import SAMPLE_RATE, Attempt, Passage, Segment, Transcript
from pipeline.whisper import mel as audio
from pipeline.whisper.device import resolve
from pipeline.whisper.encoding import Encoded, Encoders, kept
from pipeline.whisper.languages import Evidence
from pipeline.whisper.locate import locate
from pipeline.whisper.model import TEXT_POSITIONS
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.rules import Rules
from pipeline.whisper.search import Beam, Candidate, Draw, Greedy, Sampling, Search, likeliest
from pipeline.whisper.seek import FRAMES_PER_TIMESTAMP, SAMPLES_PER_TIMESTAMP, cut
from pipeline.whisper.slots import MAX_NEW_TOKENS, Order, Slots
from pipeline.whisper.tokens import compression_ratio
from pipeline.whisper.weights import load

MARGIN = SAMPLE_RATE // 2  # kept before speech when silence is skipped
SLIVER = SAMPLE_RATE // 4  # less speech than this behind the last timestamp is its own fading out
AHEAD = 2  # windows that are encoded while all slots are taken
MAX_CONTEXT = TEXT_POSITIONS // 2 - 1  # tokens before the start of transcript
CONTEXT_RESET_TEMPERATURE = 0.5  # text decoded above it is no context: it may be a loop or an invention


@dataclass
class Reel:
    """A passage on its way through the engine."""

    passage: Passage
    mel: Tensor  # [bands, frames + 3000]
    frames: int  # of content, 10 ms each
    language: Evidence
    seek: int = 0  # frame where the next window starts
    context: list[int] = field(default_factory=list)  # tokens before the next window; at first, of the initial prompt
    segments: list[Segment] = field(default_factory=list)


@dataclass(frozen=True)
class Try:
    """One decoding of a window, and how it scored."""

    chosen: Candidate
    no_speech_prob: float
    scores: Attempt


@dataclass
class Window:
    """One decoding window of a reel, until it is accepted."""

    reel: Reel
    start: int  # frame in the passage
    frames: int  # of content, at most 3000
    encoding: Future[Encoded] | None  # None while a slot holds its audio
    language: str = ""
    language_probability: float | None = None
    tries: list[Try] = field(default_factory=list)


class WhisperEngine:
    """`pipeline.types.Engine`, in torch, on a CPU or a GPU."""

    def __init__(self, options: WhisperOptions) -> None:
        """Load the model; UserError when it cannot be had."""
        self.device, dtype = resolve(options)
        threads = options.threads or os.cpu_count() or 1
        self.model, self.tokens = load(locate(options.model), dtype, self.device)
        # On a CPU half of the threads decode, and the others encode the next windows meanwhile.
        self.threads = max(1, threads // 2)
        encoding = threads - self.threads if self.device.type == "cpu" else 0
        self.encoders = Encoders(self.model, self.tokens.layout, encoding)
        self.prepare(options)

    def prepare(self, options: WhisperOptions) -> None:
        """Take other options on the weights that are loaded; model, device, number format and threads stay."""
        self.options = options = _as_the_reference(options) if options.reference else options
        first = round(options.max_initial_timestamp_s * audio.FRAMES_PER_SECOND / FRAMES_PER_TIMESTAMP)
        self.rules = Rules(
            self.tokens,
            self.device,
            suppress=options.suppress_tokens,
            max_initial_timestamp=first,
            timestamps=options.timestamps,
        )
        self.slots = options.slots or (16 if self.device.type == "cpu" else 128)

    @torch.inference_mode()
    def transcribe(self, passages: Iterable[Passage | None]) -> Iterator[Transcript | None]:
        """Answer each passage once, in any order; see `pipeline.types.Engine`. Yields None after each step."""
        if self.device.type == "cpu":  # Ray gives an actor without CPU tokens a single thread
            torch.set_num_threads(self.threads)
        source = iter(passages)
        few = max(1, self.slots // 4)  # windows with several candidates that are decoded at once
        first = self._lane(few if self.options.beam > 1 else self.slots, sampling=self.options.temperatures[0] > 0)
        again = self._lane(few, sampling=True)
        new: deque[Window] = deque()
        failed: deque[Window] = deque()
        more = True
        while more or new or failed or first.busy or again.busy:
            # No new passage while many windows wait for another try: each holds its encoded audio.
            while more and len(new) < first.free + AHEAD and len(failed) < few:
                passage = next(source, _END)
                if passage is None:
                    break
                more = passage is not _END
                if isinstance(passage, Passage):
                    yield from self._next_window(self._reel(passage), new)
            self._encode(new, first.busy + again.busy)
            for lane, waiting in ((first, new), (again, failed)):
                self._admit(lane, waiting)
                if lane.busy:
                    lane.step()
                for window, accepted in self._ended(lane):
                    if accepted:
                        yield from self._next_window(window.reel, new)
                    else:
                        failed.append(window)
            yield None

    def _lane(self, capacity: int, *, sampling: bool) -> Slots[Window]:
        options, eot = self.options, self.tokens.layout.eot
        search: Search
        if sampling:
            search = Sampling(options.best_of, capacity, eot, MAX_NEW_TOKENS, self.device)
        elif options.beam > 1:
            search = Beam(options.beam, options.patience, capacity, eot, MAX_NEW_TOKENS, self.device)
        else:
            search = Greedy(eot)
        return Slots(self.model, self.rules, search, capacity)

    def _reel(self, passage: Passage) -> Reel:
        pcm = torch.from_numpy(passage.pcm.copy()).to(self.device)
        mel = audio.log_mel(pcm, self.model.dims.mel_bands)
        codes = self.tokens.language_codes if self.tokens.layout.multilingual else ("en",)
        language = passage.language
        if self.options.reference and language is None:
            (first,) = self.encoders.encode(mel[None, :, : audio.WINDOW_FRAMES])
            language = codes[max(range(len(codes)), key=first.languages.__getitem__)]
        context = self.tokens.encode(" " + self.options.prompt.strip()) if self.options.prompt else []
        return Reel(passage, mel, len(passage.pcm) // audio.HOP, Evidence(codes, language), context=context)

    def _next_window(self, reel: Reel, waiting: deque[Window]) -> Iterator[Transcript]:
        """Put the reel's next window into the queue, or yield its transcript when there is none."""
        reel.seek = self._jump(reel)
        if reel.seek < reel.frames:
            frames = min(audio.WINDOW_FRAMES, reel.frames - reel.seek)
            encoding = self.encoders.submit(audio.window(reel.mel, reel.seek, frames))
            waiting.append(Window(reel, reel.seek, frames, encoding))
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

    def _encode(self, new: deque[Window], busy: int) -> None:
        """Wait until no more windows are being encoded than decoded: a step costs much the same for one or for ten."""
        self.encoders.flush()
        coming = [window.encoding for window in new if window.encoding and not window.encoding.done()]
        ready = busy + len(new) - len(coming)
        if len(coming) > ready:
            wait(coming[: (len(coming) - ready + 1) // 2])

    def _admit(self, lane: Slots[Window], waiting: deque[Window]) -> None:
        """Give the lane what is encoded and fits, the oldest first."""
        orders: list[Order[Window]] = []
        while waiting and (encoding := waiting[0].encoding) and encoding.done() and len(orders) < lane.free:
            orders.append(self._order(waiting.popleft(), encoding.result(), lane.width))
        if orders:
            lane.admit(orders)

    def _ended(self, lane: Slots[Window]) -> Iterator[tuple[Window, bool]]:
        """Free the slots that have ended; yield their windows, and whether they are accepted."""
        for slot in lane.ended():
            window = lane.jobs[slot]
            best = likeliest(lane.candidates(slot), self.options.length_penalty)
            accepted = self._judge(window, best, lane.no_speech_prob(slot))
            if not accepted:
                window.encoding = kept(lane.audio(slot))
            lane.release(slot)
            yield window, accepted

    def _order(self, window: Window, encoded: Encoded, width: int) -> Order[Window]:
        window.encoding = None
        if not window.tries:
            window.language, probability = window.reel.language.add(encoded.languages, weight=encoded.speech)
            window.language_probability = probability if self.tokens.layout.multilingual else None
        prompt, sot = self._prompt(window)
        passage = window.reel.passage
        start = passage.start + window.start * audio.HOP
        temperature = self.options.temperatures[len(window.tries)]
        seeds = tuple(_seed(passage.recording_id, start, temperature, i) for i in range(width))
        return Order(window, prompt, sot, encoded.audio, Draw(temperature, seeds))

    def _prompt(self, window: Window) -> tuple[list[int], int]:
        """Return the window's prompt and the place of start of transcript in it. At most 223 tokens stand before it."""
        options = self.options
        hot = self.tokens.encode(" " + options.hotwords.strip())[:MAX_CONTEXT] if options.hotwords else []
        room = MAX_CONTEXT - len(hot)
        before = hot + (window.reel.context[-room:] if room else [])
        prompt, sot = self.tokens.prompt(window.language, options.task, before, timestamps=options.timestamps)
        return prompt + (self.tokens.encode(" " + options.prefix.strip()) if options.prefix else []), sot

    def _judge(self, window: Window, best: Candidate, no_speech_prob: float) -> bool:
        """Accept a result and write its segments, or return False: the next temperature is to be tried."""
        options = self.options
        ratio = compression_ratio(self.tokens.decode(best.tokens).strip())
        scores = Attempt(options.temperatures[len(window.tries)], best.avg_logprob, ratio)
        window.tries.append(Try(best, no_speech_prob, scores))
        unlikely = best.avg_logprob < options.logprob_threshold
        looping = ratio > options.compression_ratio_threshold
        silent = unlikely and no_speech_prob > options.no_speech_threshold
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
        pieces, advance = cut(chosen.chosen.tokens, window.frames, self.tokens.layout)
        origin, limit = reel.passage.start + window.start * audio.HOP, reel.passage.span.end
        trusted = window.tries[-1].scores.temperature <= CONTEXT_RESET_TEMPERATURE
        keeps_context = trusted and self.options.context == "passage"
        if not keeps_context:
            reel.context = []
        for piece in pieces:
            text = self.tokens.decode(list(piece.tokens)).strip()
            # What starts in the padding behind the audio was not said: as empty as a segment without length.
            start, end = (min(origin + time * SAMPLES_PER_TIMESTAMP, limit) for time in (piece.start, piece.end))
            if not text or start == end:
                continue
            if keeps_context:
                reel.context += piece.tokens
            reel.segments.append(
                Segment(
                    start=start,
                    end=end,
                    text=text,
                    language=window.language,
                    language_probability=window.language_probability,
                    task=self.options.task,
                    avg_logprob=scores.avg_logprob,
                    compression_ratio=scores.compression_ratio,
                    no_speech_prob=chosen.no_speech_prob,
                    temperature=scores.temperature,
                    attempts=tuple(one.scores for one in window.tries),
                )
            )
        reel.seek = window.start + advance


def _as_the_reference(options: WhisperOptions) -> WhisperOptions:
    """Return the options with what `reference` implies for the engine."""
    return replace(options, context="passage", exhausted="last", jump_s=math.inf)


def _seed(recording_id: str, start: int, temperature: float, candidate: int) -> int:
    """Return the seed of a candidate: a function of where it stands, not of when or beside whom it is decoded."""
    name = f"{recording_id} {start} {temperature} {candidate}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


_END: Final = object()
