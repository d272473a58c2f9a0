"""The nouns of the pipeline, as frozen values.

Duty: what passes between the stages. Knows nothing of files, Arrow, Ray or models.
Time is an integer count of 16 kHz samples from the start of the recording; `rows.py` alone turns it into seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz; what Whisper and Silero listen to

KEPT = "kept"  # reason of what a filter keeps

Pcm = NDArray[np.int16]  # mono 16 kHz


Bounds = tuple[float, float]  # included
ANY, NOT_NEGATIVE, AT_LEAST_ONE, SHARE = (-inf, inf), (0.0, inf), (1.0, inf), (0.0, 1.0)


def setting(
    default: Any,
    doc: str,
    unit: str = "",
    *,
    rows: bool = True,
    choices: tuple[str, ...] = (),
    within: Bounds = ANY,
) -> Any:
    """Return a dataclass field that carries its sentence and unit: a command-line option is made from it.

    `rows=False` says that the value cannot change the rows that are written (threads, batch sizes), so that it
    stays out of the configuration hash. A number, or each of a tuple, lies `within` bounds; such a tuple is not empty.
    """
    told = {"doc": doc, "unit": unit, "rows": rows, "choices": choices, "within": within}
    return field(default=default, metadata=told)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a recording: `start` (included) to `end` (excluded), in samples."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def overlap(self, other: Span) -> int:
        """Return how many samples both spans share."""
        return max(0, min(self.end, other.end) - max(self.start, other.start))


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Audio that speech detection has listened to: the next `pcm` of a recording, and what is decided by now.

    The stream of `pcm` is gapless. `spans` are the speech spans settled since the last hand-over: in order, none
    overlapping, each of bounded length. All speech that starts before the sample `until` is settled.
    """

    pcm: Pcm  # int16 [samples]
    spans: tuple[Span, ...]
    until: int


@dataclass(frozen=True, slots=True)
class Recording:
    """A pointer to audio, without its bytes: a file, a piece of a file, or a stretch of either."""

    id: str  # a hash of the canonical URI and the stretch: the same recording has the same id in every run
    uri: str  # canonical, without credentials or signatures: what tables and messages may hold
    size: int | None = None  # bytes; None where the store does not say
    version: str = ""  # etag, or size and mtime: another version is transcribed anew
    language: str | None = None  # forced language code, None to detect it
    initial_prompt: str | None = None  # text before the first window of each passage
    metadata: str = "{}"  # JSON object: other columns, texts beside it, words of a feed
    # What `storage` opens where the URI alone does not: the URI with its credentials or signature. It lives in memory
    # and on the way to the workers; no table, file, log or message may hold it.
    address: str = field(default="", repr=False)
    inside: str = ""  # which piece of what is opened it is, as `pieces.py` reads it; "" for all of it
    # Only this stretch is listened to, in samples of the file. All other times in the pipeline count from its start;
    # those of the written tables from the file's.
    start: int = 0
    end: int | None = None  # None: to the end of the file
    asked: str = ""  # what of it is to be heard again, and why: JSON of `doubts.Question`; "" but in a second opinion

    @property
    def location(self) -> str:
        """What to open: secret, where the source named it with credentials."""
        return self.address or self.uri


