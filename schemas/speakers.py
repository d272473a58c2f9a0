"""`OUT/speakers/part-*.parquet`: one row a speaker of a recording, when speakers are told apart."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import column

TURN = pa.struct([pa.field("start", pa.float64(), nullable=False), pa.field("end", pa.float64(), nullable=False)])

SPEAKERS = pa.schema(
    [
        column("recording_id", pa.string(), "Joins recordings.recording_id.", nullable=False),
        column("speaker", pa.string(), 'Joins segments.speaker: "Speaker 1" speaks first.', nullable=False),
        column("speech_s", pa.float64(), "How long the speaker speaks.", "s", nullable=False),
        column(
            "turns",
            pa.list_(TURN),
            "When the speaker speaks, from the start of the recording; turns of two speakers may overlap.",
            "s",
            nullable=False,
        ),
        column(
            "vector",
            pa.list_(pa.float32()),
            "What the voice sounds like, of length 1: the more alike two voices, the greater their product.",
            nullable=False,
        ),
    ]
)
