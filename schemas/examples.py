"""`CLEANED/examples/part-*.parquet`: one row a stretch of a kept pair's audio, an example for training or not."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import column

EXAMPLES = pa.schema(
    [
        column("clip_id", pa.string(), "The recording's id and a number: the example's name.", nullable=False),
        column("recording_id", pa.string(), "Joins pairs.recording_id.", nullable=False),
        column("index", pa.int32(), "0, 1, ... in the order of the recording.", nullable=False),
        column("start", pa.float64(), "From the start of the recording.", "s", nullable=False),
        column("end", pa.float64(), "From the start of the recording.", "s", nullable=False),
        column("kept", pa.bool_(), "Whether it is in the data set.", nullable=False),
        column("reasons", pa.list_(pa.string()), "Why it is not; empty for kept ones.", nullable=False),
        column("sequence", pa.string(), "What the model shall write, as text with Whisper's tokens.", nullable=False),
        column("text", pa.string(), "The same without tokens; empty where nobody speaks.", nullable=False),
        column("prompt", pa.string(), "The text right before it, which the sequence may begin with. Null for none."),
        column("language", pa.string(), "Code of the language of the audio; null where nobody speaks."),
        column("task", pa.string(), "transcribe, or translate (into English).", nullable=False),
        column("no_speech", pa.bool_(), "Whether it is an example of audio without speech.", nullable=False),
        column("source", pa.string(), "What its pair came from.", nullable=False),
        column("wer", pa.float64(), "Errors a word against what was heard in it; null where nothing was compared."),
        column("split", pa.string(), "Always train.", nullable=False),
        column("shards", pa.list_(pa.string()), "Files of the data set that hold it.", nullable=False),
        column("sample_rate", pa.int32(), "Of the audio as it was written.", "Hz"),
        column("audio_error", pa.string(), "Why its audio could not be read again. Null when it was not tried."),
    ]
)
