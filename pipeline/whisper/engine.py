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
from concurrent.futures import wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Final

import torch
from torch import Tensor

from pipeline.types import SAMPLE_RATE, Look, Passage, Transcript
from pipeline.whisper import memory
from pipeline.whisper.alignment import Spoken, align
from pipeline.whisper.device import onto, resolve, settle_thread
from pipeline.whisper.encoding import Encoded, Encoders, kept
from pipeline.whisper.evidence import CLAIMS, Claim, silence, weigh
from pipeline.whisper.languages import LanguagePool
from pipeline.whisper.locate import locate
from pipeline.whisper.loops import hopeless
from pipeline.whisper.mel import HOP, WINDOW_FRAMES, log_mel
from pipeline.whisper.model import TEXT_POSITIONS
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.padding import STRIDE
from pipeline.whisper.quantise import coarse
from pipeline.whisper.reels import Reel, Window
from pipeline.whisper.rules import Rules
from pipeline.whisper.screening import Screener
from pipeline.whisper.search import Beam, Draw, Greedy, Sampling, Search, likeliest
from pipeline.whisper.seek import SECONDS_PER_TIMESTAMP
from pipeline.whisper.slots import MAX_NEW_TOKENS, Order, Slots
from pipeline.whisper.steps import Steps
from pipeline.whisper.weights import load
from pipeline.whisper.words import UNTIMED, Timed, split, timings

LOOK = 16  # tokens of a line between two looks at whether it has become a loop
MAX_CONTEXT = TEXT_POSITIONS // 2 - 1  # tokens before the start of transcript


@dataclass(frozen=True)
class Lane:
    """Slots, and the windows that wait for them."""

    slots: Slots[Window]
    waiting: deque[Window] = field(default_factory=deque)


