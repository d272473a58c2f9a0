"""`OUT/runs/RUN_ID.json`: what each run was asked, with which versions, and what came of it.

Duty: write these files, and find the configuration that a hash in the tables stands for. Knows nothing of the tables.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import secrets
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

from pipeline import storage
from pipeline.commits import commit
from pipeline.errors import OpenError, UserError

RUNS = "runs"
_PACKAGES = ("bulkscribe", "ray", "torch")


def config_hash(config: Mapping[str, Any]) -> str:
    """Return a short hash of a configuration of plain values (JSON); the order of its keys does not matter."""
    return hashlib.sha256(_canonical(config).encode()).hexdigest()[:16]


def new_run_id() -> str:
    """Return an id that sorts by time: `20260102T030405Z-1a2b3c`."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def versions() -> dict[str, str | None]:
    """Return the versions that a result depends on; None for what is not installed. Loads none of them."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def write(out: str, run_id: str, content: Mapping[str, Any]) -> None:
    """Write the file of a run, over an earlier state of it."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    commit(out, [(f"{RUNS}/{run_id}.json", text.encode())])


def ids(out: str) -> list[str]:
    """Return the ids of the runs that have left a file, the oldest first."""
    names = storage.names(storage.join(out, RUNS))
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def find_config(out: str, hash_: str) -> dict[str, Any] | None:
    """Return the configuration of this hash, as the latest run that had it spells it out; None when no file does."""
    for run_id in reversed(ids(out)):
        content = _read(out, run_id)
        if content.get("config_hash") == hash_:
            return dict(content["config"])
    return None


def latest_config(out: str, holds: str) -> dict[str, Any] | None:
    """Return the configuration of the latest run for a kind of book (`Book.what`); None when no run has left a file."""
    for run_id in reversed(ids(out)):
        content = _read(out, run_id)
        if content.get("holds", holds) == holds:
            return dict(content["config"])
    return None


def latest_holds(out: str) -> str | None:
    """Return what the latest run says that its output holds; None where none has left a file that says so."""
    with contextlib.suppress(IndexError, ValueError, AttributeError):  # no run, or a file of somebody else's
        return _read(out, ids(out)[-1]).get("holds")
    return None


def _read(out: str, run_id: str) -> dict[str, Any]:
    uri = storage.join(out, RUNS, f"{run_id}.json")
    try:
        content: dict[str, Any] = json.loads(storage.read_bytes(uri))
    except OpenError as error:
        raise UserError(f"cannot read {uri}: {error}", "check the store, and the rights on it") from error
    return content


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each option in which two configurations differ, by name."""
    old, new = json.loads(_canonical(old)), json.loads(_canonical(new))
    return [
        f"{name} was {_shown(old, name)}, is {_shown(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if _shown(old, name) != _shown(new, name)
    ]


def _canonical(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, separators=(",", ":"))


def _shown(config: Mapping[str, Any], name: str) -> str:
    return json.dumps(config[name], ensure_ascii=False) if name in config else "not there"
