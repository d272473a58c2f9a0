"""Several files under one folder, added or replaced as one step, whatever dies on the way.

The files are first written to `_staging`. Then one small file there, the journal, names where each of them belongs:
writing it is the commit. Then they are moved, what is to go is deleted, and the journal is removed. `recover` does what
an earlier process has left undone: with a journal, the rest of it; staged files without one were never committed and
are deleted. Every step may be done twice. Knows nothing of tables.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Sequence

from pipeline import storage

STAGING = "_staging"  # readers of datasets pass over names with an underscore
_JOURNAL = "commit.json"
_OURS = re.compile(
    r"\.?(staged-[0-9a-f]+-\d+|commit\.json)(\.tmp)?|\.(lease|deaths)\.json\.tmp"
)  # others are left alone


def commit(out: str, files: Iterable[tuple[str, bytes]], gone: Sequence[str] = ()) -> None:
    """Write each (path under `out`, data), in this order, all or none. One of `files` is in memory at a time.

    The files `gone` are removed in the same step, after the others are there.

    What an earlier commit has left undone is done first. When this one is interrupted, `recover` decides whether it
    counts: it does from the journal on.
    """
    recover(out)
    token = secrets.token_hex(4)  # a stale journal cannot take these files for its own
    moves = []
    for number, (path, data) in enumerate(files):
        name = f"staged-{token}-{number}"
        storage.write_bytes(storage.join(out, STAGING, name), data)
        moves.append((name, path))
    journal = {"moves": moves, "gone": list(gone)}
    storage.write_bytes(storage.join(out, STAGING, _JOURNAL), json.dumps(journal).encode())
    recover(out)


def recover(out: str) -> None:
    """Finish the commit whose journal stands under `out`; remove what was staged for one that never came to be."""
    present = set(storage.names(storage.join(out, STAGING)))
    if _JOURNAL in present:
        journal = json.loads(storage.read_bytes(storage.join(out, STAGING, _JOURNAL)))
        for name, path in journal["moves"]:
            if name in present:  # else it was moved before
                storage.move(storage.join(out, STAGING, name), storage.join(out, *path.split("/")))
                present.remove(name)
        for path in journal.get("gone", ()):
            storage.delete(storage.join(out, *path.split("/")))
    for name in sorted(present, key=lambda name: (name == _JOURNAL, name)):
        if is_ours(name):
            storage.delete(storage.join(out, STAGING, name))


def is_ours(name: str) -> bool:
    """Say whether a file of `_staging` was put there by a commit."""
    return _OURS.fullmatch(name) is not None
