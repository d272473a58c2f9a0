"""`OUT/reviews/part-*.parquet`: one row a recording of whose transcript a second opinion was asked for."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import FAILURE, RUN, column

REVIEWS = pa.schema(
    [
        column("recording_id", pa.string(), "Joins recordings.recording_id.", nullable=False),
        column("uri", pa.string(), "Where the audio is.", nullable=False),
        column("version", pa.string(), "Of the audio that was heard again.", nullable=False),
        column(
            "transcript",
            pa.string(),
            "The recordings.run_id of what is judged: another one there means that the transcript is newer.",
            nullable=False,
        ),
        column("part", pa.string(), "File in opinions/ that holds its rows.", nullable=False),
        column(
            "status",
            pa.string(),
            "ok; partial: some of what was asked about could not be read again; failed: nothing could.",
            nullable=False,
        ),
        *FAILURE,
        column("doubtful", pa.int32(), "Number of doubtful segments.", nullable=False),
        column(
            "asked",
            pa.int32(),
            "Number of them that have a row in opinions; the others are in languages that the second model does not"
            " know.",
            nullable=False,
        ),
        column("heard_s", pa.float64(), "Audio that was heard again.", "s", nullable=False),
        column("model", pa.string(), "Name of the second model.", nullable=False),
        *RUN,
    ]
)
