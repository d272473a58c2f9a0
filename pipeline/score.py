"""Numbers -> flags, of a segment and of a finished recording. Marks, never drops.

Duty: what casts doubt on a segment, how far it lies under detected speech, and the language of a whole recording. Pure
functions on the types. Knows no model, no audio and no tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline import hallucination, omissions, phrases, signs, speakers, text_language
from pipeline.cover import Cover
from pipeline.phrases import Phrases
from pipeline.speakers import SpeakerOptions, Turns
from pipeline.types import (
    NOT_NEGATIVE,
    SHARE,
    Finished,
    Guess,
    Omission,
    Outcome,
    Segment,
    Span,
    Speaker,
    Transcript,
    setting,
)

# Each flag with what it says of the segment.
FLAGS: dict[str, str] = {
    "hallucination": "All numbers together say that nothing like this text was said: it was probably invented.",
    "low_logprob": "The model itself found the text unlikely: its mean log-probability is low.",
    "repetitive": "The text repeats itself: it compresses far better than speech does, as loops of a decoder do.",
    "no_speech": "The model heard no speech in the window that the text is from, however sure it is of the words.",
    "fallback_exhausted": "Every temperature was tried, none passed the quality gates, and the last text stands.",
    "language_mismatch": "The text reads like another language than the audio sounds like: translated, or invented.",
    "phrase": "The text is a line that Whisper is known to invent, and its surroundings speak for that.",
    "omission": "Speech under the segment or right beside it has no text: recordings.omissions tells where.",
}


@dataclass(frozen=True)
class ScoreOptions:
    """Where doubt begins. But for the first, the defaults are the quality gates of the reference's decoding."""

    max_hallucination: float = setting(
        0.5,
        "Flag segments as hallucination when the probability that their text was invented is above this.",
        within=SHARE,
    )
    flag_logprob: float = setting(
        -1.0, "Flag segments as low_logprob when their mean log-probability is below this.", "nats"
    )
    flag_compression_ratio: float = setting(
        2.4, "Flag segments as repetitive when their text packs better than this.", within=NOT_NEGATIVE
    )
    flag_no_speech: float = setting(
        0.6, "Flag segments as no_speech when their no-speech probability is above this.", within=SHARE
    )


def mark(transcript: Transcript, options: ScoreOptions, known: Phrases | None = None) -> Transcript:
    """Return the transcript with what can be said of each segment alone, and its `flags`, computed anew.

    `known` are the lines that are taken for inventions; by default those of the list that ships.
    """
    speech, known = Cover(transcript.speech), phrases.known() if known is None else known
    weighed = (_weighed(segment, speech, known) for segment in transcript.segments)
    return replace(transcript, segments=tuple(replace(one, flags=_flags(one, options)) for one in weighed))


def _weighed(segment: Segment, speech: Cover, known: Phrases) -> Segment:
    stretch = Span(segment.start, segment.end)
    reads = text_language.read(segment.text)
    length, period = signs.repetition(segment.text)
    heard = speech.samples(stretch)
    told = replace(
        segment,
        speech_ratio=speech.share(stretch),
        text_language=None if reads is None else reads.language,
        text_language_probability=None if reads is None else reads.probability,
        phrase_weight=known.weight(segment.text),
        characters_per_second=signs.characters_per_second(segment.text, heard),
        tokens_per_second=signs.per_second(segment.tokens, heard),
        repetition=length,
        repetition_period=period,
        variety=signs.variety(segment.text),
    )
    return replace(told, hallucination_probability=hallucination.probability(told))


def finish(transcripts: Iterable[Transcript], outcome: Outcome, options: SpeakerOptions | None = None) -> Finished:
    """Put a recording together: its segments in order, with the flags that only the whole tells; its language by vote
    of its passages, weighted by their speech; what its text lacks; and, where asked for, who says what.
    """
    ordered = sorted(transcripts, key=lambda transcript: transcript.passage)
    language, probability = _vote(ordered)
    segments = [
        (transcript.passage, segment)
        for transcript in ordered
        for segment in sorted(transcript.segments, key=lambda segment: segment.start)
    ]
    lacking = omissions.omissions(ordered)
    flagged = tuple(
        (passage, _with_late_flags(segment, lacking, last=index == len(segments) - 1))
        for index, (passage, segment) in enumerate(segments)
    )
    told: tuple[Speaker, ...] = ()
    if options is not None and options.speakers:
        told = speakers.tell(ordered, options)
        turns = Turns(told)
        flagged = tuple((passage, speakers.attributed(segment, turns)) for passage, segment in flagged)
    return Finished(outcome, language, probability, flagged, _pooled(ordered), lacking, told)


def _with_late_flags(segment: Segment, lacking: Sequence[Omission], *, last: bool) -> Segment:
    late = []
    if phrases.invented(segment, last=last):
        late.append("phrase")
    if any(omissions.beside(segment, omission) for omission in lacking):
        late.append("omission")
    return replace(segment, flags=(*segment.flags, *late)) if late else segment


def _flags(segment: Segment, options: ScoreOptions) -> tuple[str, ...]:
    unlikely = segment.avg_logprob < options.flag_logprob
    repetitive = segment.compression_ratio > options.flag_compression_ratio
    no_speech = segment.no_speech_prob > options.flag_no_speech
    invented = segment.hallucination_probability
    found = {
        "hallucination": invented is not None and invented > options.max_hallucination,
        "low_logprob": unlikely,
        "repetitive": repetitive,
        "no_speech": no_speech,
        "fallback_exhausted": _exhausted(segment, options),
        "language_mismatch": text_language.mismatch(segment),
    }
    return tuple(name for name in FLAGS if found.get(name))


def _exhausted(segment: Segment, options: ScoreOptions) -> bool:
    """Whether the attempt that stands fails a gate, judged by the same thresholds as the flags.

    An engine lets a failed attempt stand only at the end of its schedule. Silence (unlikely, and without speech) ends
    the schedule early and is no failure.
    """
    if not segment.attempts:
        return False
    last = segment.attempts[-1]
    unlikely = last.avg_logprob < options.flag_logprob
    silence = unlikely and segment.no_speech_prob > options.flag_no_speech
    return (unlikely or last.compression_ratio > options.flag_compression_ratio) and not silence


def _vote(transcripts: Sequence[Transcript]) -> tuple[str | None, float | None]:
    """Return the language with the most speech (the first in a tie) and its mean probability; None without speech."""
    speech: dict[str, int] = defaultdict(int)
    for transcript in transcripts:
        speech[transcript.language] += sum(map(len, transcript.speech))
    winner = max(speech, key=lambda language: speech[language], default=None)
    if winner is None or not speech[winner]:
        return None, None
    known = [
        (sum(map(len, transcript.speech)), transcript.language_probability)
        for transcript in transcripts
        if transcript.language == winner and transcript.language_probability is not None
    ]
    weight = sum(samples for samples, _ in known)
    return winner, sum(samples * probability for samples, probability in known) / weight if weight else None


def _pooled(transcripts: Sequence[Transcript]) -> tuple[Guess, ...]:
    """Return what the recording sounds like: its passages' languages, weighted by speech, likeliest first."""
    pooled: dict[str, float] = defaultdict(float)
    heard = [(sum(map(len, transcript.speech)), transcript.languages) for transcript in transcripts]
    whole = sum(samples for samples, languages in heard if languages)
    for samples, languages in heard:
        for guess in languages if whole else ():
            pooled[guess.language] += guess.probability * samples / whole
    return tuple(Guess(*item) for item in sorted(pooled.items(), key=lambda item: -item[1]))
