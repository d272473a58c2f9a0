"""The engine alone on a GPU: windows a second of large shapes, and whether bfloat16 writes what float32 writes.

    python bench/gpu.py --shape turbo large-v3 [--dtype bfloat16] [--slots 128] [--seconds 30]
    python bench/gpu.py --weights model.bin.part1 model.bin.part2 --audio FOLDER
    python bench/gpu.py --shape tiny --device cpu --dtype float32 --slots 4 --seconds 5      (tries it out on a CPU)

Needs torch >= 2.8, numpy, tokenizers and safetensors, nothing else; no hub, no Ray. Shapes have random weights; each
window is made to end after a number of tokens drawn from a realistic distribution (mean 83, long tail). What is
counted is the steady state: windows of passages without end, after a time to warm up. The roofline is that of the
device's data sheet at 60 % of its arithmetic and 80 % of its bandwidth, for the same mean number of tokens.

--weights names the parts of a CTranslate2 model.bin, in order, with tokenizer.json and config.json beside the first.
--audio is a folder with a manifest.jsonl (uri, text, language) of WAV files, 16-bit mono 16 kHz:
`ffmpeg -i FILE -ar 16000 -ac 1 FILE.wav`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from random_weights import write_checkpoint

from pipeline.types import SAMPLE_RATE, Passage, Span, Transcript
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.model import Dims
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.padding import AUDIO_POSITIONS
from pipeline.whisper.reels import Window
from pipeline.whisper.rules import NEVER, History, Rules
from pipeline.whisper.slots import Slots

WINDOW_S = 30
WINDOWS = 4  # of a passage
SHAPES = {
    "tiny": Dims(80, 51_865, 64, 2, 2, 2),
    "base": Dims(80, 51_865, 512, 8, 6, 6),
    "turbo": Dims(128, 51_866, 1280, 20, 32, 4),
    "large-v3": Dims(128, 51_866, 1280, 20, 32, 32),
}
RUNS: tuple[tuple[str, dict[str, Any], str], ...] = (  # name, options, and the run that it is compared with
    ("float32", {"dtype": "float32"}, "float32"),
    ("bfloat16", {"dtype": "bfloat16"}, "float32"),
    ("float16", {"dtype": "float16"}, "float32"),
    ("float16, few slots", {"dtype": "float16", "slots": 5}, "float16"),
    ("float16, word times", {"dtype": "float16", "words": True}, "float16"),
    ("float16, beam 5", {"dtype": "float16", "beam": 5}, "float16"),
)
# Data sheets: dense half-precision FLOP/s and bytes/s.
DEVICES = {"H100 PCIe": (756e12, 2.0e12), "H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12), "A100": (312e12, 2.0e12)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=[])
    parser.add_argument("--weights", nargs="+", type=Path)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", help="of the shapes")
    parser.add_argument("--slots", type=int, default=0, help="windows at once; 0: as the engine chooses")
    parser.add_argument("--seconds", type=float, default=30, help="that are counted, after a third as many to warm up")
    parser.add_argument("--mean", type=float, default=85, help="tokens a window")
    arguments = parser.parse_args()
    print(describe(arguments.device))  # noqa: T201
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.weights:
            accuracy(join(arguments.weights, Path(scratch, "real")), arguments.audio, arguments.device)
        for shape in arguments.shape:
            options = WhisperOptions(
                model=str(write_checkpoint(SHAPES[shape], Path(scratch, shape))),
                device=arguments.device,
                dtype=arguments.dtype,
                slots=arguments.slots,
            )
            speed(shape, options, arguments.seconds, arguments.mean)


def describe(device: str) -> str:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}"


class Counting(WhisperEngine):
    """The engine, which counts the windows whose text stands."""

    windows = 0

    def _ended(self, slots: Slots[Window]) -> Iterator[tuple[Window, bool]]:
        for window, stands in super()._ended(slots):
            self.windows += stands
            yield window, stands


class Forced(Rules):
    """The engine's rules, all of them, and then a token of ours: a row ends after a number of tokens of its own.

    A row's first timestamp is drawn at random and names its length, so that all later steps know it.
    """

    def __init__(self, rules: Rules, mean: float, device: torch.device) -> None:
        """`mean` is that of the lengths: log-normal, 2 to 224 tokens."""
        vars(self).update(vars(rules))
        lengths = np.random.default_rng(0).lognormal(np.log(mean) - 0.5**2 / 2, 0.5, 1501).clip(2, 224)
        self.lengths = torch.from_numpy(lengths.astype(np.int64)).to(device)

    def filter(self, logits: Tensor, history: History) -> Tensor:
        """Filter logits [R, vocabulary] as ever, then leave one token."""
        logits = super().filter(logits, history)
        first, step = self.layout.first_timestamp, history.count
        row = (history.earliest - first - 1).clamp(min=0)  # a text follows the first timestamp, so this stays
        text = 1000 + (7919 * step + 104_729 * row) % 49_000
        token = torch.where(step < self.lengths[row], text, self.layout.eot)
        opening = first + torch.randint(len(self.lengths), step.shape, device=step.device)
        token = torch.where(step == 0, opening, token)
        return logits.fill_(NEVER).scatter_(1, token[:, None], 0.0)


def speed(shape: str, options: WhisperOptions, seconds: float, mean: float) -> None:
    """Print how fast the engine works through passages without end."""
    began = time.monotonic()
    engine = Counting(options)
    rules = Forced(engine.rules, mean, engine.device)
    engine.rules = rules
    stream = engine.transcribe(noise())
    loaded = time.monotonic()
    passages(stream, seconds / 3, least=engine.slots)
    warm, before = time.monotonic(), engine.windows
    passages(stream, seconds)
    rate = (engine.windows - before) / (time.monotonic() - warm)
    state = card() if engine.device.type == "cuda" else ""
    print(  # noqa: T201
        f"{shape}, {options.dtype}, {engine.slots} slots, {float(rules.lengths.float().mean()):.1f} tokens a window:"
        f" {rate:.1f} windows/s, {rate * WINDOW_S:,.0f} x real time"
        f" (loaded in {loaded - began:.1f} s, warm in {warm - loaded:.1f} s)"
    )
    if engine.device.type == "cuda":
        busy = busy_share(stream)
        peaks = next((part for part in DEVICES if part in torch.cuda.get_device_name()), "H100")
        best = roofline(SHAPES[shape], float(rules.lengths.float().mean()), engine.slots, *DEVICES[peaks])
        print(  # noqa: T201
            f"  {100 * rate / best:.0f} % of {best:.0f} windows/s, the roofline of {peaks};"
            f" kernels run {100 * busy:.0f} % of the time; {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most;"
            f" the card at the end: {state}"
        )
        torch.cuda.reset_peak_memory_stats()


def card() -> str:
    """Return what the driver's tool says of the card at work: a hot one slows down to a third."""
    fields = "clocks.sm,temperature.gpu,power.draw,clocks_throttle_reasons.active"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not known"