@dataclass(frozen=True, slots=True)
class Media:
    """What the container says of itself, and which part of it was listened to."""

    container: str | None = None  # ffmpeg's name of the demuxer: "mp3", "mov,mp4,m4a,3gp,3g2,mj2"
    codec: str | None = None
    sample_rate: int | None = None  # Hz, before resampling
    channels: int | None = None
    tracks: int | None = None  # audio tracks in the container
    stated_s: float | None = None  # seconds, as the header says; an estimate in some formats
    selection: str = "mix"  # "mix" (all channels of the first track), "channel 1", "track 1 mix", ...


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """Contiguous audio of at most a few minutes, cut in silence: what the engine takes."""

    recording_id: str
    index: int  # 0, 1, ... in the recording
    start: int  # samples
    pcm: Pcm  # int16 [samples]
    spans: tuple[Span, ...]  # where speech is, in samples of the recording, inside the passage
    language: str | None = None  # forced
    initial_prompt: str | None = None  # text before the first window

    @property
    def span(self) -> Span:
        return Span(self.start, self.start + len(self.pcm))


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word with its times; `text` with its punctuation and the space before it, if any."""

    start: int
    end: int
    text: str
    probability: float
    speaker: str | None = None  # label, where speakers are told apart


@dataclass(frozen=True, slots=True)
class Attempt:
    """The scores of one decoding of a window."""

    temperature: float
    avg_logprob: float  # nats a token
    compression_ratio: float


@dataclass(frozen=True, slots=True)
class Guess:
    """A language that audio may be in, and how likely that is."""

    language: str
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence or so, with the numbers of the window that it was decoded in."""

    start: int
    end: int
    text: str
    language: str
    language_probability: float | None  # of `language`, by the window's own first step; None for English-only models
    task: str  # "transcribe" or "translate"
    avg_logprob: float  # nats a token, EOT counted
    compression_ratio: float
    no_speech_prob: float
    temperature: float
    attempts: tuple[Attempt, ...]
    tokens: int = 0  # of its text
    # Of its text tokens; all four are None where no evidence was sought.
    evidence: float | None = None  # nats: log p(text | audio) - log p(text | silence)
    evidence_per_token: float | None = None  # nats
    text_logprob: float | None = None  # nats, mean of log p(token | audio), without context
    unlikely_share: float | None = None  # share of the tokens that have less than an even chance with the audio
    speech_ratio: float | None = None  # share of the segment under detected speech
    characters_per_second: float | None = None  # letters and digits a second of that speech
    tokens_per_second: float | None = None  # text tokens, likewise
    repetition: int = 0  # letters in the longest stretch of the text that repeats itself
    repetition_period: int = 0  # letters until it comes again
    variety: float | None = None  # share of the text's n-grams that are no repetitions
    hallucination_probability: float | None = None
    flags: tuple[str, ...] = ()
    words: tuple[Word, ...] = ()
    languages: tuple[Guess, ...] = ()  # what the window sounds like, likeliest first, whatever was forced
    text_language: str | None = None  # what the text reads like; None where it is too short to tell
    text_language_probability: float | None = None
    phrase_weight: float | None = None  # how surely the text is a known invention where doubts arise; None: no such
    speaker: str | None = None  # label of who says most of it, where speakers are told apart
    overlap: float | None = None  # share of the segment in which more than one speaks, likewise


