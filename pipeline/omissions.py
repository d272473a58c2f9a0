"""Speech that the text lacks: stretches that no segment covers, and texts that are too short for their speech.

Duty: hold the text of a recording against the speech that was detected in it. Works on times and lengths alone, so it
sees what is missing whatever the reason, and not whether what is there is right. Knows no audio.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from pipeline.cover import Cover
from pipeline.types import SAMPLE_RATE, Omission, Segment, Span, Transcript

# Each reason with what it says of the stretch.
REASONS: dict[str, str] = {
    "no_text": "Speech was detected, and no segment covers it.",
    "silenced": "The same, in a window that the model took for silence: one of them is wrong.",
    "too_short": "A text covers the speech, but is far too short to say it all.",
}

LEAST = round(1.5 * SAMPLE_RATE)  # of speech that is missing; less is the play of times
PAD = round(0.2 * SAMPLE_RATE)  # that speech detection adds around speech
NEAR = round(1.5 * SAMPLE_RATE)  # between a stretch and the segments that it puts in doubt
BRIDGE = round(0.6 * SAMPLE_RATE)  # between two words: a pause for breath
TYPICAL = 12.5  # letters a second of detected speech, over many speakers and languages
PRIOR_S = 10.0  # seconds of such speech that stand beside a recording's own
SLOWEST = 0.7  # of TYPICAL: no recording is taken for slower, or one with most of its text missing would seem whole
DRIFT, SPREAD = 0.15, 0.2  # standard deviation of the logarithm of a segment's rate: for long ones, for one second
DOUBT = 2.4  # such deviations from which a text is too short
EXCUSE = 3.0  # from which it is so long that its times are wrong: it may have said what lies beside them

# Letters that a character is worth by what it takes to say it, from the first code point of its script on.
WORTH = [
    (0x0000, 1.0),  # Latin, Greek, Cyrillic
    (0x0530, 1.2),  # alphabets that leave vowels out, and those that write them as marks, which are not counted
    (0x1100, 1.0),
    (0x3040, 1.9),  # kana: a syllable
    (0x3400, 3.8),  # Han: a syllable with its tone, or two
    (0xAC00, 2.3),  # Hangul: a syllable
    (0xD7B0, 1.0),
    (0xF900, 3.8),
    (0xFB00, 1.0),
    (0x20000, 3.8),
]
DIGIT = 3.5  # 1, 9, 95: a word each or so


def omissions(transcripts: Iterable[Transcript]) -> tuple[Omission, ...]:
    """Return what the text of a recording lacks, in order. `transcripts` are all of its passages, in order."""
    passages = [(passage, _speech(passage)) for passage in transcripts]
    rate = _rate(passages)
    found = (omission for passage, speech in passages for omission in _of_passage(passage, speech, rate))
    return tuple(sorted(found, key=lambda omission: omission.start))


def beside(segment: Segment, omission: Omission) -> bool:
    """Say whether a segment lacks text, or ends or begins where text is missing."""
    return segment.start <= omission.end + NEAR and omission.start <= segment.end + NEAR


@lru_cache(maxsize=1 << 12)  # each segment is asked for up to four times
def letters(text: str) -> float:
    """Return how much there is to say in a text, in letters of an alphabet."""
    return sum(map(_worth, text))


@lru_cache(maxsize=1 << 14)  # the driver asks this of each letter of each recording
def _worth(character: str) -> float:
    if not character.isalnum():
        return 0.0
    if character.isdigit():
        return DIGIT
    code = ord(character)
    return next(worth for first, worth in reversed(WORTH) if code >= first)


def _speech(passage: Transcript) -> Cover:
    return Cover([Span(span.start + PAD, span.end - PAD) for span in passage.speech if len(span) > 2 * PAD])


def _of_passage(passage: Transcript, speech: Cover, rate: float) -> Iterator[Omission]:
    segments = sorted(passage.segments, key=lambda segment: segment.start)
    uncovered = list(_uncovered(passage, segments, speech, rate))
    yield from uncovered
    # What is told already does not make the segment around it too short as well.
    rest = speech.without([Span(omission.start, omission.end) for omission in uncovered])
    yield from _too_short(segments, rest, rate)


def _uncovered(passage: Transcript, segments: Sequence[Segment], speech: Cover, rate: float) -> Iterator[Omission]:
    """Yield the gaps between what the text covers that hold speech which the text beside them cannot have said."""
    for gap in _gaps(_claims(segments), passage.span):
        missing = speech.samples(gap)
        if missing < LEAST:
            continue
        beside = [segment for segment in segments if segment.end == gap.start or segment.start == gap.end]
        if missing - sum(_surplus(segment, speech, rate) for segment in beside) < LEAST:
            continue
        inside = speech.within(gap)
        start, end = max(gap.start, inside[0].start), min(gap.end, inside[-1].end)
        silent = sum(window.overlap(Span(start, end)) for window in passage.silent)
        yield Omission(start, end, missing, "silenced" if 2 * silent > end - start else "no_text")


def _claims(segments: Sequence[Segment]) -> list[Span]:
    """Return what the text covers: by its words where they have times, else by its segments."""
    claims = []
    for segment in segments:
        words = [Span(word.start, word.end) for word in segment.words]
        for word, following in pairwise(words):
            claims.append(Span(word.start, following.start if following.start - word.end <= BRIDGE else word.end))
        claims += words[-1:] or [Span(segment.start, segment.end)]
    return claims


def _gaps(claims: Iterable[Span], whole: Span) -> Iterator[Span]:
    """Yield the stretches of `whole` between the claims."""
    at = whole.start
    for claim in sorted(claims, key=lambda claim: claim.start):
        if claim.start > at:
            yield Span(at, claim.start)
        at = max(at, claim.end)
    if whole.end > at:
        yield Span(at, whole.end)


def _surplus(segment: Segment, speech: Cover, rate: float) -> float:
    """Return the samples of speech that a segment's text takes at this rate, beyond the most that fits its times."""
    under = speech.samples(segment)
    return max(0.0, letters(segment.text) / rate - under * math.exp(EXCUSE * _spread(under)))


