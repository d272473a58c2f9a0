"""`OUT/people/part-00000.parquet`: who is heard in which recordings, made anew by `--link-speakers`."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import column

PEOPLE = pa.schema(
    [
        column(
            "person",
            pa.string(),
            'Label of a voice in all recordings: "Person 1" speaks longest. Not the same when recordings are added.',
            nullable=False,
        ),
        column("recording_id", pa.string(), "Joins recordings.recording_id.", nullable=False),
        column("speaker", pa.string(), "Joins speakers.speaker of that recording.", nullable=False),
        column("speech_s", pa.float64(), "How long the speaker speaks in the recording.", "s", nullable=False),
        column(
            "likeness",
            pa.float64(),
            "How much the speaker sounds like the person, who is the mean of all: a cosine, 1 for a single one.",
            nullable=False,
        ),
    ]
)
