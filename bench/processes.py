"""Memory of a process and of all that it has started, sampled while it works. Linux only (/proc/PID/smaps_rollup).

Memory is the proportional set size (each page shared by n processes counts 1/n in each). Knows nothing of jobs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

KINDS = {  # what a process's command line contains -> what it is; the first that fits
    "jobs transcribe": "driver",
    "scale.py": "driver",
    "memory.py": "driver",
    "_task": "cut or mark (decoding, speech detection)",
    "Transcribe": "the model's actor",
    "ffmpeg": "ffmpeg",
    "ray::IDLE": "idle workers of Ray",
    "ray::": "other workers of Ray",
}
Sizes = Counter[str]  # bytes by kind of process


def by_kind(pid: int) -> Sizes:
    """Return bytes of proportional set size by kind of process, of `pid` and all below it."""
    sizes: Sizes = Counter()
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
        sizes[kind] += sum(int(row.split()[1]) for row in rollup.splitlines() if row.startswith("Pss:")) * 1024
    return sizes


def cpu_s(pid: int, used: dict[int, float]) -> float:
    """Return the CPU seconds of `pid` and all that it has started. `used` keeps what was seen of those that end."""
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return sum(used.values())
    for process in tree:
        with suppress(psutil.Error):
            used[process.pid] = sum(process.cpu_times()[:2])
    return sum(used.values())


def samples(pid: int, every_s: float = 0.5) -> Iterator[tuple[float, Sizes]]:
    """Yield (seconds since now, sizes) until nothing of the process is left to see."""
    begun = time.monotonic()
    while psutil.pid_exists(pid):
        sizes = by_kind(pid)
        if not sizes:
            return
        yield time.monotonic() - begun, sizes
        time.sleep(every_s)
