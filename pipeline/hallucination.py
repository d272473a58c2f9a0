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

# What is weighed, with the sign that each weight must have: training may not turn it around.
WITHOUT: dict[str, int] = {"avg_logprob": -1, "no_speech": +1, "variety": -1, "speech_ratio": -1}
WITH: dict[str, int] = WITHOUT | {"evidence": -1, "evidence_per_token": -1, "text_logprob": -1, "unlikely_share": +1}
# Shrinkage: so many more tokens are taken to be there, with such a share of unlikely ones. A text of one token is not
# decided by the side of an even chance that this one lies on.
PRIOR_TOKENS, PRIOR_SHARE = 4, 0.2


def probability(segment: Segment) -> float:
    """Return the probability that nothing like this text was said. Without evidence other weights tell less."""
    found = inputs(segment)
    weights = WITH_EVIDENCE if "evidence" in found else WITHOUT_EVIDENCE
    log_odds = weights["bias"] + sum(weights[name] * value for name, value in found.items())
    return 1 / (1 + math.exp(-log_odds))


def inputs(segment: Segment) -> Mapping[str, float]:
    """Return what is weighed, by WITH or WITHOUT; each within bounds, so that no single number decides alone."""
    found = {
        "avg_logprob": _within(segment.avg_logprob, -1.2, 0.0),
        "no_speech": _log_odds(segment.no_speech_prob),
        "variety": variety(segment.text),
        "speech_ratio": 1.0 if segment.speech_ratio is None else segment.speech_ratio,
    }
    nats, a_token, logprob = segment.evidence, segment.evidence_per_token, segment.text_logprob
    if nats is None or a_token is None or logprob is None or segment.unlikely_share is None:
        return found
    return found | {
        "evidence": math.log1p(_within(nats, 0.0, 200.0)),
        "evidence_per_token": _within(a_token, -1.0, 6.0),
        "text_logprob": _within(logprob, -2.5, 0.0),
        "unlikely_share": (segment.unlikely_share * segment.tokens + PRIOR_SHARE * PRIOR_TOKENS)
        / (segment.tokens + PRIOR_TOKENS),
    }


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


def _log_odds(probability: float) -> float:
    kept = _within(probability, 1e-4, 1 - 1e-4)
    return math.log(kept / (1 - kept))