def noise() -> Iterator[Passage]:
    """Yield passages without end."""
    samples = WINDOWS * WINDOW_S * SAMPLE_RATE
    pcm = np.random.default_rng(0).integers(-3000, 3000, samples, np.int16)
    for index in count():
        yield Passage(f"{index:08}", 0, 0, pcm, (Span(0, samples),))


def passages(stream: Iterator[Transcript | None], seconds: float, least: int = 0) -> int:
    """Let the engine work for a time, and until `least` passages are done; return how many were."""
    done, end = 0, time.monotonic() + seconds
    for transcript in stream:
        done += transcript is not None
        if done >= least and time.monotonic() >= end:
            return done
    raise AssertionError("passages without end have ended")


def busy_share(stream: Iterator[Transcript | None], seconds: float = 2.0) -> float:
    """Return the share of the time in which a kernel runs; being watched slows the host a little."""
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        torch.cuda.synchronize()
        began = time.monotonic()
        passages(stream, seconds)
        torch.cuda.synchronize()
        wall_us = 1e6 * (time.monotonic() - began)
    busy = reached = 0.0
    kernels = (event for event in watched.events() if event.device_type == torch.autograd.DeviceType.CUDA)
    for span in sorted((event.time_range for event in kernels), key=lambda span: span.start):
        busy += max(0.0, span.end - max(span.start, reached))
        reached = max(reached, span.end)
    return busy / wall_us


