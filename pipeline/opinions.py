"""Second opinions, counted: on how many segments they are, and how far both texts agree, for each reason of doubt.

Duty: numbers of `OUT/opinions`, part by part. Knows no page. Read by `page.py`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import transcripts

Keys = NDArray[np.uint64]  # of transcripts: hashes, since there may be millions of them

_REVIEW = ["recording_id", "transcript", "part", "doubtful", "asked", "heard_s", "model"]
_OPINION = ["recording_id", "reasons", "words", "wer", "edge_cer"]


@dataclass
class Agreement:
    """How far two texts of the same segments agree. What could not be compared (no words, no audio) counts as asked."""

    asked: int = 0
    compared: int = 0
    agreed: int = 0  # in each word
    words: int = 0
    errors: float = 0.0  # words of the second texts, were the first ones right
    edges: float = 0.0  # sum of the error rates of characters at the edges

    @property
    def agreed_share(self) -> float:
        return self.agreed / self.compared if self.compared else math.nan

    @property
    def wer(self) -> float:
        return self.errors / self.words if self.words else math.nan

    @property
    def edge_cer(self) -> float:
        return self.edges / self.compared if self.compared else math.nan

    def add(self, rows: pd.DataFrame) -> None:
        """Count rows of opinions."""
        compared = rows[rows["wer"].notna()]
        self.asked += len(rows)
        self.compared += len(compared)
        self.agreed += int((compared["wer"] == 0).sum())
        self.words += int(compared["words"].sum())
        self.errors += float((compared["wer"] * compared["words"]).sum())
        self.edges += float(compared["edge_cer"].sum())


@dataclass
class Opinions:
    """What second opinions say in all."""

    recordings: int = 0
    outdated: int = 0  # recordings that were transcribed anew since; nothing else counts them
    doubtful: int = 0  # segments; those in languages that the second model does not know were not asked about
    heard_s: float = 0.0
    models: Counter[str] = field(default_factory=Counter)
    all: Agreement = field(default_factory=Agreement)
    by_reason: dict[str, Agreement] = field(default_factory=lambda: defaultdict(Agreement))


def keys(recordings: pa.Table, run: str) -> Keys:
    """Return keys of transcripts: of recordings as the run in the column `run` has transcribed them."""
    rows = recordings.select(["recording_id", run]).to_pandas()
    return np.asarray(pd.util.hash_pandas_object(rows, index=False), np.uint64)


def are_in(out: str) -> bool:
    """Say whether anybody was asked for second opinions on this output."""
    return next(transcripts.reviews(out, ["part"]), None) is not None


def opinions(out: str, current: Iterable[Keys]) -> Opinions:
    """Count the opinions in an output on its transcripts, whose keys these are."""
    found, known = Opinions(), np.concatenate([np.empty(0, np.uint64), *current])
    for reviews, said in transcripts.opinions(out, _REVIEW, _OPINION):
        valid = np.isin(keys(reviews, "transcript"), known)
        listed = reviews.filter(pa.array(valid)).to_pandas()
        found.recordings += len(listed)
        found.outdated += int((~valid).sum())
        found.doubtful += int(listed["doubtful"].sum())
        found.heard_s += float(listed["heard_s"].sum())
        found.models.update(listed["model"])
        rows = said.to_pandas()
        rows = rows[rows["recording_id"].isin(listed["recording_id"])]
        found.all.add(rows)
        for reason, some in rows.explode("reasons").groupby("reasons"):
            found.by_reason[str(reason)].add(some)
    return found
