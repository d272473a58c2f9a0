"""Trains the probability that a text was invented, on development data that it makes itself; judges it on the rest.

    python bench/train_hallucination.py [FOLDER...] --rows rows.jsonl [--share 0.5] [--write]

Folders are as in `accuracy.py`; without any, --rows is taken as it is. What is not in --rows yet is made
(`conditions.py`), transcribed and held against what is said (`judged.py`), so that training again takes seconds.
Segments in doubt are left out. What a source of recordings (a corpus in a language) has is judged by weights that were
trained on the other sources. --write puts the weights of all into pipeline/hallucination_weights.py.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from judged import Answer, answers, segment_of
from logistic import Floats, auroc, fit, sigmoid

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline import hallucination

TARGET = Path(__file__).parents[1] / "pipeline" / "hallucination_weights.py"
RIDGE = 0.005
INVENTED_SHARE = 0.15  # of the weight of all examples: as if so many segments were invented
NOTHING_SHARE = 0.75  # of that: where nothing is said, which users mind most; the rest are wrong words
GROUPS = 6  # that sources are put into


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="*", type=Path)
    parser.add_argument("--rows", type=Path, required=True, help="what was heard, made or gone on with")
    parser.add_argument("--share", type=float, default=1.0, help="of the cases that are made of the folders")
    parser.add_argument("--model", default="base")
    parser.add_argument("--write", action="store_true", help="write the weights into the library")
    arguments = parser.parse_args()
    heard = answers(arguments.folder, arguments.rows, arguments.model, arguments.share)
    sets = {}
    for name, inputs in (("WITH_EVIDENCE", hallucination.WITH), ("WITHOUT_EVIDENCE", hallucination.WITHOUT)):
        examples = Examples(heard, inputs)
        print(f"{name}: {examples}, on sources that training did not see: {examples.held_out()}")  # noqa: T201
        sets[name] = dict(zip(["bias", *inputs], examples.weights(), strict=True))
        print("  " + "  ".join(f"{key} {value:.3f}" for key, value in sets[name].items()))  # noqa: T201
    if arguments.write:
        TARGET.write_text(module(sets, str(Examples(heard, hallucination.WITH))), encoding="utf-8")


class Examples:
    """The segments that are surely right or surely invented, as numbers."""

    def __init__(self, heard: Sequence[Answer], inputs: dict[str, int]) -> None:
        kept = [(one, row) for one in heard for row in one.rows if row["invented"] is not None]
        segments = [segment_of(row) for _, row in kept]
        if inputs is hallucination.WITHOUT:
            segments = [replace(one, evidence=None) for one in segments]
        found = [hallucination.inputs(one) for one in segments]
        self.x: Floats = np.array([[each[name] for name in inputs] for each in found])
        self.invented = np.array([row["invented"] for _, row in kept])
        self.nothing = np.array([not one.text or bool(row["in_gap"]) for one, row in kept])
        self.source = np.array([one.group for one, _ in kept])
        self.signs = list(inputs.values())
        # A text that a recording repeats counts once.
        texts = Counter((one.id, row["text"]) for one, row in kept)
        self.counts = self._counts(np.array([1 / texts[one.id, row["text"]] for one, row in kept]))

    def __str__(self) -> str:
        kinds = Counter(
            "nothing said" if nothing else "wrong words" if invented else "right"
            for nothing, invented in zip(self.nothing, self.invented, strict=True)
        )
        return ", ".join(f"{count} {kind}" for kind, count in kinds.items())

    def _counts(self, each: Floats) -> Floats:
        """Return how much each counts, so that the shares are what they shall be whatever there is of each."""
        shares = np.zeros(len(each))
        for mask, share in (
            (~self.invented, 1 - INVENTED_SHARE),
            (self.invented & self.nothing, INVENTED_SHARE * NOTHING_SHARE),
            (self.invented & ~self.nothing, INVENTED_SHARE * (1 - NOTHING_SHARE)),
        ):
            shares[mask] = share * each[mask] / max(1e-9, each[mask].sum())
        return shares

    def weights(self, here: np.ndarray | slice = slice(None)) -> Floats:
        """Return bias and weights by some of the examples."""
        return fit(self.x[here], self.invented[here].astype(float), self.signs, self.counts[here], RIDGE)

    def held_out_probabilities(self) -> Floats:
        """Return each example's probability by weights that were trained without its source."""
        names = sorted(set(self.source))
        found = np.zeros(len(self.x))
        for turn in range(GROUPS):
            away = np.isin(self.source, names[turn::GROUPS])
            if away.any():
                weights = self.weights(~away)
                found[away] = sigmoid(weights[0] + self.x[away] @ weights[1:])
        return found

    def held_out(self) -> str:
        """Say what the probability is worth there."""
        found = self.held_out_probabilities()
        sure, right = found > 0.5, ~self.invented
        said = f"AUROC {auroc(found, self.invented):.4f}; flagged at 0.5: {_percent(sure[right])} of the right"
        for name, mask in (("where nothing is said", self.nothing), ("wrong words", self.invented & ~self.nothing)):
            said += f", {_percent(sure[mask])} of {name} (AUROC {auroc(found[mask | right], mask[mask | right]):.4f})"
        return said


def _percent(flags: np.ndarray) -> str:
    return f"{100 * flags.mean():.2f} %" if len(flags) else "none"


def module(sets: dict[str, dict[str, float]], examples: str) -> str:
    """Return the module that holds the weights."""
    lines = [
        '"""The weights of `hallucination.py`: log-odds, by input. Written by training, not by hand:',
        "",
        "    python bench/train_hallucination.py FOLDER... --rows ROWS --write",
        "",
        f"From segments of Whisper base: {examples}.",
        '"""',
        "",
        "from __future__ import annotations",
    ]
    for name, weights in sets.items():
        lines += ["", f"{name}: dict[str, float] = {{"]
        lines += [f'    "{key}": {value:.4f},' for key, value in weights.items()] + ["}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
