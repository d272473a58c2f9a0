"""A passage on its way through the engine: where its windows lie, which result stands, what becomes of its tokens.

Knows options, tokens and times; knows no batch and no network.
Source of the rules: the loop of `whisper.transcribe` in the reference implementation.
"""

from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from torch import Tensor

from pipeline.types import SAMPLE_RATE, Attempt, Guess, Passage, Segment, Span, Transcript, Word
from pipeline.whisper.encoding import Encoded
from pipeline.whisper.evidence import Sums, Weighed, sums
from pipeline.whisper.languages import LanguagePool
from pipeline.whisper.loops import compression_ratio
from pipeline.whisper.mel import FRAMES_PER_SECOND, HOP, WINDOW_FRAMES, window
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.search import Candidate
from pipeline.whisper.seek import SECONDS_PER_TIMESTAMP, Cut, Piece, cut
from pipeline.whisper.tokens import Tokens
from pipeline.whisper.words import Bounds, Timed, Timing, assign

MARGIN = SAMPLE_RATE // 2  # kept before speech when silence is skipped
SLIVER = SAMPLE_RATE // 4  # less speech than this behind the last timestamp is its own fading out
UNHEARD = 2 * SAMPLE_RATE  # more speech than this behind the last timestamp was passed over: it is heard again
# Then a window has got on by so much at least: music that is given a word or two again and again costs six at most.
LEAST_STEP = 5 * FRAMES_PER_SECOND
CONTEXT_RESET_TEMPERATURE = 0.5  # text decoded above it is no context: it may be a loop or an invention


@dataclass(eq=False)
class Reel:
    """A passage, and how far it has come."""

    passage: Passage
    mel: Tensor  # [bands, frames + 3000]
    frames: int  # of content, 10 ms each
    language: LanguagePool
    seek: int = 0  # frame where the next window starts
    context: list[int] = field(default_factory=list)  # tokens before the next window; at first, of the initial prompt
    segments: list[Segment] = field(default_factory=list)
    silent: list[Span] = field(default_factory=list)  # windows taken for silence
    last_speech: float = 0.0  # end of the last word, in seconds of the recording

    def advance(self, jump_s: float) -> bool:
        """Go on behind a long stretch without speech; return whether anything is left to decode."""
        here = self.passage.start + self.seek * HOP
        if not math.isinf(jump_s):
            ahead = [span for span in self.passage.spans if span.end > here + SLIVER]
            if not ahead:
                return False
            gap = ahead[0].start - here
            if gap > jump_s * SAMPLE_RATE:
                self.seek += (gap - MARGIN) // HOP
        return self.seek < self.frames

    def transcript(self) -> Transcript:
        """Return what has been understood."""
        language, probability = self.language.verdict()
        passage = self.passage
        return Transcript(
            passage.recording_id,
            passage.index,
            passage.span,
            passage.spans,
            tuple(self.segments),
            language,
            probability,
            self.language.pooled(),
            tuple(self.silent),
        )


@dataclass(frozen=True)
class Try:
    """One decoding of a window, and how it scored."""

    candidate: Candidate
    no_speech_prob: float
    scores: Attempt


