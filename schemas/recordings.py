"""`OUT/recordings/part-*.parquet`: the ledger. One row a recording, whatever became of it."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import FAILURE, RUN, column

STRETCH = pa.struct([pa.field("start", pa.float64(), nullable=False), pa.field("end", pa.float64(), nullable=False)])

GUESS = pa.struct(
    [pa.field("language", pa.string(), nullable=False), pa.field("probability", pa.float64(), nullable=False)]
)
OMISSION = pa.struct(
    [
        pa.field("start", pa.float64(), nullable=False),
        pa.field("end", pa.float64(), nullable=False),
        pa.field("speech_s", pa.float64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

RECORDINGS = pa.schema(
    [
        column("recording_id", pa.string(), "Hash of the canonical URI: the same in every run.", nullable=False),
        column("uri", pa.string(), "Where the audio is.", nullable=False),
        column(
            "inside",
            pa.string(),
            "What of the file it is, where it is a piece: bytes of a tar, a row of a Parquet file. Null for all of it.",
        ),
        column(
            "version", pa.string(), "Etag, or size and modification time, of the audio that was read.", nullable=False
        ),
        column(
            "part", pa.string(), "Name of the part file that holds this row and its segments and words.", nullable=False
        ),
        column("size_bytes", pa.int64(), "Size of the audio file; null where the store does not say.", "bytes"),
        column(
            "status",
            pa.string(),
            "ok; partial: some of the audio did not come, what came is there; failed: none came.",
            nullable=False,
        ),
        *FAILURE,
        column("container", pa.string(), "ffmpeg's name of the container."),
        column("codec", pa.string(), "ffmpeg's name of the audio codec."),
        column("sample_rate", pa.int32(), "Of the source, before resampling to 16 kHz.", "Hz"),
        column("channels", pa.int32(), "Of the source, before mixing down."),
        column(
            "selection",
            pa.string(),
            "What was listened to: mix, or the channel or track chosen because only it held speech.",
        ),
        column(
            "start_s", pa.float64(), "Start of the stretch that was asked for; 0 where none was.", "s", nullable=False
        ),
        column("end_s", pa.float64(), "Its end; null where none was asked for.", "s"),
        column("duration_s", pa.float64(), "Length of the audio that was decoded.", "s"),
        column("speech_s", pa.float64(), "Detected speech.", "s"),
        column("speechless", pa.list_(STRETCH), "Stretches without speech that were not transcribed.", "s"),
        column(
            "snr_db",
            pa.float64(),
            "Signal-to-noise ratio of the speech: its power over that of its pauses. Null with hardly any speech.",
            "dB",
        ),
        column(
            "language",
            pa.string(),
            "Code of the language: its passages' vote, weighted by speech. Null without speech.",
        ),
        column("language_probability", pa.float64(), "Mean probability of that language, weighted by speech."),
        column(
            "languages",
            pa.list_(GUESS),
            "What the audio sounds like, whatever was forced: the three likeliest, weighted by speech.",
        ),
        column(
            "omissions",
            pa.list_(OMISSION),
            "Speech that the text lacks: where, how much of it, and no_text, silenced or too_short.",
            "s",
        ),
        column("omitted_s", pa.float64(), "Speech that the text lacks, in all.", "s"),
        column("segments", pa.int32(), "Number of segments.", nullable=False),
        column("flagged_segments", pa.int32(), "Number of segments with at least one flag.", nullable=False),
        column("model", pa.string(), "Name of the model.", nullable=False),
        *RUN,
        column(
            "metadata",
            pa.string(),
            "JSON object of what travels: other columns, texts beside the audio, words of a feed.",
            nullable=False,
        ),
    ]
)
