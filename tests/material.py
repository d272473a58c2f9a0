"""What workers send to the ledger, made up from a seed: passages, silences, failures, flags, words.

The same recording of the same version has the same material in every process, as a deterministic engine gives.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

from pipeline.score import ScoreOptions, mark
from pipeline.types import (
    SAMPLE_RATE,
    Attempt,
    Failure,
    Media,
    Outcome,
    Recording,
    Segment,
    Span,
    Transcript,
    Voice,
    Word,
)

CONFIG = {"model": "base", "temperatures": (0.0, 0.4), "task": "transcribe"}
ALPHABET = "abc xyz éß字 😀'\"\n,;"


def listing(count: int, version: str = "1") -> list[Recording]:
    """Return recordings; those of equal number have equal ids."""
    return [
        Recording(f"{number:04x}", f"/radio/{number} é.mp3", 1000 + number, version, metadata=f'{{"number": {number}}}')
        for number in range(count)
    ]


def material(recording: Recording, seed: int, *, healed: bool = False) -> list[Transcript | Outcome]:
    """Return the transcripts of a recording and its outcome. `healed`: what failed for passing reasons now succeeds."""
    rng = random.Random(f"{seed} {recording.id} {recording.version}")
    failure = None
    if rng.random() < 0.3:
        failure = Failure("open" if rng.random() < 0.5 else "decode", "broken", "it broke", rng.random() < 0.5)
        if failure.retryable and healed:
            failure = None
    transcripts: list[Transcript | Outcome] = []
    speechless = []
    at = 0
    for _ in range(0 if failure and rng.random() < 0.5 else rng.randint(0, 6)):
        span = Span(at, at + rng.randint(1, 90 * SAMPLE_RATE))
        at = span.end
        if rng.random() < 0.3:
            speechless.append(span)
        else:
            transcripts.append(_transcript(rng, recording, len(transcripts), span))
    speech = sum(len(s) for t in transcripts if isinstance(t, Transcript) for s in t.speech)
    media = Media("mp3", "mp3", 44_100, 2, 1, at / SAMPLE_RATE)
    outcome = Outcome(recording, len(transcripts), at, speech, tuple(speechless), media, failure)
    return [*transcripts, outcome]


def shuffled(
    recordings: list[Recording], seed: int, rng: random.Random, *, healed: bool, lost: float
) -> Iterator[list[Transcript | Outcome]]:
    """Yield the material of all in blocks, in any order, some of it twice, and a share of it not at all."""
    items = [item for recording in recordings for item in material(recording, seed, healed=healed)]
    items = [item for item in items if rng.random() >= lost]
    items += rng.sample(items, len(items) // 5)
    rng.shuffle(items)
    while items:
        size = rng.randint(1, 12)
        yield items[:size]
        del items[:size]


def _transcript(rng: random.Random, recording: Recording, index: int, span: Span) -> Transcript:
    cuts = sorted({span.start, span.end, *(rng.randint(span.start, span.end) for _ in range(rng.randint(0, 4)))})
    pieces = [Span(start, end) for start, end in pairwise(cuts)]
    speech = tuple(piece for piece in pieces if rng.random() < 0.7)
    language = rng.choice(["en", "de", "fr"])
    segments = tuple(_segment(rng, piece, language) for piece in pieces if rng.random() < 0.8)
    probability = rng.choice([None, rng.random()])
    voices = _voices(random.Random(f"voices of {recording.id} {index}"), speech)
    transcript = Transcript(recording.id, index, span, speech, segments, language, probability, voices=voices)
    return mark(transcript, ScoreOptions())


def _voices(rng: random.Random, speech: tuple[Span, ...]) -> tuple[Voice, ...]:
    """Return voices of three people who sound nothing like each other: each speech is one's."""
    people = [rng.randrange(3) for _ in speech]
    return tuple(
        Voice(window, (span,), len(span), tuple(float(axis == person) for axis in range(3)))
        for window, (span, person) in enumerate(zip(speech, people, strict=True))
        if len(span)
    )


def _segment(rng: random.Random, span: Span, language: str) -> Segment:
    attempts = tuple(
        Attempt(temperature, -2 * rng.random(), 4 * rng.random()) for temperature in (0.0, 0.4)[: rng.randint(1, 2)]
    )
    words = tuple(
        Word(span.start, span.end, "".join(rng.choices(ALPHABET, k=3)), rng.random()) for _ in range(rng.randint(0, 3))
    )
    return Segment(
        start=span.start,
        end=span.end,
        text="".join(rng.choices(ALPHABET, k=rng.randint(1, 60))),
        language=language,
        language_probability=rng.choice([None, rng.random()]),
        task="transcribe",
        avg_logprob=attempts[-1].avg_logprob,
        compression_ratio=attempts[-1].compression_ratio,
        no_speech_prob=rng.random(),
        temperature=attempts[-1].temperature,
        attempts=attempts,
        words=words,
    )