@dataclass(eq=False)
class Window:
    """One decoding window of a reel, until its text is written down."""

    reel: Reel
    start: int  # frame in the passage
    frames: int  # of content, at most 3000
    encoding: Future[Encoded] | None = None  # None while a slot holds the audio
    language: str = ""
    language_probability: float | None = None
    languages: tuple[Guess, ...] = ()  # the likeliest
    tries: list[Try] = field(default_factory=list)
    chosen: Try | None = None  # that stands; None for silence
    passed: bool = False  # its gates
    weighed: Weighed | None = None  # each of its text tokens; None before that, and for silence

    @classmethod
    def next(cls, reel: Reel) -> Window:
        """Return the window where the reel stands."""
        return cls(reel, reel.seek, min(WINDOW_FRAMES, reel.frames - reel.seek))

    @property
    def mel(self) -> Tensor:
        """The window's spectrogram, padded: [bands, 3000]."""
        return window(self.reel.mel, self.start, self.frames)

    @property
    def origin(self) -> int:
        """The sample of the recording where the window starts."""
        return self.reel.passage.start + self.start * HOP

    def judge(self, candidate: Candidate, no_speech_prob: float, tokens: Tokens, options: WhisperOptions) -> bool:
        """Hold a result to the gates; return False where the next temperature is to be tried."""
        ratio = compression_ratio(tokens.decode(candidate.tokens).strip())
        scores = Attempt(options.temperatures[len(self.tries)], candidate.avg_logprob, ratio)
        self.tries.append(Try(candidate, no_speech_prob, scores))
        unlikely = candidate.avg_logprob < options.logprob_threshold
        looping = ratio > options.compression_ratio_threshold
        if unlikely and no_speech_prob > options.no_speech_threshold:
            return True  # silence
        failed = unlikely or looping
        self.passed = not failed
        if failed and len(self.tries) < len(options.temperatures):
            return False
        self.chosen = _best(self.tries, options) if failed else self.tries[-1]
        return True

    @property
    def says(self) -> list[int]:
        """The tokens that stand, timestamps included; none for silence."""
        return self.chosen.candidate.tokens if self.chosen else []

    def text(self, tokens: Tokens, options: WhisperOptions) -> list[int]:
        """Return the tokens of the text that stands, without timestamps and an unfinished tail."""
        if self.chosen is None:
            return []
        pieces = self._cut(self.chosen, tokens, options).pieces
        return [token for piece in pieces for token in piece.tokens if token < tokens.layout.eot]

    def _cut(self, chosen: Try, tokens: Tokens, options: WhisperOptions) -> Cut:
        return cut(chosen.candidate.tokens, self.frames, tokens.layout, timestamps=options.timestamps)

    def conclude(self, tokens: Tokens, options: WhisperOptions, timed: Timed) -> None:
        """Write the window's segments into its reel and let it seek on."""
        reel = self.reel
        if self.chosen is None:
            reel.seek = self.start + self.frames
            reel.silent.append(Span(self.origin, self.origin + self.frames * HOP))
            return
        done = self._cut(self.chosen, tokens, options)
        bounds = [self._bounds(piece, tokens) for piece in done.pieces]
        moved = bounds if options.reference else [replace(bound) for bound in bounds]
        words = assign(*timed, moved, self.origin / SAMPLE_RATE, reel.last_speech)
        keeps_context = options.context == "passage" and self.tries[-1].scores.temperature <= CONTEXT_RESET_TEMPERATURE
        if not keeps_context:
            reel.context = []
        at, weights = 0, self.weighed.read() if self.weighed else []
        for piece, bound, mine in zip(done.pieces, bounds, words, strict=True):
            weighed = sums(weights[at : (at := at + bound.tokens)])
            text = tokens.decode(list(piece.tokens)).strip()
            span = Span(self._sample(bound.start), self._sample(bound.end))
            # What starts in the padding behind the audio was not said: as empty as a segment without length.
            if text and span.start != span.end:
                reel.context += piece.tokens if keeps_context else ()
                reel.segments.append(self._segment(span, text, bound.tokens, self.chosen, weighed, mine, options))
        left_out = self._leaves_out_speech(done, self.chosen, options)
        reel.seek = self.start + (done.told if left_out else done.advance)
        # Where there are no words, the reference takes the last piece for one.
        untimed = bounds[-1].end if options.words and options.reference else 0.0
        last = max((word.end for mine in words for word in mine), default=untimed)
        if last:
            reel.last_speech = last
            if options.reference and not done.whole and last * SAMPLE_RATE > self.origin:
                reel.seek = round((last - reel.passage.start / SAMPLE_RATE) * FRAMES_PER_SECOND)

    def _leaves_out_speech(self, done: Cut, chosen: Try, options: WhisperOptions) -> bool:
        """Say whether the text of a window that is done passes over speech at its end. The reference does not ask."""
        speaks = self.passed and chosen.no_speech_prob <= options.no_speech_threshold
        if options.reference or not (options.timestamps and done.whole and speaks):
            return False
        behind = Span(self.origin + done.told * HOP, self.origin + self.frames * HOP)
        unheard = sum(behind.overlap(span) for span in self.reel.passage.spans)
        return done.told >= LEAST_STEP and unheard > UNHEARD

    def _bounds(self, piece: Piece, tokens: Tokens) -> Bounds:
        origin = self.origin / SAMPLE_RATE
        start, end = (origin + time * SECONDS_PER_TIMESTAMP for time in (piece.start, piece.end))
        return Bounds(start, end, sum(token < tokens.layout.eot for token in piece.tokens))

    def _sample(self, seconds: float) -> int:
        """Return the sample at a time of the recording, inside the passage."""
        return min(round(seconds * SAMPLE_RATE), self.reel.passage.span.end)

    def _segment(
        self,
        span: Span,
        text: str,
        tokens: int,
        chosen: Try,
        weighed: Sums | None,
        words: list[Timing],
        options: WhisperOptions,
    ) -> Segment:
        return Segment(
            start=span.start,
            end=span.end,
            text=text,
            language=self.language,
            language_probability=self.language_probability,
            task=options.task,
            avg_logprob=chosen.scores.avg_logprob,
            compression_ratio=chosen.scores.compression_ratio,
            no_speech_prob=chosen.no_speech_prob,
            temperature=chosen.scores.temperature,
            attempts=tuple(one.scores for one in self.tries),
            tokens=tokens,
            evidence=weighed.evidence if weighed else None,
            evidence_per_token=weighed.per_token if weighed else None,
            text_logprob=weighed.logprob if weighed else None,
            unlikely_share=weighed.unlikely if weighed else None,
            languages=self.languages,
            words=tuple(
                Word(
                    self._sample(word.start),
                    self._sample(word.end),
                    word.text,
                    word.probability,
                )
                for word in words
            ),
        )


def _best(tries: list[Try], options: WhisperOptions) -> Try:
    """Choose among attempts that all failed: the likeliest that is no loop, as faster-whisper does, or the last."""
    if options.exhausted == "last":
        return tries[-1]
    plain = [one for one in tries if one.scores.compression_ratio <= options.compression_ratio_threshold]
    return max(plain or tries, key=lambda one: one.scores.avg_logprob)
