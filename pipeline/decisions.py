"""What was heard in a recording -> whether it is kept, and why not. Pure functions on the types.

Duty: pool what the engine heard in single stretches, and hold the numbers against the thresholds. The same numbers with
other thresholds need no audio. Knows no tables, no audio and no models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline.types import KEPT, NOT_NEGATIVE, SAMPLE_RATE, SHARE, Look, Outcome, Survey, setting

LEAST = 0.001  # probability of a language that is told

# Each reason with what it says, in the order of the tests.
REASONS: dict[str, str] = {
    "unreadable": "Nothing could be decoded; the error's columns say why.",
    "duration": "It is shorter or longer than asked for.",
    "speech": "Too little of it is speech, or the model doubts that anybody speaks.",
    "sound": "Too much of it is sound without speech.",
    "language": "The languages that are asked for are too unlikely.",
    KEPT: "It passed all tests.",
}


@dataclass(frozen=True)
class FilterOptions:
    """What is kept."""

    language: tuple[str, ...] = setting((), "Codes of the languages to keep, such as en,de; by default all.")
    min_language: float = setting(
        0.5, "Keep what is in one of them with at least this probability, all together.", within=SHARE
    )
    min_speech: float = setting(0.25, "Keep what has at least this share of detected speech.", within=SHARE)
    max_no_speech: float = setting(
        0.7, "Keep what the model takes for no speech with at most this probability.", within=SHARE
    )
    max_sound: float = setting(
        1.0, "Keep what has at most this share of sound without speech: music, noise.", within=SHARE
    )
    min_duration_s: float = setting(0.0, "Keep what is at least this long.", "s", within=NOT_NEGATIVE)
    max_duration_s: float = setting(float("inf"), "Keep what is at most this long.", "s", within=NOT_NEGATIVE)


def survey(looks: Iterable[Look], outcome: Outcome, options: FilterOptions) -> Survey:
    """Put a recording together, and decide."""
    ordered = tuple(sorted(looks, key=lambda look: look.passage))
    no_speech, languages = _pooled(ordered)
    return decide(Survey(outcome, ordered, no_speech, languages, KEPT), options)


def decide(found: Survey, options: FilterOptions) -> Survey:
    """Return the same with the decision that `options` make of it."""
    return replace(found, reason=next((name for name in REASONS if _fails(name, found, options)), KEPT))


def length_s(outcome: Outcome) -> float:
    """Return how long the recording is: what was decoded, or what its header says where that is not all."""
    recording, stated_s = outcome.recording, outcome.media.stated_s or 0.0
    if recording.end is not None:
        stated_s = min(stated_s, recording.end / SAMPLE_RATE)
    return max(outcome.duration / SAMPLE_RATE, stated_s - recording.start / SAMPLE_RATE)


def share(samples: int, outcome: Outcome) -> float:
    """Return the share of what was looked at."""
    return samples / outcome.duration if outcome.duration else 0.0


def _fails(test: str, found: Survey, options: FilterOptions) -> bool:
    outcome = found.outcome
    if test == "unreadable":
        return outcome.status == "failed"
    if test == "duration":
        return not options.min_duration_s <= length_s(outcome) <= options.max_duration_s
    if test == "speech":
        return (
            share(outcome.speech, outcome) < options.min_speech or (found.no_speech_prob or 0) > options.max_no_speech
        )
    if test == "sound":
        return share(outcome.sound, outcome) > options.max_sound
    if test == "language":
        wanted = sum(probability for code, probability in found.languages if code in options.language)
        return bool(options.language) and wanted < options.min_language
    return False


def _pooled(looks: Sequence[Look]) -> tuple[float | None, tuple[tuple[str, float], ...]]:
    """Pool the numbers of single stretches, weighted by speech; languages also by how surely somebody speaks."""
    speech = sum(look.speech for look in looks)
    if not speech:
        return None, ()
    no_speech = sum(look.speech * look.no_speech_prob for look in looks) / speech
    weights = [look.speech * max(1 - look.no_speech_prob, 1e-6) for look in looks]
    pooled: dict[str, float] = defaultdict(float)
    for look, weight in zip(looks, weights, strict=True):
        for code, probability in look.languages:
            pooled[code] += weight * probability / sum(weights)
    ranked = sorted(pooled.items(), key=lambda item: (-item[1], item[0]))
    return no_speech, tuple(item for item in ranked if item[1] > LEAST)