def _too_short(segments: Sequence[Segment], speech: Cover, rate: float) -> Iterator[Omission]:
    """Yield the segments whose text is too short; the whole passage where all of them together are."""
    alone = [omission for segment in segments if (omission := _short([segment], speech, rate))]
    together = _short(segments, speech, rate) if len(segments) > 1 else None
    mostly_elsewhere = together and together.speech > 2 * sum(omission.speech for omission in alone)
    yield from [together] if together and mostly_elsewhere else alone


def _short(segments: Sequence[Segment], speech: Cover, rate: float) -> Omission | None:
    under = sum(speech.samples(segment) for segment in segments)
    said = sum(letters(segment.text) for segment in segments) / rate  # samples
    missing = round(under - said)
    if missing < LEAST or said > under * math.exp(-DOUBT * _spread(under)):
        return None
    return Omission(segments[0].start, segments[-1].end, missing, "too_short")


def _spread(samples: int) -> float:
    """Return the standard deviation of the logarithm of the rate over so much speech."""
    return math.hypot(DRIFT, SPREAD / math.sqrt(max(1.0, samples / SAMPLE_RATE)))


def _rate(passages: Sequence[tuple[Transcript, Cover]]) -> float:
    """Return the letters a sample that the recording's speakers say: the median, drawn to what is typical."""
    observed = [(TYPICAL / SAMPLE_RATE, PRIOR_S * SAMPLE_RATE)]
    for passage, speech in passages:
        for segment in passage.segments:
            under = speech.samples(segment)
            if under >= SAMPLE_RATE:
                observed.append((letters(segment.text) / under, under))
    observed.sort()
    half, total = sum(weight for _, weight in observed) / 2, 0.0
    for rate, weight in observed:
        total += weight
        if total >= half:
            return max(rate, SLOWEST * TYPICAL / SAMPLE_RATE)
    raise AssertionError("unreachable: the prior is always there")
