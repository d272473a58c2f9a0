"""An output's recordings transcribed again, by the same options, with noise added: for `evaluate --add-noise`.

Policy and words; the noise stands in `pipeline/noise.py`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from jobs import transcribe
from jobs.options import collect
from jobs.running import JobOptions
from pipeline import rows, storage
from pipeline.recordings import Recordings

_NAMED = ["recording_id", "uri", "inside", "version", "size_bytes", "start_s", "end_s"]


def heard_of(table: pd.DataFrame) -> Recordings:
    """Return the recordings of an evaluation that its output has."""
    present = table.loc[table["status"] != "missing", _NAMED].astype(object)
    told: list[dict[str, Any]] = present.where(present.notna(), None).to_dict("records")  # type: ignore[assignment]
    return Recordings.of(map(rows.recording_of, told))


def transcribe_again(out: str, recordings: Recordings, ratio_db: float, runner: str) -> str:
    """Transcribe `recordings` as `out` was made, under noise `ratio_db` below their speech; return where to.

    What is there already is not done again. Raises UserError where `out` does not say how it was made.
    """
    noised = storage.join(out, "noise", f"{ratio_db:g}dB")
    values = transcribe.as_made(out) | {"add_noise": ratio_db, "runner": runner}
    transcribe.transcribe(recordings, noised, collect(JobOptions, values), values)
    return noised
