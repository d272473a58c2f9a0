"""Voice activity: blocks of PCM -> the same audio with the Spans of speech in it.

Duty: say where somebody speaks, in constant memory, in favour of recall: what is not found here is never transcribed.
The probabilities come from Silero VAD; this module makes spans of them. It does NOT know files, passages or engines.

Silero misses quiet speech (half of it at -50 dB), so each frame is raised to a steady level, and freed of a constant
offset, before the model hears it. The audio itself is handed on untouched.
The spans depend on the samples alone, never on how they come in blocks. More than 1,000 x real time on one core.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, UserError
from pipeline.speech_network import HINT, quickened
from pipeline.types import AT_LEAST_ONE, NOT_NEGATIVE, SAMPLE_RATE, SHARE, Heard, Pcm, Span, setting

Floats = NDArray[np.float32]

FRAME = 512  # samples; the model gives one probability for each
CONTEXT = 64  # samples of the frame before that the model hears again
STATE = (1, 1, 128)  # shape of each of the model's two recurrent states
GROUP = 128 * FRAME  # samples in one call of the model, 4.1 s: few calls, little memory
FULL_SCALE = 32_768
FLOOR = 1e-12  # power of a frame of zeros (-120 dB), so that it has a logarithm
DIP_FRAMES = 5  # 0.16 s: a span that is too long is split where the mean over so many frames is least


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """What counts as speech. The defaults favour recall: noise kept costs time, speech lost is lost."""

    threshold: float = setting(0.2, "speech begins at this probability", within=SHARE)
    end_threshold: float = setting(0.1, "speech ends below this probability", within=SHARE)
    min_speech_ms: int = setting(128, "shorter bursts are not speech", "ms", within=NOT_NEGATIVE)
    min_silence_ms: int = setting(
        500, "shorter pauses do not end a span (at least twice the pad)", "ms", within=NOT_NEGATIVE
    )
    pad_ms: int = setting(200, "kept on both sides of a span", "ms", within=NOT_NEGATIVE)
    max_span_s: float = setting(30.0, "longer spans are split where speech is least likely", "s", within=AT_LEAST_ONE)
    level_db: float = setting(-20.0, "quieter audio is raised to this level for the detector", "dB")
    max_gain_db: float = setting(50.0, "never raised by more than this; 0 switches it off", "dB", within=NOT_NEGATIVE)
    release_db_s: float = setting(10.0, "how fast the gain rises again after loud audio", "dB/s", within=NOT_NEGATIVE)
    threads: int = setting(1, "threads of the speech detector", rows=False, within=AT_LEAST_ONE)


def detect(blocks: Iterable[Pcm], options: SpeechOptions) -> Iterator[Heard]:
    """Yield the audio of `blocks` (int16 mono 16 kHz, of any sizes) with the speech found in it.

    The last Heard settles everything. A DataError of `blocks` is raised after it: what came before is all handed on.
    """
    probabilities = _Probabilities(options)
    segmenter = _Segmenter(options)
    total = 0

    def settled() -> Heard:
        return Heard(np.empty(0, np.int16), _clipped(segmenter.finish(), total), total)

    try:
        for pcm in _groups(blocks):
            total += len(pcm)
            spans = segmenter.feed(probabilities(pcm))
            yield Heard(pcm, _clipped(spans, total), min(segmenter.until, total))
    except DataError:
        yield settled()
        raise
    yield settled()


def _groups(blocks: Iterable[Pcm]) -> Iterator[Pcm]:
    """Yield the same audio in groups of GROUP samples; the last is shorter, and comes before an error of `blocks`."""
    held: list[Pcm] = []
    count = 0
    try:
        for block in blocks:
            held.append(block)
            count += len(block)
            if count >= GROUP:
                audio = np.concatenate(held)
                whole = count - count % GROUP
                yield from (audio[at : at + GROUP] for at in range(0, whole, GROUP))
                held, count = [audio[whole:].copy()], count - whole
    except DataError:
        if count:
            yield np.concatenate(held)
        raise
    if count:
        yield np.concatenate(held)


def _clipped(spans: Iterable[Span], total: int) -> tuple[Span, ...]:
    """Return the spans without what the padding and the last frame add beyond the end of the audio."""
    return tuple(Span(span.start, min(span.end, total)) for span in spans)


class _Probabilities:
    """The probability of speech for each frame of consecutive groups. Holds what the model remembers."""

    def __init__(self, options: SpeechOptions) -> None:
        self._session = load_session(options.threads)
        self._options = options
        self._hidden = np.zeros(STATE, np.float32)
        self._cell = np.zeros(STATE, np.float32)
        self._context = np.zeros(CONTEXT, np.float32)
        self._level = float(10 * np.log10(FLOOR))

    def __call__(self, pcm: Pcm) -> list[float]:
        """Return one probability a frame. Only the last group may be shorter than GROUP."""
        frames = -(-len(pcm) // FRAME)
        audio = np.zeros(CONTEXT + frames * FRAME, np.float32)
        audio[:CONTEXT] = self._context
        audio[CONTEXT : CONTEXT + len(pcm)] = pcm.astype(np.float32) / FULL_SCALE
        self._context = audio[-CONTEXT:]
        gain = self._gain(audio[CONTEXT:].reshape(frames, FRAME))
        windows = np.lib.stride_tricks.sliding_window_view(audio, CONTEXT + FRAME)[::FRAME]  # [frames, 576]
        windows = windows - windows.mean(axis=1, keepdims=True)  # or the gain would blow up a constant offset
        inputs = {"input": windows * gain[:, None], "h": self._hidden, "c": self._cell}
        odds, self._hidden, self._cell = self._session.run(["speech_probs", "hn", "cn"], inputs)
        return [float(value) for value in odds.reshape(-1)]

    def _gain(self, frames: Floats) -> Floats:
        """Return a factor for each frame: up to `level_db` by the loudest of late, which is forgotten slowly."""
        power = 10 * np.log10(np.var(frames, axis=1, dtype=np.float64) + FLOOR)  # dB [frames]
        slope = self._options.release_db_s * FRAME / SAMPLE_RATE * np.arange(1, len(power) + 1)
        level = np.maximum(np.maximum.accumulate(power + slope), self._level) - slope
        self._level = float(level[-1])
        raised = np.clip(self._options.level_db - level, 0, self._options.max_gain_db)
        gain: Floats = (10 ** (raised / 20)).astype(np.float32)
        return gain


class _Segmenter:
    """Probabilities of consecutive frames -> spans. Holds those of the open span, so of `max_span_s` and a pause."""

    def __init__(self, options: SpeechOptions) -> None:
        self._begin, self._end = options.threshold, options.end_threshold
        self._pad = options.pad_ms * SAMPLE_RATE // 1000
        self._min_speech = _frames(options.min_speech_ms)
        self._min_silence = max(1, _frames(max(options.min_silence_ms, 2 * options.pad_ms)))  # padded spans stay apart
        self._max_span = max(2 * DIP_FRAMES, _frames(options.max_span_s * 1000))
        self._frame = 0  # frames seen
        self._first: int | None = None  # first frame of the open span
        self._start = 0  # sample that the open span starts at
        self._quiet = 0  # frames since the open span last looked like speech
        self._split = False  # the open span goes on where another was split off
        self._odds: list[float] = []  # of the open span

    @property
    def until(self) -> int:
        """Return the sample before which every span is settled."""
        return max(0, self._frame * FRAME - self._pad) if self._first is None else self._start

    def feed(self, odds: Iterable[float]) -> list[Span]:
        """Take the next frames, return the spans that end with them."""
        return list(chain.from_iterable(self._step(value) for value in odds))

    def finish(self) -> list[Span]:
        """Return the span that the end of the audio closes."""
        return [] if self._first is None else self._close()

    def _step(self, odds: float) -> list[Span]:
        self._frame += 1
        if self._first is None:
            if odds >= self._begin:
                self._first = self._frame - 1
                self._start = max(0, self._first * FRAME - self._pad)
                self._odds = [odds]
            return []
        self._odds.append(odds)
        self._quiet = 0 if odds >= self._end else self._quiet + 1
        if self._quiet >= self._min_silence:
            return self._close()
        if len(self._odds) >= self._max_span and not self._quiet:  # a pause may yet end it
            return [self._split_off()]
        return []

    def _close(self) -> list[Span]:
        last = self._frame - self._quiet
        long_enough = self._split or len(self._odds) - self._quiet >= self._min_speech
        span = Span(self._start, last * FRAME + self._pad)
        self._first, self._quiet, self._split, self._odds = None, 0, False, []
        return [span] if long_enough else []

    def _split_off(self) -> Span:
        """Split the open span at the least likely moment of its later half."""
        assert self._first is not None
        half = len(self._odds) // 2
        means = np.convolve(self._odds[half:], np.full(DIP_FRAMES, 1 / DIP_FRAMES), mode="valid")
        dip = half + int(np.argmin(means)) + DIP_FRAMES // 2
        span = Span(self._start, (self._first + dip) * FRAME)
        self._first, self._start, self._split = self._first + dip, span.end, True
        del self._odds[:dip]
        return span


def _frames(milliseconds: float) -> int:
    return -int(-milliseconds * SAMPLE_RATE // (1000 * FRAME))


@lru_cache(maxsize=4)
def load_session(threads: int = 1) -> Any:
    """Return the model, loaded once a process. UserError: its file is not installed, or another."""
    import onnxruntime  # here, because commands that only need the options stay quick

    path = _model_file()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = quickened(path.read_bytes(), str(path))
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no other ancestor in common
        raise UserError(f"{path} cannot be loaded ({error})", HINT) from error


def _model_file() -> Path:
    """Return the ONNX file of the silero-vad wheel. The package is not imported: that would load torch."""
    package = importlib.util.find_spec("silero_vad")
    for folder in (package and package.submodule_search_locations) or []:
        path = Path(folder, "data", "silero_vad_16k_sequence.onnx")
        if path.is_file():
            return path
    raise UserError("the speech detector's model is not installed", "pip install 'silero-vad>=6.2.3,<7'")
