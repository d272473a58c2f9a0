"""Peak memory of `bulkscribe transcribe` with everything it starts, and its speed, on one long recording.

    python bench/memory.py [--minutes 30] [--runner ray]

The recording is examples/audio/episode.m4a, repeated. Memory is the proportional set size (each page shared by n
processes counts 1/n in each) of the whole process tree, sampled; Linux only (/proc/PID/smaps_rollup).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline.decode import find_ffmpeg

EPISODE = Path(__file__).parents[1] / "examples" / "audio" / "episode.m4a"
EVERY_S = 0.5
KINDS = {  # what a process's command line contains -> what it is; the first that fits
    "jobs transcribe": "driver",
    "_task": "cut or mark (decoding, speech detection)",
    "Transcribe": "the model's actor",
    "ffmpeg": "ffmpeg",
    "ray::IDLE": "idle workers of Ray",
    "ray::": "other workers of Ray",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--runner", choices=("ray", "local"), default="ray")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        audio = lengthen(Path(scratch), arguments.minutes)
        command = [sys.executable, "-m", "jobs", "transcribe", str(audio), "--out", f"{scratch}/out"]
        begun = time.monotonic()
        job = subprocess.Popen([*command, "--runner", arguments.runner], stdout=subprocess.PIPE)
        peak, highest = watch(job)
        wall = time.monotonic() - begun
        said = job.stdout.read() if job.stdout else b""
    if job.returncode:
        sys.exit(job.returncode)
    print(f"{arguments.minutes:g} minutes of audio, ok: {json.loads(said)['ok']}, in {wall:.0f} s with start-up:")  # noqa: T201
    print(f"{60 * arguments.minutes / wall:.1f} times real time; peak {peak.total() / 1e9:.2f} GB PSS, of which")  # noqa: T201
    for kind, size in highest.most_common():
        print(f"{peak[kind] / 1e9:8.2f} GB  {kind} ({size / 1e9:.2f} GB at its own peak)")  # noqa: T201


def lengthen(folder: Path, minutes: float) -> Path:
    """Return the episode, repeated to a length."""
    audio = folder / "long.opus"
    repeat = [find_ffmpeg(), "-v", "error", "-stream_loop", "-1", "-i", str(EPISODE)]
    subprocess.run([*repeat, "-t", str(minutes * 60), "-b:a", "24k", str(audio)], check=True)
    return audio


def watch(job: subprocess.Popen[bytes]) -> tuple[Counter[str], Counter[str]]:
    """Sample until the job ends. Return bytes by kind of process: when their sum was highest, and each at its own."""
    peak: Counter[str] = Counter()
    highest: Counter[str] = Counter()
    while job.poll() is None:
        sizes = by_kind(job.pid)
        highest |= sizes
        peak = max(peak, sizes, key=lambda sample: sample.total())
        time.sleep(EVERY_S)
    return peak, highest


def by_kind(pid: int) -> Counter[str]:
    """Return bytes of proportional set size by kind of process, of `pid` and all below it."""
    sizes: Counter[str] = Counter()
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return sizes
    for process in tree:
        try:
            line = " ".join(process.cmdline()) or process.name()
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except (psutil.Error, OSError):
            continue  # ended in the meantime
        program = line.split()[0].rsplit("/", 1)[-1]
        kind = next((kind for part, kind in KINDS.items() if part in line), f"Ray's {program}")
        pss = next((int(row.split()[1]) for row in rollup.splitlines() if row.startswith("Pss:")), 0)
        sizes[kind] += pss * 1024
    return sizes


if __name__ == "__main__":
    main()
