"""`OUT/decisions/part-*.parquet` of `filter`: one row a recording, with all numbers, the decision and its reason."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import FAILURE, RUN, column

LANGUAGE = pa.struct(
    [pa.field("language", pa.string(), nullable=False), pa.field("probability", pa.float64(), nullable=False)]
)
LISTENED = pa.struct(
    [
        pa.field("start", pa.float64(), nullable=False),
        pa.field("end", pa.float64(), nullable=False),
        pa.field("speech_s", pa.float64(), nullable=False),
        pa.field("no_speech_prob", pa.float64(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("language_probability", pa.float64(), nullable=False),
    ]
)

DECISIONS = pa.schema(
    [
        column("recording_id", pa.string(), "Hash of the canonical URI: the same in every run.", nullable=False),
        column("uri", pa.string(), "Where the audio is.", nullable=False),
        column(
            "version", pa.string(), "Etag, or size and modification time, of the audio that was read.", nullable=False
        ),
        column(
            "start_s", pa.float64(), "Start of the stretch that was asked for; 0 where none was.", "s", nullable=False
        ),
        column("end_s", pa.float64(), "Its end; null where none was asked for.", "s"),
        column("inside", pa.string(), "Where in a tar or table it lies; empty for a file of its own.", nullable=False),
        column("part", pa.string(), "Name of the part file that holds this row.", nullable=False),
        column("keep", pa.bool_(), "Whether the recording is kept: it then stands in kept.jsonl.", nullable=False),
        column(
            "reason",
            pa.string(),
            "Why: kept, or the first test that it failed: unreadable, duration, speech, sound, language.",
            nullable=False,
        ),
        column("size_bytes", pa.int64(), "Size of the audio file; null where the store does not say.", "bytes"),
        column(
            "status",
            pa.string(),
            "ok; partial: a part of what was to be looked at did not come; failed: none came.",
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
            "duration_s",
            pa.float64(),
            "Length of the recording: as its header says where it was not decoded to its end.",
            "s",
        ),
        column("looked_s", pa.float64(), "Audio that was decoded and searched for speech.", "s"),
        column("looks", pa.int32(), "Stretches in which it was looked at.", nullable=False),
        column("speech_share", pa.float64(), "Share of what was looked at that is detected speech."),
        column(
            "sound_share",
            pa.float64(),
            "Share of it without detected speech that is not silent: music, noise or anything else.",
        ),
        column("silence_share", pa.float64(), "Share of it without detected speech that is silent."),
        column(
            "no_speech_prob",
            pa.float64(),
            "The model's probability that nobody speaks in what it listened to, weighted by detected speech.",
        ),
        column("language", pa.string(), "Code of the likeliest language. Null where no speech was found."),
        column("language_probability", pa.float64(), "Its probability, over what the model listened to."),
        column("languages", pa.list_(LANGUAGE), "All languages of a probability above 0.001, the likeliest first."),
        column(
            "listened",
            pa.list_(LISTENED),
            "What the model listened to, with its own numbers: start, end and detected speech in seconds.",
            "s",
        ),
        column(
            "asked_language", pa.string(), "Language that the manifest names for the recording; it decides nothing."
        ),
        column("initial_prompt", pa.string(), "Prompt that the manifest names for the recording; for `transcribe`."),
        column("model", pa.string(), "Name of the model.", nullable=False),
        *RUN,
        column("metadata", pa.string(), "JSON object: the manifest's other columns.", nullable=False),
    ]
)
