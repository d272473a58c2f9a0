"""How probable it is that a segment's text was invented: a few of its numbers, weighed.

Duty: one calibrated probability. The weights stand in `hallucination_weights.py`, which `bench/train_hallucination.py`
writes; docs/quality.md says what they are worth. Knows no model, no audio, no flags.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.hallucination_weights import WITH_EVIDENCE, WITHOUT_EVIDENCE
from pipeline.signs import variety
from pipeline.types import Segment

# Each input with the sign that its weight must have: training may not turn it around.
INPUTS: dict[str, int] = {
    "evidence": -1,
    "evidence_per_token": -1,
    "avg_logprob": -1,
    "no_speech": +1,
    "variety": -1,
    "speech_ratio": -1,
}
OF_EVIDENCE = ("evidence", "evidence_per_token")


def probability(segment: Segment) -> float:
    """Return the probability that nothing like this text was said; marks must be there (`speech_ratio`).

    Without evidence other weights count, and tell less.
    """
    found = inputs(segment)
    weights = WITHOUT_EVIDENCE if segment.evidence is None else WITH_EVIDENCE
    log_odds = weights["bias"] + sum(weights[name] * value for name, value in found.items() if name in weights)
    return 1 / (1 + math.exp(-log_odds))


def inputs(segment: Segment) -> Mapping[str, float]:
    """Return what is weighed, each within bounds, so that no single number decides alone."""
    found = {
        "avg_logprob": _within(segment.avg_logprob, -2.0, 0.0),
        "no_speech": _log_odds(segment.no_speech_prob),
        "variety": variety(segment.text),
        "speech_ratio": 1.0 if segment.speech_ratio is None else segment.speech_ratio,
    }
    if segment.evidence is not None and segment.evidence_per_token is not None:
        found["evidence"] = math.log1p(_within(segment.evidence, 0.0, 200.0))
        found["evidence_per_token"] = _within(segment.evidence_per_token, -1.0, 6.0)
    return found


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


def _log_odds(probability: float) -> float:
    kept = _within(probability, 1e-4, 1 - 1e-4)
    return math.log(kept / (1 - kept))
