"""`OUT/segments/part-*.parquet`: one row a segment of text, with the numbers that tell good text from bad."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import column
from schemas.recordings import GUESS

ATTEMPT = pa.struct(
    [
        pa.field("temperature", pa.float64(), nullable=False),
        pa.field("avg_logprob", pa.float64(), nullable=False),
        pa.field("compression_ratio", pa.float64(), nullable=False),
    ]
)

SEGMENTS = pa.schema(
    [
        column("recording_id", pa.string(), "Joins recordings.recording_id.", nullable=False),
        column("index", pa.int32(), "0, 1, ... in the order of the recording.", nullable=False),
        column("passage", pa.int32(), "The passage of the recording that it was decoded in.", nullable=False),
        column("start", pa.float64(), "From the start of the recording.", "s", nullable=False),
        column("end", pa.float64(), "From the start of the recording.", "s", nullable=False),
        column("text", pa.string(), "What was said.", nullable=False),
        column("language", pa.string(), "Code of the language that it was decoded in.", nullable=False),
        column(
            "language_probability",
            pa.float64(),
            "Of that language, by the window's own audio. Null for English-only models.",
        ),
        column(
            "languages",
            pa.list_(GUESS),
            "What the window sounds like, whatever was forced: the three likeliest. Empty for English-only models.",
        ),
        column("text_language", pa.string(), "Code of the language that the text reads like. Null where unsure."),
        column("text_language_probability", pa.float64(), "Of that language, by the text alone."),
        column("task", pa.string(), "transcribe, or translate (into English).", nullable=False),
        column(
            "avg_logprob",
            pa.float64(),
            "Mean log-probability of the window's tokens, end token counted.",
            "nats",
            nullable=False,
        ),
        column(
            "compression_ratio",
            pa.float64(),
            "Bytes of the window's text over its zlib size: high for loops.",
            nullable=False,
        ),
        column(
            "no_speech_prob", pa.float64(), "Probability of the no-speech token at the window's start.", nullable=False
        ),
        column("temperature", pa.float64(), "Sampling temperature of the attempt that stands.", nullable=False),
        column(
            "attempts",
            pa.list_(ATTEMPT),
            "Every decoding of the window, in order; temperature tells which one stands.",
            nullable=False,
        ),
        column("tokens", pa.int32(), "Text tokens of the segment."),
        column(
            "evidence", pa.float64(), "Log-likelihood ratio of the text given the audio against given silence.", "nats"
        ),
        column("evidence_per_token", pa.float64(), "The same, a text token.", "nats"),
        column(
            "text_logprob",
            pa.float64(),
            "Mean log-probability of the segment's own text tokens, given the audio and no text before it.",
            "nats",
        ),
        column("unlikely_share", pa.float64(), "Share of those tokens that have less than an even chance, likewise."),
        column(
            "phrase_weight",
            pa.float64(),
            "Weight of the known invention that the text equals, up to 1: docs/phrases.md. Null where it is none.",
        ),
        column("speech_ratio", pa.float64(), "Share of the segment that lies under detected speech."),
        column(
            "characters_per_second",
            pa.float64(),
            "Letters and digits a second of the detected speech under the segment. Null without speech.",
            "1/s",
        ),
        column("tokens_per_second", pa.float64(), "Text tokens a second of that speech. Null without speech.", "1/s"),
        column(
            "repetition",
            pa.int32(),
            "Length in letters of the longest stretch of the text that repeats itself; 0 for none. Signs count where a"
            " text has no letters.",
        ),
        column("repetition_period", pa.int32(), "Of that stretch: letters until it comes again."),
        column(
            "variety",
            pa.float64(),
            "Share of the text's n-grams of letters (four; two in dense scripts) that do not repeat earlier ones. Signs"
            " count where a text has no letters.",
        ),
        column(
            "flags",
            pa.list_(pa.string()),
            "Reasons for doubt: hallucination, low_logprob, repetitive, no_speech, fallback_exhausted,"
            " language_mismatch, phrase, omission.",
            nullable=False,
        ),
        column(
            "hallucination_probability",
            pa.float64(),
            "Calibrated probability that the text was invented: docs/quality.md.",
        ),
        column("speaker", pa.string(), "Label of who says most of it: docs/speakers.md. Null without --speakers."),
        column("overlap", pa.float64(), "Share of the segment in which more than one speaks. Null without --speakers."),
    ]
)
