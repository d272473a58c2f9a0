"""What thinned padding changes for the cheap look: no-speech probability, language and cost, beside all padding.

    python bench/padding.py FOLDER... [--model base] [--length-s 10]

A folder has a manifest.jsonl with `uri`, `text` ("": nothing is said) and `language`. Of each clip the first seconds
are heard in a window of 30 s. Told for whole padding and for thinned: how the no-speech probability ranks clips with
speech against those without (AUROC), clips of speech above 0.7, how many languages are right, and CPU seconds of
encoding. What it changes for texts, `engines.py` and `accuracy.py` tell with `dtype=float32` beside int8.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from conditions import clips_of
from logistic import auroc

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline.types import SAMPLE_RATE
from pipeline.whisper import mel as audio
from pipeline.whisper.encoding import Encoders
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.padding import STRIDE

DOUBT = 0.7  # `--max-no-speech` of `filter`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--model", default="base")
    parser.add_argument("--length-s", type=float, default=10.0)
    arguments = parser.parse_args()
    engine = WhisperEngine(WhisperOptions(model=arguments.model, threads=1))
    torch.set_num_threads(1)
    heard = [clip for folder in arguments.folder for clip in clips_of(folder)]
    spoken = np.array([bool(one.text) for one in heard])
    pcm = [one.pcm[: int(arguments.length_s * SAMPLE_RATE)] for one in heard]
    mean_s = np.mean([len(one) for one in pcm]) / SAMPLE_RATE
    print(f"{spoken.sum()} clips of speech, {(~spoken).sum()} without, {mean_s:.1f} s each")  # noqa: T201
    mels = [log_mel(engine, one) for one in pcm]
    codes = engine.tokens.language_codes
    for name, grain in (("all padding", 0), ("thinned", STRIDE)):
        encoders = Encoders(engine.model, engine.tokens.layout, 0, grain=grain)
        begun = time.process_time()
        found = [look(encoders, audio.window(mel, 0, length), length) for mel, length in mels]
        cpu_s = time.process_time() - begun
        no_speech = np.array([1 - speech for speech, _ in found])
        named = [(one.language, codes[int(np.argmax(likely))]) for one, (_, likely) in zip(heard, found, strict=True)]
        right = [said == code for (said, code), speech in zip(named, spoken, strict=True) if speech and said]
        print(  # noqa: T201
            f"{name}: {cpu_s:.1f} CPU s, AUROC {auroc(no_speech, ~spoken):.4f}, {(no_speech[spoken] > DOUBT).sum()} of"
            f" speech above {DOUBT}, language right {np.mean(right):.1%} of {len(right)}"
        )


def look(encoders: Encoders, mel: torch.Tensor, frames: int) -> tuple[float, list[float]]:
    """Return what is heard in a window: the probability of speech, and those of the languages."""
    coming = encoders.submit(mel, frames)
    encoders.encode_some(1)
    return coming.result().speech, coming.result().languages


def log_mel(engine: WhisperEngine, pcm: np.ndarray) -> tuple[torch.Tensor, int]:
    """Return the spectrogram [bands, frames] of int16 audio, and how many of its frames are audio."""
    return audio.log_mel(torch.from_numpy(pcm.copy()), engine.model.dims.mel_bands), max(1, len(pcm) // audio.HOP)


if __name__ == "__main__":
    main()
