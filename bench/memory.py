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

from processes import Sizes, by_kind

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline.decode import find_ffmpeg

EVERY_S = 0.5
EPISODE = Path(__file__).parents[1] / "examples" / "audio" / "episode.m4a"


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


def watch(job: subprocess.Popen[bytes]) -> tuple[Sizes, Sizes]:
    """Sample until the job ends. Return bytes by kind of process: when their sum was highest, and each at its own."""
    peak: Sizes = Counter()
    highest: Sizes = Counter()
    while job.poll() is None:
        sizes = by_kind(job.pid)
        highest |= sizes
        peak = max(peak, sizes, key=lambda sample: sample.total())
        time.sleep(EVERY_S)
    return peak, highest


if __name__ == "__main__":
    main()
