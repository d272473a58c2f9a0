"""The card of a cleaned data set: README.md with what is in it, what was dropped and why, and where it is from.

Knows the tallies; no stores.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.card import SIZES
from pipeline.tallies import Tallies
from pipeline.types import KEPT
from pipeline.verdicts import REASONS

EXAMPLE_COLUMNS = ("kept", "reasons", "language", "task", "no_speech", "start", "end")


@dataclass
class Made:
    """What is in the data set."""

    examples: int = 0
    seconds: float = 0.0
    no_speech: int = 0
    languages: Counter[tuple[str, str]] = field(default_factory=Counter)  # language and task -> examples
    lengths: Counter[tuple[str, str]] = field(default_factory=Counter)  # the same -> milliseconds
    reasons: Counter[str] = field(default_factory=Counter)
    reasons_ms: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, Any]:
        """Return the totals as a command tells them."""
        return {
            "examples": self.examples,
            "example_hours": round(self.seconds / 3600, 4),
            "no_speech_examples": self.no_speech,
            "example_reasons": dict(self.reasons.most_common()),
        }


def made(tables: Iterable[pa.Table]) -> Made:
    """Add up the examples."""
    found = Made()
    for table in tables:
        for row in table.select(EXAMPLE_COLUMNS).to_pylist():
            length = row["end"] - row["start"]
            for reason in row["reasons"][:1]:
                found.reasons[reason] += 1
                found.reasons_ms[reason] += round(length * 1000)
            if row["kept"]:
                kind = (row["language"] or "no speech", row["task"])
                found.examples += 1
                found.seconds += length
                found.no_speech += row["no_speech"]
                found.languages[kind] += 1
                found.lengths[kind] += round(length * 1000)
    return found


def card(
    tallies: Tallies, found: Made, reasons: Mapping[str, str], config: Mapping[str, Any], title: str, licence: str
) -> bytes:
    """Return the page. `reasons` are those against stretches of kept pairs."""
    parts = [_header(found, config, title, licence), f"# {title}\n", _about(tallies, found, licence)]
    parts += [_examples(found), _waterfall(tallies), _stretches(found, reasons), _options(config)]
    return "\n".join(part for part in parts if part).encode()


def _header(found: Made, config: Mapping[str, Any], title: str, licence: str) -> str:
    languages = sorted({language for language, _ in found.languages} - {"no speech"})
    size = next((name for limit, name in SIZES if found.examples < limit), "n>1M")
    lines = ["---", f"pretty_name: {json.dumps(title, ensure_ascii=False)}", f"license: {json.dumps(licence)}"]
    lines += ["language:", *(f"- {json.dumps(language)}" for language in languages)] if languages else []
    lines += ["task_categories:", "- automatic-speech-recognition", "size_categories:", f"- {size}"]
    lines += ["tags:", "- audio", "- weakly-supervised", "- bulkscribe"]
    if "parquet" in config["formats"] and found.examples:
        lines += ["configs:", "- config_name: default", "  data_files:", "  - split: train"]
        lines += ["    path: data/train-*.parquet"]
    return "\n".join([*lines, "---", ""])


def _about(tallies: Tallies, found: Made, licence: str) -> str:
    rights = "**The licence of the recordings was not stated.**" if licence == "unknown" else f"Licence: {licence}."
    kept, hours = tallies.reasons()[KEPT]
    return (
        f"{found.examples} training examples of at most 30 s, {found.seconds / 3600:.2f} h, from {kept} of"
        f" {tallies.pairs} pairs of audio and text ({hours:.2f} of {tallies.hours:.2f} h).\n\n"
        "The texts are **weak labels**: they were found beside the audio, and no person has compared them with it."
        " `pairs/` has a row for each pair with its numbers and the reasons why it was dropped, `examples/` one for"
        f" each stretch of those that were kept. {rights} Made by bulkscribe.\n"
    )


def _examples(found: Made) -> str:
    rows = [
        f"| {language} | {task} | {count} | {found.lengths[language, task] / 3_600_000:.3f} |"
        for (language, task), count in sorted(found.languages.items())
    ]
    return "\n".join(["## Examples\n", "| language | task | examples | hours |", "|---|---|---|---|", *rows, ""])


def _waterfall(tallies: Tallies) -> str:
    left = tallies.hours
    rows = [f"| all pairs | {tallies.pairs} | | {left:.3f} | |"]
    for reason, (count, hours) in tallies.reasons().items():
        if reason != KEPT:
            left -= hours
            rows.append(f"| `{reason}` | {count} | {hours:.3f} | {left:.3f} | {REASONS[reason]} |")
    head = ["| reason | pairs | hours | hours left | |", "|---|---|---|---|---|"]
    note = "Each pair counts once, for its first reason. `waterfall.csv` has the same by language and source.\n"
    return "\n".join(["## What was dropped\n", *head, *rows, "", note])


def _stretches(found: Made, reasons: Mapping[str, str]) -> str:
    rows = [
        f"| `{reason}` | {found.reasons[reason]} | {found.reasons_ms[reason] / 3_600_000:.3f} | {what} |"
        for reason, what in reasons.items()
        if found.reasons[reason]
    ]
    head = [
        "## Stretches of kept pairs that are no examples\n",
        "| reason | stretches | hours | |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""]) if rows else ""


def _options(config: Mapping[str, Any]) -> str:
    return "## Options\n\n```json\n" + json.dumps(config, indent=1, ensure_ascii=False) + "\n```\n"
