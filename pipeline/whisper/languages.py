"""Which language: the evidence of single windows, pooled over a passage. Knows no tensors and no tokens."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.types import Guess

STRONG = 0.5  # a window as sure as this of its language is decoded in it, whatever its passage speaks
CHANGE = 0.1  # prior of any language beside those that the passage has shown
TOP = 3  # guesses kept of a window
UNLIKELY = 0.001  # pooled guesses below it are not kept


class LanguagePool:
    """What the windows of a passage have shown of its language, one after the other."""

    def __init__(self, codes: Sequence[str], forced: str | None = None) -> None:
        self._codes = codes
        self._forced = forced
        self._sum = [0.0] * len(codes)  # of weighted posteriors
        self._weight = 0.0

    def add(self, posterior: Sequence[float], weight: float) -> tuple[str, float]:
        """Take a window's `posterior` over the languages; return the language to decode it in and its probability.

        `weight` in [0, 1] says how much the window's evidence counts: music has an opinion, too. The language is the
        forced one, else the window's own where it is sure, else the likeliest by its evidence and the passage's.
        """
        self._weight += weight
        self._sum = [total + weight * p for total, p in zip(self._sum, posterior, strict=True)]
        chosen = max(range(len(posterior)), key=posterior.__getitem__)
        if self._forced is not None:
            chosen = self._codes.index(self._forced)
        elif posterior[chosen] < STRONG:
            prior = [total / max(self._weight, 1e-9) + CHANGE for total in self._sum]
            chosen = max(range(len(posterior)), key=lambda i: posterior[i] * prior[i])
        return self._codes[chosen], posterior[chosen]

    def guesses(self, posterior: Sequence[float]) -> tuple[Guess, ...]:
        """Return the likeliest languages of a window; none where there is nothing to choose from."""
        return self._guesses(posterior)[:TOP]

    def pooled(self) -> tuple[Guess, ...]:
        """Return the languages that the passage has shown, likeliest first, whatever was forced."""
        if not self._weight:
            return ()
        found = self._guesses([total / self._weight for total in self._sum])
        return tuple(guess for guess in found if guess.probability >= UNLIKELY)

    def _guesses(self, posterior: Sequence[float]) -> tuple[Guess, ...]:
        if len(self._codes) == 1:
            return ()
        order = sorted(range(len(posterior)), key=posterior.__getitem__, reverse=True)
        return tuple(Guess(self._codes[i], posterior[i]) for i in order)

    def verdict(self) -> tuple[str, float | None]:
        """Return the passage's language and its mean probability; before any window: the forced one or the first."""
        if len(self._codes) == 1:
            return self._codes[0], None  # nothing to choose from
        best = max(range(len(self._codes)), key=self._sum.__getitem__)
        if self._forced is not None:
            best = self._codes.index(self._forced)
        return self._codes[best], self._sum[best] / self._weight if self._weight else None
