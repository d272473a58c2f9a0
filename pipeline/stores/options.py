"""What steers the stores of this process: an address in place of AWS's, and how patient requests are.

Duty: hold the options, so that every reader and writer of a process has the same. Workers are told by the stage that
runs in them. Credentials are not options: each store finds its own where its ecosystem's tools do.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.types import AT_LEAST_ONE, setting

CONNECT_S = 10
READ_S = 20  # without one byte


@dataclass(frozen=True)
class StoreOptions:
    """How stores are reached; nothing of it changes rows."""

    endpoint_url: str = setting(
        "", "Address of the S3 store, where it is not AWS: MinIO, Ceph, R2 and others.", rows=False
    )
    store_attempts: int = setting(
        5, "Tries of a request before trouble of a store counts as lasting.", rows=False, within=AT_LEAST_ONE
    )


_current = [StoreOptions()]


def configure(options: StoreOptions) -> None:
    """Make `options` those of this process."""
    _current[0] = options


def configured() -> StoreOptions:
    """Return the options of this process."""
    return _current[0]
