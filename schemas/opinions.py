"""`OUT/opinions/part-*.parquet`: one row a doubtful segment, with what a second decoding makes of its audio."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import column

OPINIONS = pa.schema(
    [
        column("recording_id", pa.string(), "Joins recordings.recording_id.", nullable=False),
        column("index", pa.int32(), "Joins segments.index.", nullable=False),
        column("reasons", pa.list_(pa.string()), "Why the segment is doubtful.", nullable=False),
        column("start", pa.float64(), "Start in the file of what was heard again.", "s", nullable=False),
        column(
            "end",
            pa.float64(),
            "End of that. Doubtful segments beside each other are heard together, with 1 s before and behind.",
            "s",
            nullable=False,
        ),
        column(
            "text",
            pa.string(),
            "The second text, of all from start to end. Empty where the second model wrote nothing, null where the"
            " audio could not be read again.",
        ),
        column("language", pa.string(), "Code of the language that it is in."),
        column(
            "words",
            pa.int32(),
            "Words of the segment's first text, as they were compared; characters in scripts without spaces.",
        ),
        column(
            "wer",
            pa.float64(),
            "Word error rate of the second text against the first, in the segment: 0 where both agree. Null where the"
            " first has no words.",
        ),
        column("cer", pa.float64(), "Character error rate, likewise."),
        column(
            "edge_cer",
            pa.float64(),
            "Character error rate of the first three words or of the last three, whichever is higher: 0 where both"
            " texts begin and end alike.",
        ),
        column("avg_logprob", pa.float64(), "The second text's own, the lowest under the segment.", "nats"),
        column("no_speech_prob", pa.float64(), "The second model's probability that nobody speaks; the highest."),
        column("evidence_per_token", pa.float64(), "The second text's own, the lowest under the segment.", "nats"),
        column(
            "hallucination_probability", pa.float64(), "Probability that the second text was invented; the highest."
        ),
    ]
)
