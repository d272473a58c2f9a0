"""Two runs over the same references: which is better, by how much, and how sure that is.

Duty: pair the recordings of two evaluations, and test the difference. Prints nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline import translation
from pipeline.evaluation import Evaluation, errors_of
from pipeline.resampling import ResampleOptions, interval_of_difference, matched_pairs_p

OTHER = "_other"  # ending of the second run's columns
_SHARED = ("words", "hits", "substitutions", "deletions", "insertions", "wer", "cer", "hypothesis", "status")


@dataclass(frozen=True)
class Paired:
    """The recordings that both runs have, a row each, and how many only one has."""

    table: pd.DataFrame  # the first run's columns; the second's end in `_other`; `change` is second to first, in errors
    only_first: int
    only_second: int
    translated: bool


def pair(first: Evaluation, second: Evaluation) -> Paired:
    """Put both runs side by side, by reference. What is missing in either is left out."""
    mine, theirs = (one.table[one.table["counted"]].set_index("reference_id") for one in (first, second))
    columns = [*_SHARED, *(name for name in translation.METRICS if name in theirs.columns)]
    both = mine.join(theirs[columns].add_suffix(OTHER), how="inner")
    both["errors"] = errors_of(both)
    both["errors_other"] = both[["substitutions_other", "deletions_other", "insertions_other"]].sum(axis=1)
    both["change"] = both["chrf_other"] - both["chrf"] if first.translated else both["errors"] - both["errors_other"]
    return Paired(both.reset_index(), len(mine) - len(both), len(theirs) - len(both), first.translated)


def difference(paired: Paired, options: ResampleOptions) -> dict[str, Any]:
    """Return how the first run differs from the second.

    `change` counts errors more (in translations: points of chrF less), so that below zero the first run is better.
    """
    table = paired.table
    found: dict[str, Any] = {
        "recordings": len(table),
        "only_first": paired.only_first,
        "only_second": paired.only_second,
        "better": int((table["change"] < 0).sum()),
        "same": int((table["change"] == 0).sum()),
        "worse": int((table["change"] > 0).sum()),
        "not_worse": float((table["change"] <= 0).mean()) if len(table) else None,
    }
    if paired.translated:
        if not len(table):
            return found
        said, heard, other = (table[name].tolist() for name in ("reference", "hypothesis", "hypothesis_other"))
        return found | translation.difference(said, heard, other, options)
    counts = (table["errors"], table["words"], table["errors_other"], table["words_other"])
    low, high = interval_of_difference(*counts, options) or (None, None)
    rates = [
        int(errors.sum()) / int(words.sum()) if words.sum() else None for errors, words in (counts[:2], counts[2:])
    ]
    apart = rates[0] - rates[1] if rates[0] is not None and rates[1] is not None else None
    found |= {"wer": rates[0], "wer_other": rates[1], "wer_difference": apart}
    return found | {
        "wer_difference_low": low,
        "wer_difference_high": high,
        "p": matched_pairs_p(table["change"].to_numpy(), options),
    }
