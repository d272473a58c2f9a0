"""`OUT/words/part-*.parquet`: one row a word, when words are asked for."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import column

WORDS = pa.schema(
    [
        column("recording_id", pa.string(), "Joins recordings.recording_id.", nullable=False),
        column("segment", pa.int32(), "Joins segments.index.", nullable=False),
        column("index", pa.int32(), "0, 1, ... in the segment.", nullable=False),
        column("start", pa.float64(), "From the start of the recording.", "s", nullable=False),
        column("end", pa.float64(), "From the start of the recording.", "s", nullable=False),
        column(
            "word",
            pa.string(),
            "The word with its punctuation and the space before it, if it has one: joined, words are the text.",
            nullable=False,
        ),
        column("probability", pa.float64(), "Mean probability of its tokens.", nullable=False),
        column("speaker", pa.string(), "Label of who says it. Null without --speakers."),
    ]
)
