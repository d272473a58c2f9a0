"""An output's recordings transcribed again, by the same options, with noise added: for `evaluate --add-noise`.

Policy and words; the noise stands in `pipeline/noise.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from jobs import transcribe
from jobs.options import collect
from pipeline import run_files, storage
from pipeline.errors import UserError
from pipeline.recordings import Recordings
from pipeline.sources import resolve
from pipeline.types import SAMPLE_RATE, Recording


def heard_of(table: pd.DataFrame) -> Recordings:
    """Return the recordings of an evaluation that its output has. Raises UserError where a tar of theirs is gone."""
    rows = table[table["status"] != "missing"].to_dict("records")
    files = {base for base, piece in (storage.split_piece(row["uri"]) for row in rows) if piece}
    pieces = {one.uri: one for one in resolve(sorted(files)).recordings} if files else {}
    return Recordings.of(_stretch(pieces.get(row["uri"]), row) for row in rows)


def _stretch(piece: Recording | None, row: Mapping[Any, Any]) -> Recording:
    """Return what a row of the recordings table was made of."""
    whole = piece or Recording("", row["uri"], None if pd.isna(row["size_bytes"]) else int(row["size_bytes"]))
    end = None if pd.isna(row["end_s"]) else round(row["end_s"] * SAMPLE_RATE)
    start = round(row["start_s"] * SAMPLE_RATE)
    return replace(whole, id=row["recording_id"], version=row["version"], start=start, end=end)


def transcribe_again(out: str, recordings: Recordings, ratio_db: float, runner: str) -> str:
    """Transcribe `recordings` as `out` was made, under noise `ratio_db` below their speech; return where to.

    What is there already is not done again. Raises UserError where `out` does not say how it was made.
    """
    noised = storage.join(out, "noise", f"{ratio_db:g}dB")
    values = _options(out, noised) | {"add_noise": ratio_db, "runner": runner}
    transcribe.transcribe(recordings, noised, collect(transcribe.JobOptions, values), values)
    return noised


def _options(out: str, noised: str) -> dict[str, Any]:
    """Return the values of transcribe's options that `out` was made by; defaults for what changes no rows."""
    config = run_files.latest_config(out)
    if config is None:
        raise UserError(
            f"{storage.redacted(out)} does not say how it was made", "OUT/runs, which is missing, holds the options"
        )
    defaults = transcribe.command.make_context("transcribe", [out, "--out", noised]).params
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    return {name: given.get(name, value) for name, value in defaults.items() if name not in ("source", "out")}