def roofline(dims: Dims, tokens: float, slots: int, arithmetic: float, bandwidth: float) -> float:
    """Return windows/s at 60 % of a device's arithmetic (FLOP/s) and 80 % of its bandwidth (bytes/s).

    Encoder and cross keys and values are bound by arithmetic; a token by reading the window's cross keys and values,
    its own cache and its part of the weights, which all slots share.
    """
    a, d = AUDIO_POSITIONS, dims.width
    convolutions = 2 * 3 * d * (2 * a * dims.mel_bands + a * d)
    encoder = convolutions + dims.encoder_layers * (2 * 12 * a * d * d + 4 * a * a * d)  # FLOP
    cross = dims.decoder_layers * 2 * 2 * a * d * d
    weights = 2 * (dims.decoder_layers * 14 * d * d + dims.vocabulary * d)  # bytes; keys and values are read once only
    token = dims.decoder_layers * 2 * 2 * d * (a + tokens / 2) + weights / slots
    return 1 / ((encoder + cross) / (0.6 * arithmetic) + tokens * token / (0.8 * bandwidth))


def join(parts: Sequence[Path], directory: Path) -> Path:
    """Put a checkpoint together."""
    directory.mkdir()
    with (directory / "model.bin").open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(parts[0].with_name(name), directory)
    return directory


def accuracy(model: Path, folder: Path, device: str) -> None:
    """Print word errors and speed in each number format, and what the half ones and other batch mates change."""
    entries = [json.loads(line) for line in (folder / "manifest.jsonl").open(encoding="utf-8")]
    recordings = {entry["uri"]: read(folder / entry["uri"]) for entry in entries}
    languages = {entry["uri"]: entry["language"] for entry in entries}
    said = {entry["uri"]: normalised(entry["text"]) for entry in entries if entry["text"]}
    audio_s = sum(map(len, recordings.values())) / SAMPLE_RATE
    found: dict[str, dict[str, list[str]]] = {}
    for name, changes, against in RUNS:
        engine = WhisperEngine(replace(WhisperOptions(model=str(model), device=device), **changes))
        feed = [Passage(uri, 0, 0, pcm, (Span(0, len(pcm)),), languages[uri]) for uri, pcm in recordings.items()]
        for turn in ("first", "warm"):
            began = time.monotonic()
            heard = {one.recording_id: one for one in engine.transcribe(iter(feed)) if one is not None}
            print(f"  {turn}: {audio_s / (time.monotonic() - began):,.0f} x real time")  # noqa: T201
        words = found[name] = {uri: normalised(" ".join(s.text for s in one.segments)) for uri, one in heard.items()}
        other = found[against]
        same = sum(words[uri] == other[uri] for uri in words) / len(words)
        print(  # noqa: T201
            f"{name}: word errors {errors(said, words):.2f} %; against {against} {errors(other, words):.2f} %,"
            f" and {100 * same:.0f} % of {len(words)} texts are the same; {audio_s / 60:.1f} min"
        )


def read(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2), path
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def normalised(text: str) -> list[str]:
    """Return the words without case and punctuation: plainer than Whisper's own evaluation."""
    return re.sub(r"[^\w\s]", "", text.lower()).split()


def errors(references: dict[str, list[str]], heard: dict[str, list[str]]) -> float:
    """Return word errors in percent, pooled."""
    wrong = sum(distance(words, heard[uri]) for uri, words in references.items())
    return 100 * wrong / max(1, sum(map(len, references.values())))


def distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how many words must be changed, left out or put in."""
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (word != other))
    return row[-1]


if __name__ == "__main__":
    main()
