"""Logistic regression with signs that weights must have, and what a ranking is worth. Knows numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STEPS = 4_000


def fit(inputs: Floats, labels: Floats, signs: Sequence[int], weights: Floats, ridge: float) -> Floats:
    """Return bias and weights, of the inputs as they are: [1 + D].

    `weights` say how much an example counts; `ridge` holds the weights of inputs of unit variance down. Accelerated
    gradient descent, after each step of which weights of the wrong sign are set to nothing.
    """
    mean, spread = inputs.mean(0), inputs.std(0) + 1e-9
    x = np.column_stack([np.ones(len(inputs)), (inputs - mean) / spread])
    share = weights / weights.sum()
    penalty = np.array([0.0] + [ridge] * inputs.shape[1])
    step = 1 / (0.25 * np.linalg.norm(x * np.sqrt(share)[:, None], 2) ** 2 + ridge)
    now = before = np.zeros(x.shape[1])
    wanted = np.array([0, *signs])
    for turn in range(STEPS):
        ahead = now + turn / (turn + 3) * (now - before)
        gradient = x.T @ (share * (sigmoid(x @ ahead) - labels)) + penalty * ahead
        before, now = now, ahead - step * gradient
        now = np.where(wanted * now < 0, 0.0, now)
    plain = now[1:] / spread
    return np.array([now[0] - plain @ mean, *plain])


def sigmoid(log_odds: Any) -> Any:
    """Return probabilities."""
    return 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))


def auroc(scores: Floats, labels: NDArray[np.bool_]) -> float:
    """Return how often a true example scores above a false one; half a time where they are equal."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]
    true, false = int(labels.sum()), int((~labels).sum())
    if not true or not false:
        return float("nan")
    return float((ranks[labels].sum() - true * (true + 1) / 2) / (true * false))
