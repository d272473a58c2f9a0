"""An output against its references: a table with a row a recording, and what it says in total and by group.

Duty: which text is compared with which, and what is counted. How texts are compared stands in `text.py`, how they are
found in `references.py`. Prints nothing.

A failed recording has said nothing: its words are deleted. One that is missing in the output is counted apart, unless
asked for otherwise.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from pipeline import storage, text, transcripts, translation
from pipeline.errors import UserError
from pipeline.references import Matched, Reference, match, travelled
from pipeline.resampling import ResampleOptions, interval_of_rate
from pipeline.timing import TimeErrors, time_errors
from pipeline.types import setting

DURATIONS = ((5, "< 5 s"), (10, "5-10 s"), (30, "10-30 s"), (120, "30 s-2 min"), (600, "2-10 min"), (3600, "10-60 min"))
LONGEST = "> 1 h"
NONE = "(none)"
_COUNTS = tuple(item.name for item in fields(text.Errors))
_BINS = 4  # of a column of numbers: as many recordings in each
_DISTINCT = 12  # numbers that are still taken as names


@dataclass(frozen=True)
class EvaluationOptions:
    """What counts."""

    missing: str = setting(
        "apart",
        "What becomes of references whose recording the output does not have: apart (told, not counted), or deleted"
        " (all their words count as deleted). Failed recordings always count as deleted.",
        choices=("apart", "deleted"),
    )


@dataclass(frozen=True)
class Evaluation:
    """What came of it."""

    table: pd.DataFrame  # a row a recording: counts, rates, texts, all columns of the references
    translated: bool  # scored by BLEU and chrF against translations
    unreferenced: int  # recordings without a reference
    unknown: int  # references whose text is unknown
    by_name: int  # recordings found by their file's name only
    times: TimeErrors


@dataclass(frozen=True, slots=True)
class _Heard:
    """A recording as the output has it."""

    row: Mapping[str, Any]
    text: str
    reference: Reference


def evaluate(
    out: str,
    references: Sequence[Reference] | None,
    texts: text.TextOptions,
    options: EvaluationOptions,
) -> Evaluation:
    """Compare an output with its references; without any, with those that its recordings' metadata hold.

    The language of a recording is the reference's, else what was detected. Raises UserError where no recording has a
    reference.
    """
    matched = _matched(out, references)
    heard, tasks, times = [], Counter[str](), TimeErrors()
    recordings = 0
    for item in transcripts.transcripts(out, words=True):
        recordings += 1
        tasks.update(segment["task"] for segment in item.segments)
        reference = matched.by_id.get(item.recording["recording_id"])
        if reference is None:
            continue
        times += time_errors(reference, item.segments, item.words)
        spoken = " ".join(segment["text"].strip() for segment in item.segments)
        heard.append(_Heard(_columns(item.recording, reference), spoken, reference))
    heard += [_Heard(_absent(one), "", one) for one in matched.missing]
    translated = set(tasks) == {"translate"}
    known = [item for item in heard if _target(item.reference, translated) is not None]
    _check(out, known, heard, translated)
    table = pd.DataFrame([_scored(item, translated, texts) for item in known])
    table["language"] = table["language"].astype(object).where(table["language"].notna(), None)  # pandas makes it NaN
    table["counted"] = (table["status"] != "missing") | (options.missing == "deleted")
    unreferenced = recordings - len(matched.by_id)
    return Evaluation(table, translated, unreferenced, len(heard) - len(known), matched.by_name, times)


def _matched(out: str, references: Sequence[Reference] | None) -> Matched:
    columns = ["recording_id", "uri", "metadata"]
    rows = [row for table in transcripts.recordings(out, columns) for row in table.to_pylist()]
    if references is not None:
        return match(references, ((row["recording_id"], row["uri"]) for row in rows))
    found = {row["recording_id"]: reference for row in rows if (reference := travelled(row))}
    return Matched(found, 0, ())


def _check(out: str, known: Sequence[_Heard], heard: Sequence[_Heard], translated: bool) -> None:
    shown = storage.redacted(out)
    if not any(item.row["status"] != "missing" for item in heard):
        hint = "give them with --references; their uris, or the names of their files, must be those of the recordings"
        raise UserError(f"no recording of {shown} has a reference", hint)
    if not known:
        column = "translation" if translated else "text"
        raise UserError(
            f"no reference of the recordings of {shown} has a {column}",
            "the output is a translation: it needs a column `translation`" if translated else "",
        )


def _target(reference: Reference, translated: bool) -> str | None:
    return reference.translation if translated else reference.text


def _columns(row: Mapping[str, Any], reference: Reference) -> dict[str, Any]:
    """Return what recordings can be grouped by: the output's columns, its metadata's, the reference's."""
    told = {name: value for name, value in json.loads(row["metadata"]).items() if name not in ("text", "translation")}
    plain = {name: value for name, value in row.items() if name not in ("metadata", "speechless", "part")}
    ours = {"language": reference.language or row["language"], "folder": storage.parent(row["uri"])}
    return {**told, **reference.metadata, **plain, **ours, "reference_id": reference.recording_id}


