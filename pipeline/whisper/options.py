"""What can be asked of the engine. Knows no torch, so that the command line can show it at once."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.types import setting


@dataclass(frozen=True)
class WhisperOptions:
    """Options of `WhisperEngine`. The thresholds and the temperatures are those of the reference implementation."""

    model: str = setting("base", "Size (tiny ... large-v3, turbo), hub id, or local directory of a Whisper model.")
    task: str = setting(
        "transcribe", "Write what is said, or translate it into English.", choices=("transcribe", "translate")
    )
    temperatures: tuple[float, ...] = setting(
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), "Sampling temperatures, tried in turn until a window passes its gates."
    )
    exhausted: str = setting(
        "best",
        "Which attempt stands when all fail: the likeliest that is no loop, or the last as in the reference.",
        choices=("best", "last"),
    )
    best_of: int = setting(5, "Candidates sampled for a window at temperatures above 0; the likeliest stands.")
    compression_ratio_threshold: float = setting(2.4, "Try the next temperature when the text packs better than this.")
    logprob_threshold: float = setting(
        -1.0, "Try the next temperature when the mean log-probability is below this.", "nats"
    )
    no_speech_threshold: float = setting(
        0.6, "A window above this no-speech probability and below the log-probability threshold is silence."
    )
    context: str = setting(
        "none", "Prompt a window with the text before it in its passage, or not.", choices=("none", "passage")
    )
    max_initial_timestamp_s: float = setting(1.0, "Latest start of a window's first segment.", "s")
    jump_s: float = setting(3.0, "Skip over stretches without detected speech that are longer than this.", "s")
    device: str = setting("auto", "Where the model runs: auto, cpu, cuda, cuda:1, mps.")
    dtype: str = setting(
        "auto",
        "Number format of the model: auto is float16 on a GPU, float32 elsewhere.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    slots: int = setting(0, "Windows decoded at once; 0 chooses by device.", rows=False)
    threads: int = setting(0, "CPU threads of the model; 0 takes the cores there are.", rows=False)
