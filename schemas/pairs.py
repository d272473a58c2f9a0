"""`CLEANED/pairs/part-*.parquet`: one row a pair of audio and text, kept or not, with the numbers and the reasons."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import column

PAIRS = pa.schema(
    [
        column("recording_id", pa.string(), "Joins recordings.recording_id of the transcripts.", nullable=False),
        column("uri", pa.string(), "Where the audio is.", nullable=False),
        column("source", pa.string(), "What the pair came from: said by its metadata, or its folder.", nullable=False),
        column("keep", pa.bool_(), "Whether the pair is kept.", nullable=False),
        column("reasons", pa.list_(pa.string()), "Why it was not kept; empty for kept ones.", nullable=False),
        column("task", pa.string(), "transcribe, or translate where English stands beside another.", nullable=False),
        column("language", pa.string(), "Of the audio, as far as known: heard, else declared, else the text's."),
        column("duration_s", pa.float64(), "Length of the audio; null where nothing tells it.", "s"),
        column("text", pa.string(), "The text, without lines of credits. Null where there is none."),
        column("text_error", pa.string(), "Why the text could not be read."),
        column("cues", pa.int32(), "Stretches of the text with times; null where it has none."),
        column("credits", pa.int32(), "Lines that only said who wrote the text, and were taken out.", nullable=False),
        column("letters", pa.int32(), "Letters of the text.", nullable=False),
        column("words", pa.int32(), "Words of it; two letters each in scripts without spaces.", nullable=False),
        column("upper_share", pa.float64(), "Upper-case letters among those with case; null where few have one."),
        column("lower_starts", pa.float64(), "Share of sentences that begin in lower case; null for fewer than three."),
        column("stops", pa.float64(), "Marks that end a sentence or a part of it, a word; null in scripts without."),
        column("commas", pa.float64(), "Commas a word; null in scripts without."),
        column("watermark", pa.string(), "What a transcribing machine has left in the text."),
        column("synthetic", pa.bool_(), "Whether the speech is a machine's, as metadata says; null: it says nothing."),
        column("declared_language", pa.string(), "As the manifest or the name of the text says."),
        column("text_language", pa.string(), "What the text reads like. Null where it is too short to tell."),
        column("text_language_probability", pa.float64(), "Of that language, by the text alone."),
        column("audio_language", pa.string(), "What the audio sounds like. Null without transcripts, or speech."),
        column("audio_language_probability", pa.float64(), "Of that language, by the audio alone."),
        column("text_group", pa.int64(), "The same for texts that are nearly the same; null without a text."),
        column(
            "transcribed",
            pa.string(),
            "What the transcripts say of it: ok, partial, failed, or missing there; null without.",
        ),
        column("heard", pa.string(), "The machine's text."),
        column("compared_words", pa.int32(), "Words of the text, as it was compared with the machine's."),
        column("word_errors", pa.int32(), "What it takes to make the machine's text of it."),
        column("wer", pa.float64(), "Errors a word. Null where nothing was compared: a translation, no transcript."),
        column("cer", pa.float64(), "The same for characters."),
        column("compared", pa.string(), "Hash of what was compared: equal ones are not compared again."),
        column("examples", pa.int32(), "Training examples made of it; null where none were asked for."),
        column("examples_s", pa.float64(), "Their audio.", "s"),
        column("audio_error", pa.string(), "Why its audio could not be read again."),
        column("metadata", pa.string(), "JSON object: the manifest's other columns.", nullable=False),
    ]
)
