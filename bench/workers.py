"""Systems under measurement, each in a process of its own that loads once and then answers: both ends of the pipe.

`Worker` starts such a process and asks it; `serve` is what runs in there. A line each way, in JSON; what libraries
print goes to stderr. Each side of a system is held to the same cores. CPU time is that of the process and of the
children that it has waited for (ffmpeg), between question and answer; loading is told apart. Standard library only, so
that any environment can run it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
Hear = Callable[[Rows], Rows]  # uri, language, multilingual -> uri, language, duration_s, segments


@dataclass(frozen=True)
class Cost:
    """What some work took, in seconds."""

    cpu_s: float
    wall_s: float

    @staticmethod
    def now() -> Cost:
        """Return the clocks of this process and its ended children; the difference of two is a cost."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return Cost(sum(one.ru_utime + one.ru_stime for one in used), time.monotonic())

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu_s + other.cpu_s, self.wall_s + other.wall_s)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.cpu_s - other.cpu_s, self.wall_s - other.wall_s)


class Absent(Exception):
    """A system that does not run here; says why."""


class Worker:
    """A system in its process. A context manager: leaving it ends the process."""

    def __init__(self, name: str, command: Sequence[str], threads: int, ffmpeg: str, warm: Rows) -> None:
        """Start and load it, and let it hear `warm`, so that what it does once only counts as loading, too.

        `ffmpeg` is the program that all are given. Absent when the process ends before it is ready.
        """
        self.name = name
        self._scratch = tempfile.TemporaryDirectory()
        Path(self._scratch.name, "ffmpeg").symlink_to(shutil.which(ffmpeg) or ffmpeg)
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        environment["PATH"] = self._scratch.name + os.pathsep + environment.get("PATH", "")
        cores = sorted(os.sched_getaffinity(0))[:threads]
        began = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        _, ready = self._answer()
        _, first = self.hear(warm)
        self.loading = Cost(ready.cpu_s + first.cpu_s, time.monotonic() - began)

    def hear(self, entries: Rows) -> tuple[Rows, Cost]:
        """Return what it makes of the recordings, in their order, and what that took."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(entries).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> tuple[Rows, Cost]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Absent(f"{self.name} has ended with status {self._process.wait()}")
        answer = json.loads(line)
        return answer["rows"], Cost(**answer["cost"])

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._scratch.cleanup()


def serve(load: Callable[[], Hear]) -> None:
    """Load, say that it is ready, and answer each line of stdin until it closes."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    hear = load()
    _reply(out, [], Cost(0.0, 0.0))
    for line in sys.stdin:
        began = Cost.now()
        _reply(out, hear(json.loads(line)), began)


def _reply(out: Any, rows: Rows, began: Cost) -> None:
    cost = Cost.now() - began
    out.write(json.dumps({"rows": rows, "cost": vars(cost)}) + "\n")
    out.flush()


def options_of(words: Sequence[str]) -> dict[str, Any]:
    """`beam_size=5 language=en` -> the values by name: JSON where it is JSON, else text."""
    values = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    return values
