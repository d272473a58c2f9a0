"""What the jobs that make data sets share: options that change no row of them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.types import setting


@dataclass(frozen=True)
class DatasetOptions:
    """The card's licence, the size of shards, and how many recordings are read at once."""

    license: str = setting("unknown", "Licence of the recordings, for the card, such as cc-by-4.0.", rows=False)
    shard_mb: float = setting(256.0, "Size of a shard of audio.", "MB", rows=False)
    workers: int = setting(0, "Recordings read at the same time; 0: one for each CPU.", rows=False)

    def check(self) -> None:
        """Raise UserError where the numbers make no sense."""
        if self.shard_mb <= 0 or self.workers < 0:
            raise UserError("--shard-mb and --workers must be positive", "leave them out for the defaults")

    @property
    def shard_bytes(self) -> int:
        return int(self.shard_mb * 1e6)

    @property
    def at_once(self) -> int:
        return self.workers or os.cpu_count() or 1
