"""Peak memory of `bulkscribe transcribe` with everything it starts: proportional set size of the whole process tree.

    python bench/memory.py [--minutes 30] [--runner ray]

The recording is examples/audio/episode.m4a, repeated. Linux only (/proc/PID/smaps_rollup).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from pipeline.decode import find_ffmpeg

EPISODE = Path(__file__).parents[1] / "examples" / "audio" / "episode.m4a"
EVERY_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--runner", choices=("ray", "local"), default="ray")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        audio = Path(scratch) / "long.opus"
        repeat = [find_ffmpeg(), "-v", "error", "-stream_loop", "-1", "-i", str(EPISODE)]
        subprocess.run([*repeat, "-t", str(arguments.minutes * 60), "-b:a", "24k", str(audio)], check=True)
        command = [sys.executable, "-m", "jobs", "transcribe", str(audio), "--out", f"{scratch}/out"]
        begun = time.monotonic()
        job = subprocess.Popen([*command, "--runner", arguments.runner], stderr=subprocess.DEVNULL)
        peak = {"all": 0}
        while job.poll() is None:
            sizes = by_name(job.pid)
            if sum(sizes.values()) > peak["all"]:
                peak = {"all": sum(sizes.values())} | sizes
            time.sleep(EVERY_S)
    parts = sorted(peak.items(), key=lambda item: -item[1])
    print(f"{arguments.minutes:g} minutes of audio in {time.monotonic() - begun:.0f} s; peak PSS")  # noqa: T201
    print("\n".join(f"{size / 1e9:8.2f} GB  {name}" for name, size in parts))  # noqa: T201
    sys.exit(job.returncode)


def by_name(pid: int) -> dict[str, int]:
    """Return bytes of proportional set size by process name, of `pid` and all below it."""
    sizes: dict[str, int] = {}
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return sizes
    for process in tree:
        try:
            name = (process.cmdline() or [process.name()])[0].rsplit("/", 1)[-1][:50]
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except (psutil.Error, OSError):
            continue  # ended in the meantime
        kilobytes = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        sizes[name] = sizes.get(name, 0) + kilobytes * 1024
    return sizes


if __name__ == "__main__":
    main()
