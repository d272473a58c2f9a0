"""What the jobs that make data sets share: options that change no row of them, and where they read audio."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from jobs import logs
from pipeline.deaths import Deaths
from pipeline.errors import UserError
from pipeline.ray_options import RayOptions
from pipeline.readers import Readers, Threads
from pipeline.run import RayReaders
from pipeline.types import NOT_NEGATIVE, setting


@dataclass(frozen=True)
class DatasetOptions:
    """The card's licence, the size of shards, and where how many recordings are read at once."""

    license: str = setting("unknown", "Licence of the recordings, for the card, such as cc-by-4.0.", rows=False)
    shard_mb: float = setting(256.0, "Size of a shard of audio.", "MB", rows=False, within=(0.001, inf))
    workers: int = setting(0, "Recordings read at the same time; 0: one for each CPU.", rows=False, within=NOT_NEGATIVE)
    address: str = setting("", "Ray cluster whose CPUs read the recordings; empty reads them here.", rows=False)
    decode_on: str = setting(
        "", "Read only on machines of the cluster with this Ray label, NAME=VALUE, such as role=cpu.", rows=False
    )

    def check(self) -> None:
        """Raise UserError where they contradict each other."""
        if self.ray.decode_labels and not self.address:
            raise UserError("--decode-on chooses machines of a cluster", "add --address HOST:PORT")

    @property
    def shard_bytes(self) -> int:
        return int(self.shard_mb * 1e6)

    @property
    def ray(self) -> RayOptions:
        return RayOptions(address=self.address, decode_on=self.decode_on)


@contextmanager
def readers(told: DatasetOptions, deaths: Deaths) -> Iterator[Readers]:
    """Give what reads recordings: threads, or the cluster, which is joined when there is something to read."""
    if not told.address:
        yield Threads(told.workers or os.cpu_count() or 1)
        return
    cluster = RayReaders(told.ray, told.workers, deaths)
    with logs.stdout_is_data():
        try:
            yield cluster
        finally:
            cluster.close()
