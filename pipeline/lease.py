"""Who may write to an output: one driver at a time, also on a shared store, also after a driver has died.

The holder writes `_staging/lease.json` and touches it every few seconds. Another driver sees at once that the holder's
process is dead, when it was one of the same machine; otherwise it watches whether the file changes, by its own clock,
because clocks of machines differ. A holder that was suspended and overtaken finds another's name in the file before its
next commit, and stops. Between that look and the commit lie milliseconds in which nothing guards; what two drivers
would write then is found by `check`. Knows files; nothing of tables.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from pipeline import run_files, storage
from pipeline.commits import STAGING
from pipeline.errors import OpenError, UserError
from pipeline.processes import started

BEAT_S = 5.0  # between two touches
EXPIRED_S = 20.0  # without a touch, after which a holder elsewhere is taken for dead
FILE = "lease.json"


class Lease:
    """The right to write to `out`, from `take` to `release`."""

    def __init__(self, out: str, run_id: str) -> None:
        """Claim nothing yet."""
        self._uri = storage.join(out, STAGING, FILE)
        self._out = out
        self.followed = False  # a holder that has not given it back
        self._content: dict[str, Any] = {
            "token": secrets.token_hex(8),
            "run_id": run_id,
            "since": run_files.now(),
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "process": started(os.getpid()),
            "beat": 0,
        }
        self._ended = threading.Event()
        self._lock = threading.Lock()  # between touching and releasing

    @classmethod
    def take(cls, out: str, run_id: str, *, over: bool = False) -> Lease:
        """Return the lease on `out`. UserError while another driver holds it, unless it is to be taken `over`."""
        lease = cls(out, run_id)
        holder = lease._read()
        if holder and not over and lease._lives(holder):
            raise UserError(
                f"{out} is in use by run {holder['run_id']}, process {holder['pid']} on {holder['host']},"
                f" since {holder['since']}",
                "wait until it ends, or choose another --out; if it hangs, end it, or give --take-over",
            )
        lease.followed = holder is not None
        lease._write()
        threading.Thread(target=lease._keep, name="lease", daemon=True).start()
        return lease

    def confirm(self) -> None:
        """Make sure that the lease is still ours; UserError when another driver has taken the output over."""
        holder = self._read()
        if holder is None or holder["token"] != self._content["token"]:
            self._ended.set()
            how = f"run {holder['run_id']} on {holder['host']} has taken it over" if holder else "its lease is gone"
            raise UserError(
                f"{self._out} is not this run's any more: {how}; this run stops without writing more",
                "what the tables hold is whole; run the command again when no other run is at work there",
            )

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        self._ended.set()
        with self._lock:
            holder = self._read()
            if holder and holder["token"] == self._content["token"]:
                storage.delete(self._uri)

    def _keep(self) -> None:
        """Touch the file until the lease ends. Trouble with the store is left to the commits, which tell it."""
        while not self._ended.wait(BEAT_S):
            with self._lock, contextlib.suppress(UserError):
                holder = self._read()
                if self._ended.is_set() or holder is None or holder["token"] != self._content["token"]:
                    return
                self._write()

    def _lives(self, holder: dict[str, Any]) -> bool:
        """Say whether the holder is at work: a process of this machine, or one whose file goes on changing."""
        if holder["machine"] == self._content["machine"]:
            return (
                holder["pid"] != os.getpid() and bool(holder["process"]) and started(holder["pid"]) == holder["process"]
            )
        until = time.monotonic() + EXPIRED_S
        while time.monotonic() < until:
            time.sleep(min(1.0, EXPIRED_S / 10))
            now = self._read()
            if now is None:
                return False
            if (now["token"], now["beat"]) != (holder["token"], holder["beat"]):
                return True
        return False

    def _read(self) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = json.loads(storage.read_bytes(self._uri))
        except ValueError:  # nothing that a driver has written
            return None
        except OpenError as error:
            if error.kind == "not_found":
                return None
            raise UserError(f"cannot read {self._uri}: {error}", "check the store, and the rights on it") from error
        return content

    def _write(self) -> None:
        self._content["beat"] += 1
        storage.write_bytes(self._uri, json.dumps(self._content).encode())


def _machine() -> str:
    """Return what processes that can see each other's ids have in common: host, boot, and namespace of processes."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