class WhisperEngine:
    """`pipeline.types.Engine`, in torch, on a CPU or a GPU."""

    def __init__(self, options: WhisperOptions) -> None:
        """Load the model; UserError when it cannot be had."""
        self.device, dtype = resolve(options)
        threads = options.threads or os.cpu_count() or 1
        self.model, self.tokens = load(locate(options.model), dtype, self.device)
        self.weigher = coarse(self.model) if dtype == "int8" else self.model
        # On a CPU half of the threads decode, and the others encode the next windows meanwhile.
        self.threads = max(1, threads // 2)
        encoding = threads - self.threads if self.device.type == "cpu" else 0
        # int8 is the quick format, float32 the exact one. On a GPU windows are encoded in batches, all of one shape.
        self.encoders = Encoders(self.model, self.tokens.layout, encoding, grain=STRIDE if dtype == "int8" else 0)
        self.cores = threads
        self.prepare(options)

    def prepare(self, options: WhisperOptions) -> None:
        """Take other options on the weights that are loaded; model, device, number format and threads stay."""
        self.options = options = _as_the_reference(options) if options.reference else options
        first = round(options.max_initial_timestamp_s / SECONDS_PER_TIMESTAMP)
        self.rules = Rules(
            self.tokens,
            self.device,
            suppress=options.suppress_tokens,
            max_initial_timestamp=first,
            timestamps=options.timestamps,
        )
        self.prefix = self.tokens.prefix(options.prefix)
        self.slots = options.slots or memory.slots(self.model, self.options)

    @cached_property
    def silence(self) -> Tensor:
        """What texts are weighed against: computed when the first is."""
        return silence(self.model)

    @torch.inference_mode()
    def transcribe(self, passages: Iterable[Passage | None]) -> Iterator[Transcript | None]:
        """Answer each passage once, in any order; see `pipeline.types.Engine`. Yields None after each step."""
        settle_thread(self.threads, self.device)
        source = iter(passages)
        lanes = self._fitting_lanes()
        steps = Steps(self.model, [lane.slots for lane in lanes])
        beginning: deque[Passage] = deque()
        going_on: deque[Reel] = deque()
        accepted: list[Window] = []
        more = True
        while more or beginning or going_on or accepted or any(lane.waiting or lane.slots.busy for lane in lanes):
            first, again = lanes
            more = more and self._take(source, lanes, beginning, len(going_on))
            timed = None
            try:
                while beginning:  # each stays where it is until the memory has had room for its next step
                    going_on.append(self._reel(beginning[0]))
                    beginning.popleft()
                while going_on:
                    yield from self._next_window(going_on[0], first.waiting)
                    going_on.popleft()
                self._decode(first, again, steps, accepted)
                self._weigh(accepted, first)
                timed = self._timed(accepted, first.slots.busy + again.slots.busy)
            except torch.OutOfMemoryError:
                if self.slots == 1:
                    raise
            if timed is None:  # not while the error is handled: it holds on to the memory of what it came from
                windows = [[*lane.slots.jobs, *lane.waiting] for lane in lanes]
                del lanes, first, again, steps
                lanes = self._with_half_the_slots(windows)
                steps = Steps(self.model, [lane.slots for lane in lanes])
                continue
            for window, words in timed:
                accepted.remove(window)
                window.conclude(self.tokens, self.options, words)
                going_on.append(window.reel)
            yield None

    def screen(self, passages: Iterable[Passage | None]) -> Iterator[Look | None]:
        """Look at each passage without decoding it; see `pipeline.types.Engine`."""
        settle_thread(1, self.device)
        encoding = self.cores if self.device.type == "cpu" else 0
        yield from Screener(self.model, self.tokens, encoding).screen(passages)

    @property
    def batch(self) -> int:
        """Windows that are encoded at once."""
        return memory.batch(self.model, self.slots)

    @property
    def ahead(self) -> int:
        """Windows that are encoded, or wait for it, while all slots are taken."""
        return memory.ahead(self.model, self.slots, threaded=self.encoders.threaded)

    def _take(
        self, source: Iterator[Passage | None], lanes: tuple[Lane, Lane], beginning: deque[Passage], others: int
    ) -> bool:
        """Let passages join those that are `beginning`, beside `others` that go on; return whether more may come.

        None is taken while many windows wait for another try, with their encoded audio.
        """
        first, again = lanes
        most = first.slots.free + self.ahead - len(first.waiting) - others
        while len(beginning) < most and len(again.waiting) < again.slots.capacity:
            passage = next(source, _END)
            if not isinstance(passage, Passage):
                return passage is None
            beginning.append(passage)
        return True

    def _fitting_lanes(self) -> tuple[Lane, Lane]:
        """Return lanes of as many slots as the memory turns out to have room for."""
        while True:
            try:
                return self._lanes()
            except torch.OutOfMemoryError:
                if self.slots == 1:
                    raise
            self.slots //= 2
            torch.cuda.empty_cache()

    def _lanes(self) -> tuple[Lane, Lane]:
        """Return the lane of first attempts and the one of further ones, which are sampled."""
        options = self.options
        few = max(1, self.slots // memory.lane_ratio(self.model))
        first = self._lane(2 * few if options.beam > 1 else self.slots, sampling=options.temperatures[0] > 0)
        return first, self._lane(few, sampling=True)

    def _lane(self, capacity: int, *, sampling: bool) -> Lane:
        options, eot = self.options, self.tokens.layout.eot
        search: Search
        if sampling:
            search = Sampling(options.best_of, capacity, eot, MAX_NEW_TOKENS, self.device)
        elif options.beam > 1:
            search = Beam(options.beam, options.patience, capacity, eot, MAX_NEW_TOKENS, self.device)
        else:
            search = Greedy(eot)
        return Lane(Slots(self.model, self.rules, search, capacity, hears=self.options.evidence))

    def _with_half_the_slots(self, windows: list[list[Window]]) -> tuple[Lane, Lane]:
        """Return lanes where each lane's `windows` wait; what was being decoded begins its attempt anew."""
        self.slots //= 2
        self.encoders.forget()
        for window in chain.from_iterable(windows):
            window.encoding = None
        torch.cuda.empty_cache()
        lanes = self._fitting_lanes()
        for lane, mine in zip(lanes, windows, strict=True):
            for window in mine:
                window.encoding = self.encoders.submit(window.mel, window.frames)
                lane.waiting.append(window)
        return lanes

    def _reel(self, passage: Passage) -> Reel:
        pcm = onto(self.device, torch.from_numpy(passage.pcm.copy()))
        mel = log_mel(pcm, self.model.dims.mel_bands)
        codes, language = self.tokens.language_codes, passage.language
        if self.options.reference and language is None:
            (first,) = self.encoders.encode(mel[None, :, :WINDOW_FRAMES])
            language = codes[max(range(len(codes)), key=first.languages.__getitem__)]
        prompt = passage.initial_prompt or self.options.initial_prompt
        context = self.tokens.encode(" " + prompt.strip()) if prompt else []
        last_speech = passage.start / SAMPLE_RATE
        pool = LanguagePool(codes, language)
        return Reel(passage, mel, len(passage.pcm) // HOP, pool, context=context, last_speech=last_speech)

    def _next_window(self, reel: Reel, waiting: deque[Window]) -> Iterator[Transcript]:
        """Put the reel's next window into the queue, or yield its transcript when there is none."""
        if reel.advance(self.options.jump_s):
            window = Window.next(reel)
            window.encoding = self.encoders.submit(window.mel, window.frames)
            waiting.append(window)
        else:
            yield reel.transcript()

    def _decode(self, first: Lane, again: Lane, steps: Steps, accepted: list[Window]) -> None:
        """Go on in both lanes; windows whose result stands join `accepted`."""
        busy = first.slots.busy + again.slots.busy
        self._encode(first, busy)
        for lane in (first, again):
            self._admit(lane, at_once=not busy)
            lane.slots.look()
        steps.take()
        for lane in (first, again):
            if not self.options.reference:
                lane.slots.give_up(self._hopeless, LOOK, steps.stride)
            for window, stands in self._ended(lane.slots):
                (accepted if stands else again.waiting).append(window)

    def _hopeless(self, tokens: list[int], room: int) -> bool:
        return hopeless(self.tokens.decode(tokens).strip(), len(tokens), room, self.options.compression_ratio_threshold)

    def _encode(self, lane: Lane, busy: int) -> None:
        """Let new windows be encoded.

        In this thread, in whole batches unless slots would stand idle. Where threads do it beside, wait until no more
        windows are being encoded than decoded: a step costs much the same for one or for ten.
        """
        coming = [window.encoding for window in lane.waiting if window.encoding and not window.encoding.done()]
        encoded, batch = len(lane.waiting) - len(coming), self.batch
        while (left := self.encoders.waiting) and encoded < self.ahead:
            if left < batch and encoded >= lane.slots.free:
                break
            encoded += self.encoders.encode_some(batch)
        if self.encoders.threaded and len(coming) > busy + encoded:
            wait(coming[: (len(coming) - busy - encoded + 1) // 2])

    def _admit(self, lane: Lane, *, at_once: bool) -> None:
        """Give the lane what is encoded and fits, the oldest first; `at_once` also what must be waited for."""
        waiting = lane.waiting
        orders: list[Order[Window]] = []
        while waiting and (encoding := waiting[0].encoding) and encoding.done() and len(orders) < lane.slots.free:
            if at_once:
                encoding.result().scores.read()
            elif not encoding.result().there:
                break
            orders.append(self._order(waiting.popleft(), encoding.result(), lane.slots.width))
        if orders:
            lane.slots.admit(orders)

    def _ended(self, slots: Slots[Window]) -> Iterator[tuple[Window, bool]]:
        """Free the slots that have ended; yield their windows, and whether their result stands."""
        for slot in slots.ended():
            window = slots.jobs[slot]
            encoding = kept(*slots.audio(slot))  # first, since it may be too much for the memory
            best = likeliest(slots.candidates(slot), self.options.length_penalty)
            stands = window.judge(best, slots.no_speech_prob(slot), self.tokens, self.options)
            if not stands or (window.says and self._listens_again(window)):
                window.encoding = encoding
            slots.release(slot)
            yield window, stands

    def _weigh(self, accepted: list[Window], lane: Lane) -> None:
        """Weigh the texts that stand against silence, where that is not done yet.

        A few are gathered, as long as many others are being decoded; on a CPU more while other windows are waiting:
        then it matters less that a passage's next window comes late. A GPU would have to keep more audio meanwhile.
        """
        claims = [window for window in accepted if self._unweighed(window)]
        part = 4 if lane.waiting and self.device.type == "cpu" else 16
        if len(claims) < max(1, min(CLAIMS, lane.slots.busy // part)):
            return
        found = weigh(self.weigher, [self._claim(window) for window in claims], self.silence)
        for window, weighed in zip(claims, found, strict=True):
            window.weighed = weighed

    def _unweighed(self, window: Window) -> bool:
        return self.options.evidence and not window.weighed and bool(window.text(self.tokens, self.options))

    def _listens_again(self, window: Window) -> bool:
        """Say whether the audio of a window whose text stands is still needed."""
        return self.options.words or (self.options.evidence and bool(self._before(window)))

    def _claim(self, window: Window) -> Claim:
        # Without context: a text that only goes on with what was said before has no evidence of its own. Where it was
        # decoded without, it is known how likely the audio makes it.
        prompt, eot = self._prompt(window, [])[0], self.tokens.layout.eot
        if self._before(window):
            assert window.encoding is not None
            return Claim(prompt, window.says, eot, audio=window.encoding.result().audio)
        assert window.chosen is not None
        line = window.chosen.candidate
        heard = [logprob for token, logprob in zip(line.tokens, line.heard, strict=True) if token < eot]
        return Claim(prompt, line.tokens, eot, heard=heard)

    def _timed(self, accepted: list[Window], busy: int) -> list[tuple[Window, Timed]]:
        """Return the windows that can be written down now, with the times of their words if they are asked for.

        For these a few windows are gathered, as long as more others are being decoded: one pass serves them all.
        """
        ready = [window for window in accepted if not busy or self._settled(window)]
        if not self.options.words:
            return [(window, UNTIMED) for window in ready]
        if len(ready) < busy // 4:
            return []
        texts = {i: text for i, window in enumerate(ready) if (text := window.text(self.tokens, self.options))}
        aligned = align(self.model, [self._spoken(ready[i], text) for i, text in texts.items()]) if texts else []
        timed = {
            i: timings(split(self.tokens, text, ready[i].language), alignment)
            for (i, text), alignment in zip(texts.items(), aligned, strict=True)
        }
        return [(window, timed.get(i, UNTIMED)) for i, window in enumerate(ready)]

    def _settled(self, window: Window) -> bool:
        """Say whether what a window's text weighs is known, if that is asked for."""
        return window.weighed.there if window.weighed else not self._unweighed(window)

    def _spoken(self, window: Window, text: list[int]) -> Spoken:
        assert window.encoding is not None
        start, _ = self.tokens.prompt(window.language, self.options.task, [], timestamps=False)
        return Spoken(start, text, self.tokens.layout.eot, window.encoding.result().audio, window.frames)

    def _order(self, window: Window, encoded: Encoded, width: int) -> Order[Window]:
        window.encoding = None
        if not window.language:
            window.language, probability = window.reel.language.add(encoded.languages, weight=encoded.speech)
            window.language_probability = probability if self.tokens.layout.multilingual else None
            window.languages = window.reel.language.guesses(encoded.languages)
        prompt, sot = self._prompt(window, self._before(window))
        recording, temperature = window.reel.passage.recording_id, self.options.temperatures[len(window.tries)]
        seeds = tuple(_seed(recording, window.origin, temperature, i) for i in range(width))
        audio, thinned = encoded.quickest
        return Order(window, prompt, sot, audio, Draw(temperature, seeds), thinned)

    def _before(self, window: Window) -> list[int]:
        """Return what stands before the window's start of transcript: at most 223 tokens."""
        options = self.options
        hot = self.tokens.encode(" " + options.hotwords.strip())[:MAX_CONTEXT] if options.hotwords else []
        room = MAX_CONTEXT - len(hot)
        return hot + (window.reel.context[-room:] if room else [])

    def _prompt(self, window: Window, before: list[int]) -> tuple[list[int], int]:
        """Return the window's prompt and the place of start of transcript in it."""
        options = self.options
        prompt, sot = self.tokens.prompt(window.language, options.task, before, timestamps=options.timestamps)
        return prompt + self.prefix, sot


def _as_the_reference(options: WhisperOptions) -> WhisperOptions:
    """Return the options with what `reference` implies for the engine."""
    return replace(options, context="passage", exhausted="last", jump_s=math.inf)


def _seed(recording_id: str, start: int, temperature: float, candidate: int) -> int:
    """Return the seed of a candidate: a function of where it stands, not of when or beside whom it is decoded."""
    name = f"{recording_id} {start} {temperature} {candidate}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


_END: Final = object()
