"""How much of any stretch lies under spans. Knows samples, not what the spans are of."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from pipeline.types import Segment, Span


class Cover:
    """How much of any stretch lies under spans that are in order and do not overlap, in logarithmic time."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._starts = [span.start for span in spans]
        self._spans = spans
        self._before = [0]  # covered samples before each span
        for span in spans:
            self._before.append(self._before[-1] + len(span))

    def share(self, stretch: Span) -> float | None:
        """Return the covered share of `stretch`; None when it has no length."""
        return self.samples(stretch) / len(stretch) if len(stretch) > 0 else None

    def within(self, stretch: Span) -> Sequence[Span]:
        """Return the spans that share samples with `stretch`."""
        first = max(0, bisect_right(self._starts, stretch.start) - 1)
        some = self._spans[first : bisect_left(self._starts, stretch.end)]
        return some[1:] if some and some[0].end <= stretch.start else some

    def without(self, spans: Sequence[Span]) -> Cover:
        """Return what is covered outside of `spans`, which are in order and do not overlap."""
        left = []
        for own in self._spans:
            at = own.start
            for span in (span for span in spans if span.overlap(own)):
                left.append(Span(at, max(at, span.start)))
                at = span.end
            left.append(Span(at, max(at, own.end)))
        return Cover([span for span in left if len(span)])

    def samples(self, stretch: Span | Segment) -> int:
        """Return how many samples of `stretch` are covered."""
        return self._until(stretch.end) - self._until(stretch.start)

    def _until(self, sample: int) -> int:
        index = bisect_right(self._starts, sample)
        if not index:
            return 0
        last = self._spans[index - 1]
        return self._before[index - 1] + min(sample, last.end) - last.start
