"""Which recordings and segments are worth a look: the worst, those that took most decoding, and some by chance.

Duty: choose a few of many while they pass by, the same ones each time. Knows no page and no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline.types import NOT_NEGATIVE, setting

_ENOUGH_S = 5.0  # of text in a recording that is called bad or slow


@dataclass(frozen=True)
class PickOptions:
    """How much is shown."""

    worst: int = setting(
        10, "Recordings in the lists of the worst, and of those that took most decoding.", within=NOT_NEGATIVE
    )
    timelines: int = setting(
        6, "Recordings whose time is drawn: some of the worst, the others by chance.", within=NOT_NEGATIVE
    )
    samples: int = setting(
        4, "Segments to show of each flag, and three times as many without one.", within=NOT_NEGATIVE
    )
    examples: int = setting(5, "Recordings to name for each kind of failure.", within=NOT_NEGATIVE)


@dataclass
class Picks:
    """Tables of the chosen; each `add` keeps the best of what was kept and what is new."""

    options: PickOptions = field(default_factory=PickOptions)
    worst: pd.DataFrame = field(default_factory=pd.DataFrame)
    slowest: pd.DataFrame = field(default_factory=pd.DataFrame)
    chance: pd.DataFrame = field(default_factory=pd.DataFrame)  # recordings
    samples: dict[str, pd.DataFrame] = field(default_factory=dict)  # segments, by flag; "" for those without

    def add(self, listed: pd.DataFrame, spoken: pd.DataFrame) -> None:
        """Look at the recordings and segments of a part: tables of `digest.py`."""
        if spoken.empty:
            return
        rated = _rated(listed, spoken)
        enough = rated[rated["text_s"] >= _ENOUGH_S]
        worst, count = enough[enough["flagged_share"] > 0], self.options.worst
        self.worst = _kept(self.worst, worst, ["flagged_share", "flagged_s"], count)
        slow = enough[enough["decodings_a_minute"] > 0]
        self.slowest = _kept(self.slowest, slow, ["decodings_a_minute", "decodings"], count)
        self.chance = _kept(self.chance, rated, ["chance"], self.options.timelines)
        self._add_samples(listed, spoken[spoken["characters"] > 0])

    def timelines(self) -> list[tuple[str, str]]:
        """Return (recording_id, part) of those to draw: up to half of them the worst, one the slowest, then chance."""
        half = max(1, self.options.timelines // 2)
        tables = (self.worst.head(half), self.slowest.head(1), self.chance)
        chosen = dict.fromkeys(
            (str(row.recording_id), str(row.part)) for table in tables for row in table.itertuples()
        )  # each once, in this order
        return list(chosen)[: self.options.timelines]

    def _add_samples(self, listed: pd.DataFrame, spoken: pd.DataFrame) -> None:
        hashes = pd.util.hash_array(spoken["recording_id"].to_numpy(dtype=object))
        drawn = spoken.assign(chance=pd.util.hash_array(hashes ^ spoken["index"].to_numpy(np.uint64)))
        for flag, some in _by_flag(drawn):
            count = self.options.samples * (1 if flag else 3)
            where = listed[["recording_id", "uri", "version", "selection"]]
            some = some.nlargest(count, "chance").merge(where, on="recording_id")
            self.samples[flag] = _kept(self.samples.get(flag, pd.DataFrame()), some, ["chance"], count)


def _by_flag(spoken: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "", spoken[~spoken["flagged"]]
    flagged = spoken[spoken["flagged"]]
    for flag, some in flagged.assign(flag=flagged["flags"]).explode("flag").groupby("flag"):
        yield str(flag), some.drop(columns="flag")


def _rated(listed: pd.DataFrame, spoken: pd.DataFrame) -> pd.DataFrame:
    """Return the recordings that have text, with numbers to rank them by."""
    marked = spoken.assign(flagged_s=spoken["seconds"].where(spoken["flagged"], 0.0))
    sums = marked.groupby("recording_id").agg(
        text_s=("seconds", "sum"),
        flagged_s=("flagged_s", "sum"),
        decodings=("decodings", "sum"),
        avg_logprob=("avg_logprob", "mean"),
    )
    rated = listed.merge(sums, left_on="recording_id", right_index=True)
    text_s = rated["text_s"].where(rated["text_s"] > 0)
    return rated.assign(
        flagged_share=(rated["flagged_s"] / text_s).fillna(0.0),
        decodings_a_minute=(60 * rated["decodings"] / text_s).fillna(0.0),
        chance=pd.util.hash_array(rated["recording_id"].to_numpy(dtype=object)),
    )


def _kept(before: pd.DataFrame, new: pd.DataFrame, by: list[str], count: int) -> pd.DataFrame:
    if new.empty:
        return before
    best = new.nlargest(count, by)
    joined = pd.concat([before, best], ignore_index=True) if len(before) else best
    return joined.nlargest(count, by)
