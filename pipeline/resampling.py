"""How sure a rate is: bootstrap intervals over recordings, and a permutation test of a difference.

Duty: statistics on columns of counts, a row a recording, all from a seed. Knows nothing of what was counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.types import NOT_NEGATIVE, SHARE, setting

_FLIPS = 10_000  # random ones: a p of 0.05 is then known within 0.004
_EXACT = 12  # recordings up to which all flips are tried

Interval = tuple[float, float]


@dataclass(frozen=True)
class ResampleOptions:
    """How confidence intervals are made."""

    resamples: int = setting(
        1000,
        "Bootstrap samples, of whole recordings, that confidence intervals come from; 0 for none.",
        "samples",
        within=NOT_NEGATIVE,
    )
    confidence: float = setting(0.95, "Share of the samples that an interval covers.", within=SHARE)
    seed: int = setting(0, "Seed of the samples: the same seed gives the same intervals.")


def interval_of_rate(errors: ArrayLike, units: ArrayLike, options: ResampleOptions) -> Interval | None:
    """Return the percentile interval of sum(errors) / sum(units). None for fewer than two recordings."""
    sums = resampled(np.column_stack([errors, units]), options)
    return percentiles(_rates(sums[:, 0], sums[:, 1]), options)


def interval_of_difference(
    errors: ArrayLike, units: ArrayLike, other_errors: ArrayLike, other_units: ArrayLike, options: ResampleOptions
) -> Interval | None:
    """Return the interval of one rate minus the other, of the same recordings: both are resampled together."""
    sums = resampled(np.column_stack([errors, units, other_errors, other_units]), options)
    return percentiles(_rates(sums[:, 0], sums[:, 1]) - _rates(sums[:, 2], sums[:, 3]), options)


def matched_pairs_p(differences: ArrayLike, options: ResampleOptions) -> float | None:
    """Return the two-sided p-value of differences between two systems, one a recording, in whole errors.

    If the systems were equal, each difference could as well have the other sign: p is the share of the choices of signs
    whose sum is at least as far from zero as the one seen. All choices are tried for few recordings, 10,000 random ones
    for more. None where no recording differs.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return None
    seen = abs(values.sum())
    if len(values) <= _EXACT:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(values))))
        return float(np.mean(np.abs(signs @ values) >= seen))
    rng = np.random.default_rng(options.seed)
    as_far = sum(
        int(abs(values[rng.integers(0, 2, len(values), np.int8) == 1].sum() * 2 - values.sum()) >= seen)
        for _ in range(_FLIPS)
    )
    return (as_far + 1) / (_FLIPS + 1)


def resampled(columns: NDArray[np.float64], options: ResampleOptions) -> NDArray[np.float64]:
    """Return the columns' sums [samples, columns] over recordings drawn with replacement; none for one recording."""
    rows = len(columns)
    if rows < 2 or not options.resamples:
        return np.empty((0, columns.shape[-1]))
    rng = np.random.default_rng(options.seed)
    drawn = (np.bincount(rng.integers(rows, size=rows), minlength=rows) for _ in range(options.resamples))
    return np.array([times @ columns for times in drawn])


def swapped(
    mine: NDArray[np.float64], theirs: NDArray[np.float64], options: ResampleOptions
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both systems' sums [samples, columns] with the recordings of each dealt out to both at random."""
    rng = np.random.default_rng(options.seed)
    total, apart = mine.sum(axis=0) + theirs.sum(axis=0), theirs - mine
    first = np.array(
        [mine.sum(axis=0) + rng.integers(0, 2, len(mine), np.int8) @ apart for _ in range(options.resamples)]
    ).reshape(options.resamples, mine.shape[-1])
    return first, total - first


def percentiles(values: NDArray[np.float64], options: ResampleOptions) -> Interval | None:
    """Return the interval that covers the middle of the values; None where there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    tail = 50 * (1 - options.confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _rates(errors: NDArray[np.float64], units: NDArray[np.float64]) -> NDArray[np.float64]:
    rates: NDArray[np.float64] = np.divide(errors, units, out=np.full(len(errors), np.nan), where=units > 0)
    return rates
