"""How far a job is: one live line on a terminal, plain log lines elsewhere. Talk goes to stderr."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from jobs.logs import say
from pipeline import logs
from pipeline.types import SAMPLE_RATE, Finished, Recording, Review, Survey

LOG_EVERY_S = 30.0  # without a terminal


class Progress:
    """Counts what the ledger has received and says so."""

    def __init__(self, todo: Sequence[Recording]) -> None:
        """`todo` are the recordings of this run."""
        self.total, self._bytes_total = len(todo), sum(recording.size or 0 for recording in todo)
        self.done = self.failed = self._bytes_done = self._samples = 0
        self._begun = self._logged = time.monotonic()
        self._console = Console(stderr=True)
        self._drawn = self._console.is_terminal and not logs.active()
        self._live = Live(Text(self.line()), console=self._console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Progress:
        if self._drawn:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._live.stop()

    def update(self, finished: Iterable[Finished | Survey | Review], samples: int) -> None:
        """Take what finished, and the samples of the passages received, which come before their recording ends."""
        self._samples += samples
        for item in finished:
            self.done += 1
            self.failed += item.outcome.status == "failed"
            self._bytes_done += item.outcome.recording.size or 0
            self._samples += sum(len(span) for span in item.outcome.speechless)
        if self._drawn:
            self._live.update(Text(self.line()))
        elif time.monotonic() - self._logged > LOG_EVERY_S:
            self._logged = time.monotonic()
            numbers: dict[str, Any] = {"done": self.done, "total": self.total, "failed": self.failed}
            numbers["audio_hours"] = round(self.hours, 4)
            say("progress", self.line(), **numbers)

    @property
    def left(self) -> int:
        """Recordings that are not complete."""
        return self.total - self.done

    @property
    def hours(self) -> float:
        """Audio accounted for, in hours."""
        return self._samples / SAMPLE_RATE / 3600

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    @property
    def speed(self) -> float:
        """Audio time over wall time."""
        return self.hours * 3600 / max(self.elapsed_s, 1e-9)

    def line(self) -> str:
        """Return the state in one line."""
        parts = [f"{self.done}/{self.total} recordings", f"{self.hours:.2f} h of audio", f"{self.speed:.1f}x real time"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        share = self._bytes_done / self._bytes_total if self._bytes_total else self.done / max(1, self.total)
        if 0 < share < 1:
            parts.append(f"{_clock(self.elapsed_s * (1 - share) / share)} left")
        return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}"
