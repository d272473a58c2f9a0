"""How much audio the cheap look's encoder needs: no-speech probability and language by the length of its window.

    python bench/look_length.py FOLDER... [--model base] [--length-s 10] [--windows-s 10,15,30]

A folder has a manifest.jsonl with `uri`, `text` ("": nothing is said) and `language`. Of each clip the first seconds
are heard, with silence behind them up to each window. Told for each: how the no-speech probability ranks clips with
speech against those without (AUROC), clips of speech above 0.7, and how many languages are right.
"""

from __future__ import annotations

import argparse
import sys
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

DOUBT = 0.7  # `--max-no-speech` of `filter`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--model", default="base")
    parser.add_argument("--length-s", type=float, default=10.0)
    parser.add_argument("--windows-s", default="10,15,30")
    arguments = parser.parse_args()
    engine = WhisperEngine(WhisperOptions(model=arguments.model))
    heard = [clip for folder in arguments.folder for clip in clips_of(folder)]
    spoken = np.array([bool(one.text) for one in heard])
    print(f"{spoken.sum()} clips of speech, {(~spoken).sum()} without, {arguments.length_s:g} s of each at most")  # noqa: T201
    mels = [log_mel(engine, one.pcm[: int(arguments.length_s * SAMPLE_RATE)]) for one in heard]
    encoders, codes = Encoders(engine.model, engine.tokens.layout, 0), engine.tokens.language_codes
    for window_s in map(float, arguments.windows_s.split(",")):
        frames = int(window_s * audio.FRAMES_PER_SECOND)
        found = [encoders.encode(audio.window(mel, 0, length)[None, :, :frames])[0] for mel, length in mels]
        no_speech = np.array([1 - one.speech for one in found])
        named = [(one.language, codes[int(np.argmax(e.languages))]) for one, e in zip(heard, found, strict=True)]
        right = [said == code for (said, code), speech in zip(named, spoken, strict=True) if speech and said]
        print(  # noqa: T201
            f"window of {window_s:g} s: AUROC {auroc(no_speech, ~spoken):.4f}, {(no_speech[spoken] > DOUBT).sum()} of"
            f" speech above {DOUBT}, language right {np.mean(right):.1%} of {len(right)}"
        )


def log_mel(engine: WhisperEngine, pcm: np.ndarray) -> tuple[torch.Tensor, int]:
    """Return the spectrogram [bands, frames] of int16 audio, and how many of its frames are audio."""
    return audio.log_mel(torch.from_numpy(pcm.copy()), engine.model.dims.mel_bands), max(1, len(pcm) // audio.HOP)


if __name__ == "__main__":
    main()
