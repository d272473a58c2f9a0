"""What a filter's look costs beside a transcription, and how right it is: CPU seconds, languages, speech or not.

    python bench/filter.py MANIFEST... [--threads 1] [--no-transcribe] [--least] [--out DIR] [-- OPTIONS OF FILTER]

Each manifest goes through `filter` and through `transcribe`, as a user runs them, in a process of its own; CPU seconds
are those of the process and of all that it starts. Loading the program and the model is told apart: it is measured on a
few seconds of silence. The manifest's `language` is the truth that languages are held against (null: unknown), its
`text` ("" is: nothing is said) the truth that keeping is held against. `--least` tells what no look with the same
model can do without: decoding, speech detection, and the encoder over what is listened to, without any padding.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline.looks import LookingOptions, look
from pipeline.sources import resolve
from pipeline.types import Passage
from pipeline.whisper import mel as audio
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.model import Whisper
from pipeline.whisper.options import WhisperOptions

ROOT = Path(__file__).parents[1]
SILENCE = ROOT / "examples/audio/silence.wav"


def main() -> None:
    arguments, options = parse()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = arguments.out or temporary
        common = ["--runner", "local", "--threads", str(arguments.threads), "--max-failed", "1"]
        commands = {"filter": [*common, *options], **({} if arguments.no_transcribe else {"transcribe": common})}
        loading = {name: cpu_s(name, SILENCE, f"{scratch}/{name}", tail) for name, tail in commands.items()}
        for name, seconds in loading.items():
            say(f"{name}: {seconds:.1f} CPU s to start and load the model")
        total: dict[str, float] = dict.fromkeys(commands, 0.0)
        for number, manifest in enumerate(arguments.manifest):
            where = {name: f"{scratch}/{name}-{number}" for name in commands}
            took = {name: cpu_s(name, manifest, where[name], tail) - loading[name] for name, tail in commands.items()}
            if arguments.least:
                tell_least(manifest, options)
            tell(manifest, ds.dataset(f"{where['filter']}/decisions").to_table().to_pylist(), took)
            total = {name: total[name] + took[name] for name in commands}
        if len(total) == 2:
            say(f"all: a look costs {total['transcribe'] / total['filter']:.1f} times less CPU than transcribing")


def parse() -> tuple[argparse.Namespace, list[str]]:
    own, _, rest = " ".join(sys.argv[1:]).partition(" -- ")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-transcribe", action="store_true")
    parser.add_argument("--least", action="store_true")
    parser.add_argument("--out", help="keep the tables in this folder")
    return parser.parse_args(own.split()), rest.split()


def cpu_s(command: str, source: Path, out: str, options: list[str]) -> float:
    """Run a command of ours; return the CPU seconds that it took, with all that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-m", "jobs", command, str(source), "--out", out, *options]
    subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def tell_least(manifest: Path, options: list[str]) -> None:
    """Print the CPU seconds of what a look cannot do without, with one thread."""
    torch.set_num_threads(1)
    name = options[options.index("--model") + 1] if "--model" in options else WhisperOptions.model
    model = WhisperEngine(WhisperOptions(model=name, threads=1)).model
    begun = spent_s()
    recordings = resolve([str(manifest)]).recordings
    found = [one for recording in recordings for one in look(recording, LookingOptions())]
    passages = [one for one in found if isinstance(one, Passage)]
    listened = spent_s()
    with torch.inference_mode():
        for passage in passages:
            mel = audio.log_mel(torch.from_numpy(passage.pcm.copy()), model.dims.mel_bands)
            for window in mel[:, : len(passage.pcm) // audio.HOP].split(audio.WINDOW_FRAMES, 1):
                encode(model, window[None].to(model.dtype))
    say(f"{manifest.parent.name}/{manifest.name}: {listened - begun:.1f} CPU s to decode and to detect speech,")
    say(f"  {spent_s() - listened:.1f} to encode {len(passages)} passages without their padding")


def encode(model: Whisper, mel: Tensor) -> Tensor:
    """Return the features of the audio alone: mel [N, bands, T] -> [N, T / 2, D]."""
    encoder = model.encoder
    x = encoder._convolved(F.pad(mel, (0, mel.shape[2] % 2)))
    x = x + encoder.positions[: x.shape[1]]
    for layer in encoder.layers:
        x = layer(x)
    return encoder.norm(x)


def spent_s() -> float:
    """Return the CPU seconds of this process and of those it started."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usages)


def tell(manifest: Path, rows: list[dict[str, Any]], took: dict[str, float]) -> None:
    """Print what came of a manifest."""
    hours = sum(row["duration_s"] for row in rows) / 3600
    looked = sum(row["looked_s"] for row in rows) / 3600
    say(f"{manifest.parent.name}/{manifest.name}: {len(rows)} recordings, {hours:.2f} h, looked at {looked:.2f} h")
    for name, seconds in took.items():
        say(f"  {name}: {seconds:.1f} CPU s, {seconds / max(hours, 1e-9):.0f} an hour of audio")
    if len(took) == 2:
        say(f"  {took['transcribe'] / took['filter']:.1f} times less")
    known = [row for row in rows if row["asked_language"] and row["language"]]
    if known:
        right = [row for row in known if row["language"] == row["asked_language"]]
        sure = [row for row in known if row["language_probability"] >= 0.5]
        sure_right = [row for row in sure if row["language"] == row["asked_language"]]
        say(f"  language right {len(right)} of {len(known)}; of {len(sure)} with probability 0.5: {len(sure_right)}")
    for name, silent in (("spoken", False), ("nothing said", True)):
        some = [row for row in rows if (json.loads(row["metadata"]).get("text") == "") == silent]
        if some:
            reasons = {why: sum(row["reason"] == why for row in some) for why in sorted({r["reason"] for r in some})}
            say(f"  {name}: {len(some)} recordings, {reasons}")


def say(words: str) -> None:
    print(words, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
