"""The cheap look at a recording: a few stretches spread over it, where speech is in them, and what the engine hears.

    Recording --look--> Passage --Screen--> Look --> ledger

Duty: which stretches are decoded, which of them the model listens to, and what is left to say of the others. A short
recording is decoded whole, a long one is never read whole where container and store allow that. Knows no thresholds.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from pipeline import pieces, storage
from pipeline.decode import DecodeOptions
from pipeline.errors import DataError, DecodeError
from pipeline.ranges import Served
from pipeline.selection import Selection
from pipeline.speech import FRAME, FULL_SCALE, SpeechOptions, detect
from pipeline.stages import (
    SCREEN,
    Listening,
    Stage,
    Transcribe,
    best_selection,
    cut_tables,
    decoding,
    settled,
    within_reach,
)
from pipeline.types import AT_LEAST_ONE, SAMPLE_RATE, Media, Outcome, Passage, Pcm, Recording, Span, setting
from pipeline.whisper.options import WhisperOptions

WORTH = 2  # a recording this many times longer than all looks is looked at in stretches: each costs a start of ffmpeg


@dataclass(frozen=True)
class LookOptions:
    """How much of a recording is looked at."""

    looks: int = setting(
        10, "Stretches of a long recording that are decoded; one not much longer is decoded whole.", within=AT_LEAST_ONE
    )
    look_s: float = setting(
        10.0, "Length of such a stretch; the model takes at most 30 s at once.", "s", within=AT_LEAST_ONE
    )
    listen: int = setting(
        4, "Stretches with speech that the model listens to, at most; of each minute at most one.", within=AT_LEAST_ONE
    )
    silence_db: float = setting(-60.0, "Audio below this level is silence; above it, without speech, sound.", "dB")


@dataclass(frozen=True)
class LookingOptions:
    """All that steers the way from a recording to what the engine listens to."""

    look: LookOptions = field(default_factory=LookOptions)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    speech: SpeechOptions = field(default_factory=SpeechOptions)


def look_stage(options: LookingOptions, labels: Mapping[str, str] | None = None) -> Stage:
    """Recordings -> the stretches that the engine listens to, and closing rows."""
    one = partial(settled, partial(look, options=options), storage.configured())
    return Stage("look", partial(partial, cut_tables, one, name="look"), cpus=1, labels=labels or {})


def screen_stage(
    options: WhisperOptions, *, actors: tuple[int, int] = (1, 1), cpus: float = 0.0, gpus: float = 0.0
) -> Stage:
    """Stretches -> what the engine hears in them, by an engine that each actor loads once."""
    return Stage("screen", partial(Transcribe, options, task=SCREEN), cpus=cpus, gpus=gpus, actors=actors)


def look(recording: Recording, options: LookingOptions) -> Iterator[Passage | Outcome]:
    """Yield the stretches to listen to, then the Outcome: `duration` is what was decoded, the stated one in `media`."""
    yield from best_selection(partial(_look, recording, options))


def _look(recording: Recording, options: LookingOptions, selection: Selection) -> Listening:
    audio = _Audio(recording, options, selection)
    stretches: list[_Stretch] = []
    failure = None
    try:
        for start, pcm in audio.stretches():
            stretches.append(_Stretch.of(start, pcm, options.speech))
    except DataError as error:  # what was decoded before it is kept
        failure = error.failure
    heard = _chosen(stretches, options.look.listen)
    for index, one in enumerate(heard):
        yield Passage(recording.id, index, one.span.start, one.pcm, one.speech, recording.language)
    return Outcome(
        recording,
        passages=len(heard),
        duration=sum(len(one.pcm) for one in stretches),
        speech=sum(len(span) for one in stretches for span in one.speech),
        speechless=tuple(one.span for one in stretches if one not in heard),
        media=replace(audio.media, selection=selection.name),
        failure=failure,
        sound=sum(one.sound(options.look.silence_db) for one in stretches),
    )


@dataclass(frozen=True, eq=False)
class _Stretch:
    """Audio that is looked at, and the speech in it, in samples of the recording."""

    span: Span
    pcm: Pcm
    speech: tuple[Span, ...]

    @classmethod
    def of(cls, start: int, pcm: Pcm, options: SpeechOptions) -> _Stretch:
        found = (span for heard in detect([pcm], options) for span in heard.spans)
        speech = tuple(Span(start + span.start, start + span.end) for span in found)
        return cls(Span(start, start + len(pcm)), pcm, speech)

    def sound(self, silence_db: float) -> int:
        """Count the samples outside of speech in frames that are not silent."""
        frames = self.pcm[: len(self.pcm) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float32) / FULL_SCALE
        loud = np.repeat(10 * np.log10(frames.var(axis=1) + 1e-12) > silence_db, FRAME)
        for span in self.speech:
            loud[span.start - self.span.start : span.end - self.span.start] = False
        return int(loud.sum())


def _chosen(stretches: Sequence[_Stretch], most: int) -> list[_Stretch]:
    """Choose what the model listens to: of each part of the recording the stretch with the most speech."""
    speaking = [one for one in stretches if one.speech]
    if not speaking:
        return []
    minutes = (stretches[-1].span.end - stretches[0].span.start) / SAMPLE_RATE / 60
    parts = np.array_split(np.arange(len(speaking)), min(most, len(speaking), 1 + int(minutes)))
    return [speaking[max(part, key=lambda at: sum(map(len, speaking[at].speech)))] for part in parts]


class _Audio:
    """A recording's audio, in stretches."""

    def __init__(self, recording: Recording, options: LookingOptions, selection: Selection) -> None:
        self._recording, self._selection = recording, selection
        self._look = options.look
        self._decode = replace(options.decode, block_s=options.look.look_s)
        self._remote: Served | None = None
        self.media, self._promised = Media(), False

    def stretches(self) -> Iterator[tuple[int, Pcm]]:
        """Yield audio with the sample that it starts at: the whole of a short recording, a spread of a long one.

        Where nothing lets us seek, or says how long it is, the start stands for the whole. A DataError comes after
        what could be decoded.
        """
        looked_s = self._look.looks * self._look.look_s
        with ExitStack() as stack:
            seeks = self._seeks(stack)
            at = 0
            with closing(self._blocks(None)) as blocks:
                for pcm in blocks:
                    length_s, promised = self._length_s(), self._promised
                    if not at and seeks and length_s > WORTH * looked_s:
                        break
                    yield at, pcm
                    at += len(pcm)
                    if at >= WORTH * looked_s * SAMPLE_RATE:
                        return
                else:
                    return
            yield from self._spread(length_s, promised)

    def _seeks(self, stack: ExitStack) -> bool:
        """Say whether ffmpeg can read the file back and forth: it is here, or served from its store by range."""
        if pieces.local_window(self._recording.location, self._recording.inside):
            return True
        self._remote = stack.enter_context(within_reach(self._recording))
        return self._remote is not None

    def _length_s(self) -> float:
        """Return how long the recording is, as far as its header says."""
        start_s, end = self._recording.start / SAMPLE_RATE, self._recording.end
        stated_s = self.media.stated_s or 0.0
        return (stated_s if end is None else min(stated_s, end / SAMPLE_RATE)) - start_s

    def _spread(self, length_s: float, promised: bool) -> Iterator[tuple[int, Pcm]]:
        """Yield a stretch of each equal part of the recording, at a place that its id draws.

        What is not there is missing only where the length was `promised`, and not a guess by the bitrate.
        """
        look, rng = self._look, random.Random(self._recording.id)
        part_s, came, errors = length_s / look.looks, 0, list[DecodeError]()
        for number in range(look.looks):
            start_s = number * part_s + rng.random() * (part_s - look.look_s)
            try:
                for pcm in self._blocks((self._recording.start / SAMPLE_RATE + start_s, look.look_s)):
                    came += 1
                    yield round(start_s * SAMPLE_RATE), pcm
            except DecodeError as error:
                if promised or error.kind != "empty":
                    errors.append(error)
        if errors or not came:
            cause = str(errors[0]) if errors else "no audio came out"
            message = f"{len(errors)} of {look.looks} stretches could not be decoded: {cause}"
            raise DecodeError("audio_missing", message)

    def _blocks(self, glimpse: tuple[float, float] | None) -> Generator[Pcm, None, None]:
        decoder, blocks = decoding(self._recording, self._decode, self._selection, self._remote, glimpse)
        try:
            for pcm in blocks:
                self.media, self._promised = decoder.media, decoder.promised_s is not None
                yield pcm
        except DataError:
            self.media = decoder.media
            raise
