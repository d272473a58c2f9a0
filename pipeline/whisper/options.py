"""What can be asked of the engine. Knows no torch, so that the command line can show it at once."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.types import AT_LEAST_ONE, NOT_NEGATIVE, SHARE, setting


@dataclass(frozen=True)
class WhisperOptions:
    """Options of `WhisperEngine`. The thresholds and the temperatures are those of the reference implementation."""

    model: str = setting("base", "Size (tiny ... large-v3, turbo), hub id, directory, or .pt file of a Whisper model.")
    task: str = setting(
        "transcribe", "Write what is said, or translate it into English.", choices=("transcribe", "translate")
    )
    temperatures: tuple[float, ...] = setting(
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
        "Sampling temperatures, tried in turn until a window passes its gates.",
        within=NOT_NEGATIVE,
    )
    exhausted: str = setting(
        "best",
        "Which attempt stands when all fail: the likeliest that is no loop, or the last as in the reference.",
        choices=("best", "last"),
    )
    beam: int = setting(
        1, "Lines kept by beam search at temperature 0; 1 takes the likeliest token each time.", within=AT_LEAST_ONE
    )
    patience: float = setting(
        1.0, "Beam search goes on until this many times --beam lines have ended.", within=(0.01, 100.0)
    )
    length_penalty: float | None = setting(
        None,
        "Rank candidates by log-probability / ((5 + length) / 6) ** this; by default, by the mean a token.",
        within=SHARE,
    )
    best_of: int = setting(
        5, "Candidates sampled for a window at temperatures above 0; the likeliest stands.", within=AT_LEAST_ONE
    )
    compression_ratio_threshold: float = setting(
        2.4, "Try the next temperature when the text packs better than this.", within=NOT_NEGATIVE
    )
    logprob_threshold: float = setting(
        -1.0, "Try the next temperature when the mean log-probability is below this.", "nats"
    )
    no_speech_threshold: float = setting(
        0.6, "A window above this no-speech probability and below the log-probability threshold is silence."
    )
    words: bool = setting(
        False, "Time each word, too; that does not change the text, but for --reference, which seeks by them."
    )
    evidence: bool = setting(True, "Weigh each text against silence: how much of it the audio has said.")
    context: str = setting(
        "passage", "Prompt a window with the text before it in its passage, or not.", choices=("none", "passage")
    )
    initial_prompt: str = setting("", "Text that stands before a passage's first window as its context: names, style.")
    hotwords: str = setting("", "Words to expect: they stand before every window.")
    prefix: str = setting("", "Text that every window begins with; it is not repeated in the transcript.")
    timestamps: bool = setting(
        True, "Let the model write timestamps; without them each window of 30 s is one segment, and decoded once."
    )
    suppress_tokens: tuple[int, ...] = setting(
        (-1,), "Ids of tokens that never come; -1 stands for the symbols of annotations and music."
    )
    max_initial_timestamp_s: float = setting(1.0, "Latest start of a window's first segment.", "s", within=(0.0, 30.0))
    reference: bool = setting(
        False,
        "Do as the reference implementation does: a recording is one passage, with context, nothing is skipped,"
        " the first 30 s tell the language, and the last attempt stands.",
    )
    jump_s: float = setting(
        3.0, "Skip over stretches without detected speech that are longer than this.", "s", within=NOT_NEGATIVE
    )
    device: str = setting("auto", "Where the model runs: auto, cpu, cuda, cuda:1, mps.")
    dtype: str = setting(
        "auto",
        "Number format of the model: auto is float16 on a GPU, int8 on a CPU that multiplies it in hardware.",
        choices=("auto", "float32", "bfloat16", "float16", "int8"),
    )
    slots: int = setting(0, "Windows decoded at once; 0 chooses by device and memory.", rows=False, within=NOT_NEGATIVE)
    threads: int = setting(0, "CPU threads of the model; 0 takes the cores there are.", rows=False, within=NOT_NEGATIVE)