def _absent(reference: Reference) -> dict[str, Any]:
    ours = {"uri": reference.name, "status": "missing", "language": reference.language}
    ours |= {"folder": storage.parent(reference.name), "reference_id": reference.recording_id}
    return {**reference.metadata, "recording_id": None, **ours}


def _scored(item: _Heard, translated: bool, texts: text.TextOptions) -> dict[str, Any]:
    said = _target(item.reference, translated) or ""
    compared = text.compare(said, item.text, item.row["language"], texts)
    errors = compared.errors
    scores: dict[str, Any] = {name: getattr(errors, name) for name in _COUNTS} | {"wer": errors.wer, "cer": errors.cer}
    if translated:
        scores |= translation.of_a_recording(said, item.text)
    return {**item.row, **scores, "spaceless": compared.spaceless, "reference": said, "hypothesis": item.text}


# --- in total and by group ------------------------------------------------------------------------------------------


def summary(table: pd.DataFrame, translated: bool, options: ResampleOptions) -> dict[str, Any]:
    """Return counts, rates and their intervals for the recordings of a table that count."""
    counted = table[table["counted"]]
    silent = counted[counted["words"] == 0]
    found: dict[str, Any] = {
        "recordings": len(counted),
        "failed": int((counted["status"] == "failed").sum()),
        "missing": int((table["status"] == "missing").sum()),
    }
    if translated:
        return found | translation.of_recordings(counted["reference"].tolist(), counted["hypothesis"].tolist(), options)
    found |= {name: int(counted[name].sum()) for name in _COUNTS}
    found |= _rate("wer", errors_of(counted), counted["words"], options)
    found |= _rate("cer", counted["character_errors"], counted["characters"], options)
    found |= {"silent": len(silent), "silent_with_text": int((silent["insertions"] > 0).sum())}
    return found


def variants(table: pd.DataFrame) -> dict[str, float | None]:
    """Return the word error rate without failed recordings, and with missing ones as deleted words."""
    present = table[table["status"] != "missing"]
    rows = {"wer_without_failed": present[present["status"] != "failed"], "wer_with_missing": table}
    return {name: _ratio(int(errors_of(some).sum()), int(some["words"].sum())) for name, some in rows.items()}


def errors_of(table: pd.DataFrame) -> pd.Series[int]:
    """Return the word errors of each recording."""
    return table["substitutions"] + table["deletions"] + table["insertions"]


def grouped(table: pd.DataFrame, by: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the groups of a column, in order.

    `source` is the recording's folder where no column is called so, `duration` a range of lengths; a column of many
    different numbers is cut into four groups of equal size. Raises UserError for an unknown column.
    """
    keys = _keys(table, by)
    order = list(keys.cat.categories) if isinstance(keys.dtype, pd.CategoricalDtype) else sorted(keys.unique())
    for key in order:
        if (rows := table[keys == key]).shape[0]:
            yield str(key), rows


def _keys(table: pd.DataFrame, by: str) -> pd.Series[Any]:
    if by == "duration" and by not in table.columns:
        order = [*(name for _, name in DURATIONS), LONGEST, NONE]
        return table["duration_s"].map(_length, na_action=None).astype(pd.CategoricalDtype(order))
    name = "folder" if by == "source" and by not in table.columns else by
    if name not in table.columns:
        columns = ", ".join(sorted({"source", "duration", *table.columns} - {*_COUNTS, "reference", "hypothesis"}))
        raise UserError(f"there is no column {by!r} to group by", f"there are: {columns}")
    column = table[name]
    numbers = column.dropna()
    if pd.api.types.is_numeric_dtype(numbers.infer_objects()) and numbers.nunique() > _DISTINCT:
        cut = pd.qcut(column.astype(float), _BINS, duplicates="drop")
        named = cut.cat.rename_categories([f"{span.left:g} to {span.right:g}" for span in cut.cat.categories])
        return named.cat.add_categories(NONE).fillna(NONE)
    return column.map(lambda value: NONE if value is None or value != value else str(value), na_action=None)


def _length(seconds: float) -> str:
    if seconds != seconds:
        return NONE
    return next((name for limit, name in DURATIONS if seconds < limit), LONGEST)


def _rate(name: str, errors: Any, units: Any, options: ResampleOptions) -> dict[str, float | None]:
    low, high = interval_of_rate(errors, units, options) or (None, None)
    return {name: _ratio(int(errors.sum()), int(units.sum())), f"{name}_low": low, f"{name}_high": high}


def _ratio(errors: int, units: int) -> float | None:
    return errors / units if units else None


def references_in(out: str) -> list[Reference]:
    """Return the references that the metadata of an output's recordings hold."""
    return list(_matched(out, None).by_id.values())


def in_language_of(references: Sequence[Reference], table: pd.DataFrame) -> list[Reference]:
    """Return references that say the language that the table was made with, so that a second one is made alike."""
    languages = dict(zip(table["reference_id"], table["language"], strict=True))
    return [replace(one, language=one.language or languages.get(one.recording_id)) for one in references]
