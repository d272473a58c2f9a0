"""Which language: evidence of single windows, pooled over a passage. Knows no tensors and no tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

STRONG = 0.8  # a window whose own evidence is as sure as this is decoded in its own language


class Evidence:
    """Language evidence of a passage, window by window."""

    def __init__(self, codes: Sequence[str], forced: str | None = None) -> None:
        self._codes = codes
        self._forced = forced
        self._pooled = [0.0] * len(codes)  # sums of weighted log-probabilities
        self._mean = [0.0] * len(codes)  # sums of weighted probabilities
        self._weight = 0.0

    def add(self, posterior: Sequence[float], weight: float) -> tuple[str, float]:
        """Take a window's `posterior` over the languages; return the language to decode it in and its probability.

        `weight` in [0, 1] says how much the window's evidence counts (music has an opinion, too). The language is the
        forced one, else the window's own where it is sure, else the passage's so far.
        """
        weight = max(weight, 1e-3)
        self._weight += weight
        for i, p in enumerate(posterior):
            self._pooled[i] += weight * math.log(max(p, 1e-10))
            self._mean[i] += weight * p
        own = max(range(len(posterior)), key=posterior.__getitem__)
        if self._forced is not None:
            chosen = self._codes.index(self._forced)
        elif posterior[own] >= STRONG:
            chosen = own
        else:
            chosen = max(range(len(self._codes)), key=self._pooled.__getitem__)
        return self._codes[chosen], posterior[chosen]

    def verdict(self) -> tuple[str, float | None]:
        """Return the passage's language and its mean probability; before any window: the forced one or the first."""
        if self._forced is not None:
            best = self._codes.index(self._forced)
        else:
            best = max(range(len(self._codes)), key=self._mean.__getitem__)
        return self._codes[best], self._mean[best] / self._weight if self._weight else None
