"""Where and how wide a plan runs on Ray: the options. Knows no Ray, which `run.py` does."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.types import NOT_NEGATIVE, setting


@dataclass(frozen=True)
class RayOptions:
    """Where and how wide the plan runs; nothing of it changes rows."""

    address: str = setting("", "Ray cluster to join; empty starts Ray on this machine.", rows=False)
    actors: str = setting("1:1", "Smallest and largest number of model actors, MIN:MAX.", rows=False)
    actor_cpus: float | None = setting(
        None,
        "CPUs that a model actor reserves; by default 1 on a cluster where it has no GPU, else none.",
        rows=False,
        within=NOT_NEGATIVE,
    )
    decode_on: str = setting(
        "", "Decode only on machines of the cluster with this Ray label, NAME=VALUE, such as role=cpu.", rows=False
    )
    metrics_port: int = setting(
        0,
        "Port that serves this machine's metrics to Prometheus, when Ray is started here; 0 takes any.",
        rows=False,
        within=(0.0, 65535.0),
    )
    object_store_gb: float = setting(
        1.0, "Shared memory for blocks, when Ray is started here.", "GB", rows=False, within=NOT_NEGATIVE
    )

    @property
    def pool(self) -> tuple[int, int]:
        """Smallest and largest pool of actors; UserError when `actors` does not say."""
        low, _, high = self.actors.partition(":")
        try:
            pool = int(low), int(high or low)
        except ValueError:
            pool = 0, 0
        if not 1 <= pool[0] <= pool[1]:
            raise UserError(f"--actors {self.actors} is not MIN:MAX", "for example --actors 1:4, or --actors 2")
        return pool

    @property
    def decode_labels(self) -> dict[str, str]:
        """Labels of the machines that decode; UserError when `decode_on` is no label."""
        if not self.decode_on:
            return {}
        name, _, value = self.decode_on.partition("=")
        if not (name and value):
            raise UserError(f"--decode-on {self.decode_on} is not NAME=VALUE", "for example --decode-on role=cpu")
        return {name: value}

    def cpus_of_actor(self, gpus: float) -> float:
        """CPUs that an actor with so many GPUs reserves: without either, Ray would place it on a head without CPUs."""
        if self.actor_cpus is not None:
            return self.actor_cpus
        return 1.0 if self.address and not gpus else 0.0
