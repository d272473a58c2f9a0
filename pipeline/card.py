"""The card of a data set: README.md as hubs show it, with what is in it, what is not and why, and where it is from.

Duty: numbers of the clips and origins tables, and their page in Markdown. Knows Arrow; no stores.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.candidates import SPLITS
from pipeline.gates import REASONS

_TASKS = {"asr": "automatic-speech-recognition", "tts": "text-to-speech", "lid": "audio-classification"}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
CLIP_COLUMNS = ("kept", "reasons", "split", "language", "start", "end")
ORIGIN_COLUMNS = ("status", "error_kind", "kept")


@dataclass
class Totals:
    """What a data set holds and leaves out; seconds and numbers of clips."""

    kept: Counter[tuple[str, str]] = field(default_factory=Counter)  # by split and language
    kept_s: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    candidates: int = 0
    candidates_s: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    reasons_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    first_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # only the first reason
    origins: Counter[str] = field(default_factory=Counter)  # by status
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def clips(self) -> int:
        return sum(self.kept.values())

    @property
    def hours(self) -> float:
        return sum(self.kept_s.values()) / 3600

    def counts(self) -> dict[str, Any]:
        """Return the totals as a command tells them."""
        return {
            "recordings": sum(self.origins.values()),
            "origins": dict(sorted(self.origins.items())),
            "failures": dict(sorted(self.failures.items())),
            "candidates": self.candidates,
            "candidate_hours": round(self.candidates_s / 3600, 4),
            "clips": self.clips,
            "hours": round(self.hours, 4),
            "splits": {split: sum(n for (of, _), n in self.kept.items() if of == split) for split in SPLITS},
            "reasons": dict(self.reasons.most_common()),
        }


def totals(clips: Iterable[pa.Table], origins: Iterable[pa.Table]) -> Totals:
    """Add up the tables."""
    found = Totals()
    for table in clips:
        for row in table.select(CLIP_COLUMNS).to_pylist():
            length = row["end"] - row["start"]
            found.candidates += 1
            found.candidates_s += length
            if row["kept"]:
                found.kept[row["split"], row["language"]] += 1
                found.kept_s[row["split"], row["language"]] += length
            for reason in row["reasons"]:
                found.reasons[reason] += 1
                found.reasons_s[reason] += length
            for reason in row["reasons"][:1]:
                found.first_s[reason] += length
    for table in origins:
        found.origins.update(table["status"].to_pylist())
        found.failures.update(kind for kind in table["error_kind"].to_pylist() if kind)
    return found


def card(found: Totals, config: Mapping[str, Any], models: Iterable[str], title: str, licence: str) -> bytes:
    """Return the page."""
    parts = [_header(found, config, title, licence), f"# {title}\n", _about(found, config, models, licence)]
    parts += [_splits(found), _waterfall(found), _origins(found), _options(config)]
    return "\n".join(parts).encode()


def _header(found: Totals, config: Mapping[str, Any], title: str, licence: str) -> str:
    languages = sorted({language for _, language in found.kept})
    size = next((name for limit, name in SIZES if found.clips < limit), "n>1M")
    lines = ["---", f"pretty_name: {json.dumps(title, ensure_ascii=False)}", f"license: {json.dumps(licence)}"]
    lines += ["language:", *(f"- {json.dumps(language)}" for language in languages)] if languages else []
    lines += ["task_categories:", f"- {_TASKS[config['preset']]}", "size_categories:", f"- {size}"]
    lines += ["tags:", "- audio", "- pseudo-labelled", "- bulkscribe"]
    splits = [split for split in SPLITS if any(of == split for of, _ in found.kept)]
    if "parquet" in config["formats"] and splits:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split in splits:
            lines += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    return "\n".join([*lines, "---", ""])


def _about(found: Totals, config: Mapping[str, Any], models: Iterable[str], licence: str) -> str:
    kind = {"asr": "speech recognition", "tts": "text to speech", "lid": "language identification"}[config["preset"]]
    rights = "**The licence of the recordings was not stated.**" if licence == "unknown" else f"Licence: {licence}."
    return (
        f"{found.clips} clips, {found.hours:.2f} h, cut from {sum(found.origins.values())} recordings for {kind}.\n\n"
        f"The texts are **machine-made** (Whisper models: {', '.join(sorted(models)) or 'none'}) and no person has read"
        " them; clips were chosen by the numbers in `clips/`, which has a row for each candidate, kept or not, with the"
        f" reasons. {rights} Made by bulkscribe from transcripts `{config['transcripts']}`.\n"
    )


def _splits(found: Totals) -> str:
    rows = [
        f"| {split} | {language} | {found.kept[split, language]} | {found.kept_s[split, language] / 3600:.3f} |"
        for split in SPLITS
        for language in sorted({of for at, of in found.kept if at == split})
    ]
    note = (
        "A recording lies in one split, and so do clips whose texts are nearly the same. Speakers may be in several"
        " splits unless the recordings were divided by speaker.\n"
    )
    return "\n".join(["## Splits\n", "| split | language | clips | hours |", "|---|---|---|---|", *rows, "", note])


def _waterfall(found: Totals) -> str:
    left = found.candidates_s
    rows = [f"| all candidates | | | {left / 3600:.3f} | |"]
    for reason, what in REASONS.items():
        if found.reasons[reason]:
            left -= found.first_s[reason]
            shares = f"{found.reasons[reason]} | {found.reasons_s[reason] / 3600:.3f} | {left / 3600:.3f}"
            rows.append(f"| `{reason}` | {shares} | {what} |")
    head = ["| reason | clips | hours | hours left | |", "|---|---|---|---|---|"]
    note = "Hours left: after this reason and those above, in the order in which a clip's reasons are told.\n"
    return "\n".join(["## What was left out\n", *head, *rows, "", note])


def _origins(found: Totals) -> str:
    rows = [f"| {status} | {count} |" for status, count in sorted(found.origins.items())]
    rows += [f"| failed or partial: {kind} | {count} |" for kind, count in sorted(found.failures.items())]
    return "\n".join(["## Recordings\n", "| became | recordings |", "|---|---|", *rows, ""])


def _options(config: Mapping[str, Any]) -> str:
    return "## Options\n\n```json\n" + json.dumps(config, indent=1, ensure_ascii=False) + "\n```\n"
