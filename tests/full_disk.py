"""The same job on a disk that is too small and then large enough: `python full_disk.py DISK SEED COPY SIZE...`.

DISK is an empty folder, SIZEs are in KiB. Runs where mounts are its own (`unshare --map-root-user --mount`). Copies the
finished output of each size to COPY/SIZE, and prints, as JSON, what the job said when the disk was full.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from ledger_driver import work

from pipeline.errors import UserError


def main(disk: str, seed: str, copy: str, *sizes: str) -> None:
    """Fill disk after disk."""
    for size in sizes:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", disk], check=True)
        out, said = f"{disk}/out", ""
        for _ in range(2):  # the second time nothing has changed: it is refused again, and harms nothing
            try:
                work(out, int(seed), again=False)
            except UserError as error:
                said = f"{error}; {error.hint}"
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        work(out, int(seed), again=False)
        shutil.copytree(out, Path(copy, size))
        subprocess.run(["umount", disk], check=True)
        print(json.dumps({"size": int(size), "said": said}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
