"""What a cleaning has kept and dropped, in hours, and which sources are the worst: tables of the rows of pairs.

Duty: add up. Knows rows and pandas; no files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pipeline.types import KEPT
from pipeline.verdicts import REASONS, first_reason

Row = dict[str, Any]  # of schemas.pairs

UNKNOWN = "unknown"  # language of a pair of which nothing tells it
_QUALITY = {"errors", "copy", "unaligned", "audio"}  # reasons that leave a pair in the judgement of its source
_SHOWN = 300  # characters of a sample


@dataclass
class _Source:
    pairs: int = 0
    seconds: float = 0.0
    kept: int = 0
    kept_s: float = 0.0
    compared: int = 0
    compared_s: float = 0.0
    rates: float = 0.0
    worst: tuple[float, str, str, str] = (-1.0, "", "", "")  # rate, uri, text, heard
    dropped: bool = False


@dataclass
class Tallies:
    """Sums over all pairs. Add the rows, then ask."""

    pairs: int = 0
    unknown_lengths: int = 0
    translations: int = 0
    marked_synthetic: int = 0
    cells: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # reason, language, source -> pairs
    seconds: defaultdict[tuple[str, str, str], float] = field(default_factory=lambda: defaultdict(float))
    _sources: defaultdict[str, _Source] = field(default_factory=lambda: defaultdict(_Source))

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows."""
        for row in rows:
            length = row["duration_s"] or 0.0
            cell = first_reason(row["reasons"]), row["language"] or UNKNOWN, row["source"]
            self.pairs += 1
            self.unknown_lengths += row["duration_s"] is None
            self.translations += row["keep"] and row["task"] == "translate"
            self.marked_synthetic += bool(row["synthetic"])
            self.cells[cell] += 1
            self.seconds[cell] += length
            self._judge_source(row, length)

    def reasons(self) -> dict[str, tuple[int, float]]:
        """Return pairs and hours by what became of them, each once, in the order of the reasons; kept ones last."""
        found: dict[str, tuple[int, float]] = {}
        for reason in (*REASONS, KEPT):
            count = sum(n for (of, *_), n in self.cells.items() if of == reason)
            if count or reason == KEPT:
                found[reason] = count, sum(s for (of, *_), s in self.seconds.items() if of == reason) / 3600
        return found

    @property
    def hours(self) -> float:
        return sum(self.seconds.values()) / 3600

    def languages(self) -> dict[str, float]:
        """Return the kept hours of each language."""
        found: defaultdict[str, float] = defaultdict(float)
        for (reason, language, _), seconds in self.seconds.items():
            if reason == KEPT:
                found[language] += seconds / 3600
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def waterfall(self) -> pd.DataFrame:
        """Return pairs and hours by reason, language and source: each pair counts once, for its first reason."""
        order = {reason: place for place, reason in enumerate((*REASONS, KEPT))}
        cells = sorted(self.cells, key=lambda cell: (order[cell[0]], *cell[1:]))
        rows = [(*cell, self.cells[cell], round(self.seconds[cell] / 3600, 6)) for cell in cells]
        return pd.DataFrame(rows, columns=["reason", "language", "source", "pairs", "hours"])

    def sources(self) -> pd.DataFrame:
        """Return the sources, those that do the most harm first: mean word errors (at most 1 a word) times hours."""
        rows = []
        for name, one in self._sources.items():
            mean = one.rates / one.compared if one.compared else None
            hours = one.compared_s / 3600
            rows.append(
                {
                    "source": name,
                    "badness": None if mean is None else round(mean * hours, 6),
                    "mean_wer": None if mean is None else round(mean, 4),
                    "compared": one.compared,
                    "compared_hours": round(hours, 6),
                    "pairs": one.pairs,
                    "hours": round(one.seconds / 3600, 6),
                    "kept": one.kept,
                    "kept_hours": round(one.kept_s / 3600, 6),
                    "dropped": one.dropped,
                    "worst_wer": round(one.worst[0], 4) if one.compared else None,
                    **dict(zip(("worst_uri", "worst_text", "worst_heard"), one.worst[1:], strict=True)),
                }
            )
        table = pd.DataFrame(rows)
        order = ["dropped", "badness", "source"]
        return table.sort_values(order, ascending=[True, False, True], na_position="last", ignore_index=True)

    def _judge_source(self, row: Row, length: float) -> None:
        source = self._sources[row["source"]]
        source.pairs += 1
        source.seconds += length
        source.dropped = source.dropped or "source" in row["reasons"]
        if row["keep"]:
            source.kept += 1
            source.kept_s += length
        if row["wer"] is None or set(row["reasons"]) - _QUALITY:
            return
        source.compared += 1
        source.compared_s += length
        source.rates += min(row["wer"], 1.0)
        if row["wer"] > source.worst[0]:
            source.worst = row["wer"], row["uri"], row["text"][:_SHOWN], row["heard"][:_SHOWN]
