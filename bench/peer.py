"""Other engines, in a process of their own, for `workers.Worker`: what ours is compared with.

    python bench/peer.py KIND MODEL THREADS [name=value ...]

KIND is faster-whisper (a batch_size makes it its batched mode), openai-whisper or whisper.cpp (package pywhispercpp);
MODEL a checkpoint in its format (`checkpoints.py`). The options are the system's own and go to it as they are, else
all is as the system has it. Needs the system alone, nothing of bulkscribe, so that any environment can run it.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from workers import Hear, Rows, options_of, serve

SAMPLE_RATE = 16_000
# What casts doubt on a segment: the quality gates of Whisper's reference implementation.
LOGPROB, COMPRESSION_RATIO, NO_SPEECH = -1.0, 2.4, 0.6


def main() -> None:
    kind, model, threads, *words = sys.argv[1:]
    loaders = {"faster-whisper": faster_whisper, "openai-whisper": openai_whisper, "whisper.cpp": whisper_cpp}
    try:
        serve(lambda: loaders[kind](model, int(threads), options_of(words)))
    except ModuleNotFoundError as error:
        sys.exit(f"{kind} is not installed here ({error.name}): pip install 'bulkscribe[bench]', or name --peer-python")


def faster_whisper(path: str, threads: int, options: dict[str, Any]) -> Hear:
    """int8, as it is meant to be used on a CPU; its batched mode cuts by its speech filter."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model: Any = WhisperModel(path, device="cpu", compute_type="int8", cpu_threads=threads)
    if "batch_size" in options:
        model = BatchedInferencePipeline(model)

    def hear(entry: dict[str, Any]) -> dict[str, Any]:
        asked = {name: entry[name] for name in ("language", "multilingual")}
        segments, info = model.transcribe(entry["uri"], **asked, **options)
        return answer(info.language, info.duration, [vars_of(segment) for segment in segments])

    return each(hear)


def openai_whisper(path: str, threads: int, options: dict[str, Any]) -> Hear:
    """The reference implementation, float32."""
    import torch
    import whisper

    torch.set_num_threads(threads)
    model = whisper.load_model(path)

    def hear(entry: dict[str, Any]) -> dict[str, Any]:
        audio = whisper.load_audio(entry["uri"])
        heard = whisper.transcribe(model, audio, fp16=False, language=entry["language"], **options)
        return answer(heard["language"], len(audio) / SAMPLE_RATE, heard["segments"])

    return each(hear)


def whisper_cpp(path: str, threads: int, options: dict[str, Any]) -> Hear:
    """whisper.cpp in its float16 format. It tells no scores, so that none of its text is held to be in doubt."""
    import _pywhispercpp as library
    import numpy as np
    from pywhispercpp.model import Model

    quiet = {"print_progress": False, "print_realtime": False, "print_timestamps": False}
    model = Model(path, n_threads=threads, redirect_whispercpp_logs_to=None, **quiet, **options)

    def hear(entry: dict[str, Any]) -> dict[str, Any]:
        decode = ["ffmpeg", "-v", "error", "-i", entry["uri"], "-ac", "1", "-ar", str(SAMPLE_RATE), "-f", "f32le", "-"]
        audio = np.frombuffer(subprocess.run(decode, check=True, stdout=subprocess.PIPE).stdout, np.float32)
        segments = model.transcribe(audio, language=entry["language"] or "auto")
        language = library.whisper_lang_str(library.whisper_full_lang_id(model._ctx))
        lines = [{"start": one.t0 / 100, "end": one.t1 / 100, "text": one.text} for one in segments]
        return answer(language, len(audio) / SAMPLE_RATE, lines)

    return each(hear)


def vars_of(segment: Any) -> dict[str, Any]:
    names = ("start", "end", "text", "avg_logprob", "compression_ratio", "no_speech_prob")
    return {name: getattr(segment, name) for name in names}


def answer(language: str, duration_s: float, segments: list[dict[str, Any]]) -> dict[str, Any]:
    lines = [{name: one[name] for name in ("start", "end", "text")} | {"doubtful": doubtful(one)} for one in segments]
    return {"language": language, "duration_s": duration_s, "lines": lines}


def doubtful(segment: dict[str, Any]) -> bool:
    return (
        segment.get("avg_logprob", 0.0) < LOGPROB
        or segment.get("compression_ratio", 0.0) > COMPRESSION_RATIO
        or segment.get("no_speech_prob", 0.0) > NO_SPEECH
    )


def each(hear: Any) -> Hear:
    def hear_all(entries: Rows) -> Rows:
        return [hear(entry) for entry in entries]

    return hear_all


if __name__ == "__main__":
    main()
