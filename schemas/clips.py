"""`DATASET/clips/part-*.parquet`: one row a candidate clip, kept or not, with the numbers and the reasons."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import column

CLIPS = pa.schema(
    [
        column(
            "clip_id", pa.string(), "The recording's id and a number: the clip's name in all formats.", nullable=False
        ),
        column("recording_id", pa.string(), "Joins recordings.recording_id of the transcripts.", nullable=False),
        column("index", pa.int32(), "0, 1, ... in the order of the recording.", nullable=False),
        column(
            "start", pa.float64(), "From the start of the recording; of a kept clip, its edge.", "s", nullable=False
        ),
        column("end", pa.float64(), "From the start of the recording; of a kept clip, its edge.", "s", nullable=False),
        column("text", pa.string(), "What is said in it.", nullable=False),
        column("language", pa.string(), "Code of the language.", nullable=False),
        column(
            "speaker",
            pa.string(),
            'Who speaks, among all recordings: "RECORDING_ID/Speaker 1"; null where there is none, or more than one.',
        ),
        column("kept", pa.bool_(), "Whether it is in the data set.", nullable=False),
        column("reasons", pa.list_(pa.string()), "Why it was not kept; empty for kept ones.", nullable=False),
        column("split", pa.string(), "Which of train, validation and test it lies in.", nullable=False),
        column(
            "shards", pa.list_(pa.string()), "Files of the data set that hold it; empty where not kept.", nullable=False
        ),
        column("audio_error", pa.string(), "Why its audio could not be read again. Null when it was not tried."),
        column("sample_rate", pa.int32(), "Of the audio as it was read and written.", "Hz"),
        column("task", pa.string(), "transcribe, or translate (into English).", nullable=False),
        column("segments", pa.list_(pa.int32()), "The segments that it has words of: segments.index.", nullable=False),
        column(
            "words", pa.int32(), "Number of words with times; 0 where the segments alone have times.", nullable=False
        ),
        column("flags", pa.list_(pa.string()), "Flags of its segments.", nullable=False),
        column("hallucination_probability", pa.float64(), "The highest of its segments."),
        column("avg_logprob", pa.float64(), "The lowest of its segments.", "nats"),
        column("language_probability", pa.float64(), "The lowest of its segments."),
        column("no_speech_prob", pa.float64(), "The highest of its segments."),
        column("compression_ratio", pa.float64(), "The highest of its segments."),
        column("evidence_per_token", pa.float64(), "The lowest of its segments.", "nats"),
        column(
            "second_wer",
            pa.float64(),
            "The highest word error rate of a second opinion on its segments; null where nobody was asked.",
        ),
        column("second_edge_cer", pa.float64(), "The higher one of its first and its last segment, likewise."),
        column("word_probability", pa.float64(), "Mean probability of its words."),
        column("letters", pa.int32(), "Letters, digits and marks of the text.", nullable=False),
        column("seconds_per_letter", pa.float64(), "Speech over letters.", "s"),
        column(
            "pace_deviation",
            pa.float64(),
            "How far that is above its language's median in this corpus, in robust standard deviations.",
        ),
        column("text_group", pa.int64(), "The same for clips whose texts are nearly the same.", nullable=False),
        column("snr_db", pa.float64(), "Estimated signal-to-noise ratio: loud frames over the quietest.", "dB"),
        column("clipped", pa.float64(), "Share of samples at full scale or in flat tops."),
        column("bandwidth_hz", pa.float64(), "Highest frequency at which speech stands out of the noise.", "Hz"),
        column("loudness_lufs", pa.float64(), "Integrated loudness, ITU-R BS.1770.", "LUFS"),
        column("peak_db", pa.float64(), "Largest sample, of full scale.", "dB"),
        column("speech_share", pa.float64(), "Share of detected speech."),
        column("edge_db", pa.float64(), "Level of the louder edge (30 ms) against the speech.", "dB"),
        column(
            "quality_mos", pa.float64(), "Estimated mean opinion score, 1 to 5; null where another gate had failed."
        ),
    ]
)
