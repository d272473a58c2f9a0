"""`origins/part-*.parquet` of a data set: one row a recording, whatever became of its clips."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import column

ORIGINS = pa.schema(
    [
        column("recording_id", pa.string(), "Joins recordings.recording_id of the transcripts.", nullable=False),
        column("uri", pa.string(), "Where the audio is.", nullable=False),
        column("version", pa.string(), "Of the audio that was transcribed.", nullable=False),
        column("split", pa.string(), "Which of train, validation and test all its clips lie in.", nullable=False),
        column(
            "status",
            pa.string(),
            "ok; untranscribed: it has failed before; unread: no clip's text passed, so that it was not read;"
            " partial: some of its audio did not come; failed: none came.",
            nullable=False,
        ),
        column("error_stage", pa.string(), "Where it failed: open, decode. Null when ok."),
        column(
            "error_kind", pa.string(), "A stable word for counting failures; changed: it is not what was transcribed."
        ),
        column("error_message", pa.string(), "The cause in its own words. Null when ok."),
        column("retryable", pa.bool_(), "Whether the failure was of passing kind."),
        column("sample_rate", pa.int32(), "Of the audio as it was read and written.", "Hz"),
        column("clips", pa.int32(), "Number of candidate clips.", nullable=False),
        column("kept", pa.int32(), "Number of clips in the data set.", nullable=False),
        column("kept_s", pa.float64(), "Their audio.", "s", nullable=False),
        column(
            "made_of", pa.string(), "Two hashes: of what examples were made from, and of what they are; null for clips."
        ),
        column("metadata", pa.string(), "JSON object: the manifest's other columns.", nullable=False),
    ]
)
