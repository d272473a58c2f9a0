"""Whether a process of this machine is still the one it was. Knows nothing of what processes do."""

from __future__ import annotations

import os
from pathlib import Path


def started(pid: int) -> str:
    """Return when a process of this machine started, in a word that no later one of its id has; "" when it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self").exists() else _lives(pid)
    return "" if fields[0] == "Z" else fields[19]


def _lives(pid: int) -> str:
    """Say what can be said where there is no /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