@dataclass(frozen=True, slots=True)
class Voice:
    """A speaker of a few seconds of a passage: where he speaks, and what he sounds like, but not who he is."""

    window: int  # of the passage; the voices of one window are different people
    spans: tuple[Span, ...]
    alone: int  # samples in which nobody else speaks: the more, the surer is the vector
    vector: tuple[float, ...]  # of length 1


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the engine answers for one passage."""

    recording_id: str
    passage: int  # index of the passage
    span: Span  # of the passage
    speech: tuple[Span, ...]  # the passage's speech spans
    segments: tuple[Segment, ...]
    language: str
    language_probability: float | None  # of `language`, pooled over the passage
    languages: tuple[Guess, ...] = ()  # pooled likewise, likeliest first, whatever was forced; not the unlikely ones
    silent: tuple[Span, ...] = ()  # windows that the engine took for silence
    voices: tuple[Voice, ...] = ()  # where speakers are told apart


@dataclass(frozen=True, slots=True)
class Look:
    """What the engine hears in a passage at first, without writing a text."""

    recording_id: str
    passage: int  # index of the passage
    span: Span  # of the passage
    speech: int  # samples of detected speech in it
    no_speech_prob: float
    languages: tuple[tuple[str, float], ...]  # codes with their probabilities, the likeliest first


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a recording ended early: `stage` (open, decode, worker), `kind` (a stable word), `message` (its cause)."""

    stage: str
    kind: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The closing word on a recording: how many passages came of it, what was decoded, or which error ended it."""

    recording: Recording
    passages: int
    duration: int  # samples decoded
    speech: int  # samples of detected speech
    speechless: tuple[Span, ...] = ()  # stretches that belong to no passage
    media: Media = Media()
    failure: Failure | None = None
    snr_db: float | None = None  # of the speech to what is heard in its pauses; None without speech
    sound: int = 0  # samples without detected speech that are not silent; counted where recordings are filtered

    @property
    def status(self) -> str:
        """`ok`; `partial` (audio was decoded before a failure); `failed` (nothing was)."""
        if self.failure is None:
            return "ok"
        return "partial" if self.duration else "failed"


@dataclass(frozen=True, slots=True)
class Speaker:
    """One of those who speak in a recording."""

    label: str  # "Speaker 1" speaks first
    spans: tuple[Span, ...]  # in order, not overlapping
    vector: tuple[float, ...]  # what he sounds like, of length 1


@dataclass(frozen=True, slots=True)
class Omission:
    """A stretch with speech that the text lacks."""

    start: int
    end: int
    speech: int  # samples of speech without text: detected ones, or estimated where the text is too short
    reason: str  # one of `omissions.REASONS`


@dataclass(frozen=True, slots=True)
class Finished:
    """A complete recording: what the ledger writes."""

    outcome: Outcome
    language: str | None
    language_probability: float | None
    segments: tuple[tuple[int, Segment], ...]  # (passage index, segment), in the order of the recording
    languages: tuple[Guess, ...] = ()  # by audio, weighted by speech, likeliest first
    omissions: tuple[Omission, ...] = ()
    speakers: tuple[Speaker, ...] = ()  # by their first words, where they are told apart


@dataclass(frozen=True, slots=True)
class Survey:
    """A recording that was looked at: what is decided from, and the decision."""

    outcome: Outcome
    looks: tuple[Look, ...]  # that the engine listened to, in order
    no_speech_prob: float | None  # over all of them
    languages: tuple[tuple[str, float], ...]  # over all of them, the likeliest first
    reason: str  # "kept", or why not

    @property
    def keep(self) -> bool:
        return self.reason == KEPT


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a second decoding makes of a doubtful segment, beside the first."""

    index: int  # of the segment, in the recording
    reasons: tuple[str, ...]  # of `doubts.REASONS`
    span: Span  # what was heard again: it may hold several such segments, and a little of their neighbours
    text: str | None = None  # of all that; None where it could not be heard again
    language: str | None = None  # that the text is in
    words: int | None = None  # of the first text, as they were compared; characters in scripts without spaces
    wer: float | None = None  # errors of the second text, were the first right; None where that has no words
    cer: float | None = None
    edge_cer: float | None = None  # of the first or last words, whichever is worse
    # Of the second text: the worst of its segments that lie under the first one.
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    evidence_per_token: float | None = None
    hallucination_probability: float | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """A recording of which a second opinion is complete, if there was anything to ask."""

    outcome: Outcome  # of hearing it again: `duration` is what was
    opinions: tuple[Opinion, ...]  # in the order of the recording
    audio: int  # samples of the whole recording
    doubtful: int  # segments; those in languages that the second model does not know are not asked about
    transcript: str  # run that wrote what is judged


class Engine(Protocol):
    """Speech to text: `whisper.engine.WhisperEngine` is the real one, `engines.FakeEngine` ships for tests."""

    def transcribe(self, passages: Iterable[Passage | None]) -> Iterator[Transcript | None]:
        """Answer each passage once, in any order.

        `None` in the input says: nothing to take right now, go on. `None` in the output: nothing to give yet; it comes
        often, so that the caller can stop.
        """
        ...

    def screen(self, passages: Iterable[Passage | None]) -> Iterator[Look | None]:
        """Answer each passage once, in any order, with what a first listening tells: languages, whether one speaks.

        A small part of the cost of `transcribe`; `None` means the same.
        """
        ...
