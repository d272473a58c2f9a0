"""Audio with its speech spans -> Passages, cut in silence.

Duty: decide which stretches of a recording are transcribed, and where they are cut. Every sample ends in exactly one
passage or in exactly one speechless span. Memory: the audio of about one passage. It does NOT know how speech is found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.errors import DataError
from pipeline.types import AT_LEAST_ONE, NOT_NEGATIVE, SAMPLE_RATE, SHARE, Heard, Passage, Pcm, Recording, Span, setting

FOREVER = 2**62  # samples; stands for an infinite time


@dataclass(frozen=True, slots=True)
class PassageOptions:
    """How a recording is cut. `max_s` and `max_gap_s` of infinity make one passage of the whole recording."""

    max_s: float = setting(90.0, "longest passage", "s", within=AT_LEAST_ONE)
    max_gap_s: float = setting(
        5.0, "longer stretches without speech are not transcribed; inf keeps them all", "s", within=NOT_NEGATIVE
    )
    margin_s: float = setting(0.4, "kept of such a stretch on both sides of the speech", "s", within=NOT_NEGATIVE)
    tail: float = setting(
        0.3, "a passage that is too long is cut in the longest pause of this last part", "share", within=SHARE
    )


class PassageCutter:
    """Iterate once for the passages; the numbers say how far it has come, and hold after a DataError too.

    duration: samples received. speech: samples of detected speech. speechless: spans that belong to no passage.
    """

    def __init__(self, recording: Recording, heard: Iterable[Heard], options: PassageOptions) -> None:
        self.duration = 0
        self.speech = 0
        self._recording = recording
        self._heard = heard
        self._plan = _Plan(options)
        self._tape = _Tape()
        self._speechless: list[Span] = []

    @property
    def speechless(self) -> tuple[Span, ...]:
        return tuple(self._speechless)

    def __iter__(self) -> Iterator[Passage]:
        """Yield the passages. A DataError of the audio is raised after all that was decoded has come out."""
        index = 0
        for section in self._sections():
            pcm = self._tape.take(section.span)
            if section.keep:
                recording, start = self._recording, section.span.start
                yield Passage(
                    recording.id, index, start, pcm, section.speech, recording.language, recording.initial_prompt
                )
                index += 1
            elif self._speechless and self._speechless[-1].end == section.span.start:
                self._speechless[-1] = Span(self._speechless[-1].start, section.span.end)
            else:
                self._speechless.append(section.span)

    def _sections(self) -> Iterator[_Section]:
        try:
            for heard in self._heard:
                self.duration += len(heard.pcm)
                self.speech += sum(map(len, heard.spans))
                self._tape.append(heard.pcm)
                yield from self._plan.advance(heard.spans, heard.until)
        except DataError:
            yield from self._plan.finish(self.duration)
            raise
        yield from self._plan.finish(self.duration)


@dataclass(frozen=True, slots=True)
class _Section:
    """A stretch of the recording that is decided: a passage (`keep`) or not."""

    span: Span
    speech: tuple[Span, ...]
    keep: bool


class _Tape:
    """The audio that is not yet decided."""

    def __init__(self) -> None:
        self._blocks: deque[Pcm] = deque()
        self._start = 0

    def append(self, pcm: Pcm) -> None:
        self._blocks.append(pcm)

    def take(self, span: Span) -> Pcm:
        """Remove and return the audio of `span`, which starts where the last one ended."""
        assert span.start == self._start
        taken: list[Pcm] = [np.empty(0, np.int16)]
        missing = len(span)
        while missing:
            block = self._blocks.popleft()
            if len(block) > missing:
                self._blocks.appendleft(block[missing:])
                block = block[:missing]
            taken.append(block)
            missing -= len(block)
        self._start = span.end
        return np.concatenate(taken)


class _Plan:
    """Decides the sections from the spans alone, as soon as they are certain."""

    def __init__(self, options: PassageOptions) -> None:
        self._max = max(1, _samples(options.max_s))
        self._max_gap = _samples(options.max_gap_s)
        self._margin = min(_samples(options.margin_s), self._max_gap // 2)
        self._least = self._max - round(self._max * options.tail)  # length from which on a cut is looked for
        self._all = self._max_gap == FOREVER  # stretches without speech are kept too
        self._at = 0  # everything before it is decided
        self._quiet_from = 0  # end of the last speech before `_at`
        self._spans: list[Span] = []  # settled, not yet in a section
        self._until = 0
        self._ended = False

    def advance(self, spans: Iterable[Span], until: int) -> Iterator[_Section]:
        """Take spans that are settled, with all speech before `until`; yield the sections that this decides."""
        self._spans += spans
        self._until = until
        while (section := self._next()) is not None:
            self._at = section.span.end
            yield section

    def finish(self, duration: int) -> Iterator[_Section]:
        """Yield the remaining sections of a recording that ends here."""
        self._ended = True
        yield from self.advance((), duration)

    def _next(self) -> _Section | None:
        return self._silence() or self._island() or self._rest()

    def _silence(self) -> _Section | None:
        """Return what is speechless ahead of the next speech, if it is long."""
        end = self._spans[0].start if self._spans else self._until
        if end - self._quiet_from <= self._max_gap:
            return None
        end -= self._margin
        return _Section(Span(self._at, end), (), False) if end > self._at else None

    def _island(self) -> _Section | None:
        """Return the speech up to the next long silence, or as much of it as a passage may hold."""
        if not self._spans:
            return None
        starts = [span.start for span in self._spans[1:]] + [self._until]
        end, count = self._until, len(self._spans)
        known = self._ended
        for index, (span, start) in enumerate(zip(self._spans, starts, strict=True)):
            if start - span.end > self._max_gap:
                end, count, known = span.end + self._margin, index + 1, True
                break
        if not known and (end - self._at <= self._max or self._pausing()):
            return None
        return self._section(end if end - self._at <= self._max else self._cut(count))

    def _pausing(self) -> bool:
        """Whether a passage could end with the last speech, which is known only when this pause is over, or is long."""
        return not self._all and self._spans[-1].end <= self._at + self._max

    def _cut(self, count: int) -> int:
        """Return where to end a passage within the first `count` spans: in the middle of the longest late pause."""
        limit = self._at + self._max
        starts = [span.start for span in self._spans[1:]] + [max(self._until, self._spans[-1].end)]
        pauses = [Span(span.end, start) for span, start in zip(self._spans[:count], starts, strict=False)]
        for least in (self._at + self._least, self._at + 1):
            late = [Span(max(pause.start, least), min(pause.end, limit)) for pause in pauses]
            late = [pause for pause in late if pause.end >= pause.start]
            if late:
                longest = max(late, key=lambda pause: (len(pause), pause.start))
                return (longest.start + longest.end) // 2
        return limit  # a single span longer than a passage

    def _rest(self) -> _Section | None:
        """Return what has no speech and is neither speechless by its length: the end, or all where all is kept."""
        if self._spans or self._at == self._until:
            return None
        if self._all and self._until - self._at > self._max:
            return self._section(self._at + self._max)
        return self._section(self._until) if self._ended else None

    def _section(self, end: int) -> _Section:
        """Take the spans before `end` (the one that it falls into is divided) into a section that ends there."""
        speech = tuple(Span(span.start, min(span.end, end)) for span in self._spans if span.start < end)
        self._spans = [Span(max(span.start, end), span.end) for span in self._spans if span.end > end]
        if speech:
            self._quiet_from = speech[-1].end
        return _Section(Span(self._at, end), speech, bool(speech) or self._all)


def _samples(seconds: float) -> int:
    return round(min(seconds * SAMPLE_RATE, FOREVER))
