"""BLEU and chrF of translations, by sacrebleu.

Duty: the metrics, their intervals, differences and signatures. To the metrics a recording is a sentence. Knows no
tables. sacrebleu's own bootstrap holds all samples in memory, so the samples are ours and only the scores are its.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.resampling import ResampleOptions, percentiles, resampled, swapped
from pipeline.text import library

METRICS = ("bleu", "chrf")


def of_a_recording(reference: str, hypothesis: str) -> dict[str, float]:
    """Return BLEU (with effective order, as for sentences) and chrF of one text, 0 to 100."""
    bleu = library("sacrebleu.metrics").BLEU(effective_order=True)
    return {
        "bleu": float(bleu.sentence_score(hypothesis, [reference]).score),
        "chrf": float(_metric("chrf").sentence_score(hypothesis, [reference]).score),
    }


def of_recordings(
    references: Sequence[str], hypotheses: Sequence[str], options: ResampleOptions
) -> dict[str, float | None]:
    """Return BLEU and chrF of a corpus with intervals, 0 to 100. None without recordings."""
    found: dict[str, float | None] = {}
    for name in METRICS:
        counts = _counts(name, references, hypotheses)
        low, high = percentiles(_scores(name, resampled(counts, options)), options) or (None, None)
        score = float(_scores(name, counts.sum(axis=0, keepdims=True))[0]) if len(counts) else None
        found |= {name: score, f"{name}_low": low, f"{name}_high": high}
    return found


def difference(
    references: Sequence[str], hypotheses: Sequence[str], others: Sequence[str], options: ResampleOptions
) -> dict[str, float | None]:
    """Return by how much BLEU and chrF of `hypotheses` are above those of `others`, with intervals and p-values.

    p comes from approximate randomisation: the share of random swaps between both that set them as far apart.
    """
    found: dict[str, float | None] = {}
    for name in METRICS:
        mine, theirs = _counts(name, references, hypotheses), _counts(name, references, others)
        apart = _apart(name)
        both = resampled(np.concatenate([mine, theirs], axis=1), options)
        low, high = percentiles(apart(*np.split(both, 2, axis=1)), options) or (None, None)
        seen = apart(mine.sum(axis=0, keepdims=True), theirs.sum(axis=0, keepdims=True))[0]
        as_far = np.abs(apart(*swapped(mine, theirs, options))) >= abs(seen) - 1e-9
        found |= {f"{name}_difference": float(seen), f"{name}_difference_low": low, f"{name}_difference_high": high}
        found[f"{name}_p"] = float((as_far.sum() + 1) / (len(as_far) + 1)) if len(as_far) else None
    return found


def signatures() -> dict[str, str]:
    """Return sacrebleu's signatures: what to quote beside a score."""
    found = {}
    for name in METRICS:
        metric = _metric(name)
        metric.corpus_score(["a"], [["a"]])  # which alone tells it the number of references
        found[name] = str(metric.get_signature())
    return found


@cache
def _metric(name: str) -> Any:
    metrics = library("sacrebleu.metrics")
    return metrics.BLEU() if name == "bleu" else metrics.CHRF()


def _counts(name: str, references: Sequence[str], hypotheses: Sequence[str]) -> NDArray[np.float64]:
    """Return the sufficient statistics [recordings, counts]: their sums give the score of any set of recordings."""
    rows = _metric(name)._extract_corpus_statistics(list(hypotheses), [list(references)]) if len(references) else []
    return np.array(rows, dtype=np.float64)


def _scores(name: str, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    score = _metric(name)._compute_score_from_stats
    return np.array([score(row.tolist()).score for row in sums], dtype=np.float64)


def _apart(name: str) -> Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
    return lambda mine, theirs: _scores(name, mine) - _scores(name, theirs)
