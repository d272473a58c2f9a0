"""How well `bulkscribe plan` foretells a run: its wall and CPU time beside those of `transcribe` on the same sources.

    python bench/plan.py talks/ --measure 20 -- --model base

Options before `--` are plan's, those after it are given to both. Both run here, one after the other, with
`--runner local`: what else the machine does meanwhile is in the numbers.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any


def main() -> None:
    """Run both and print the numbers beside each other."""
    given = sys.argv[1:]
    at = given.index("--") if "--" in given else len(given)
    mine, both = given[:at], given[at + 1 :]
    sources = [word for word in mine if not word.startswith("--") and mine[mine.index(word) - 1][:2] != "--"]
    told, _, _ = run("plan", *mine, *both)
    with tempfile.TemporaryDirectory() as out:
        done, wall_s, cpu_s = run("transcribe", *sources, "--out", out, "--runner", "local", *both)
    foretold, cpu_foretold_s = told["wall_s"]["1"], 3600 * told["cpu_hours"]["value"]
    span = f"{foretold['low']:.1f} to {foretold['high']:.1f}"
    lines = [
        f"recordings        {done['recordings']} ({told['measured']['recordings']} measured)",
        f"audio             {told['audio_hours']['value']:.4f} h foretold, {done['audio_hours']:.4f} h were there",
        f"wall time         {foretold['value']:.1f} s foretold ({span}), {done['wall_s']:.1f} s taken",
        f"wall time, ratio  {foretold['value'] / done['wall_s']:.3f}",
        f"CPU time          {cpu_foretold_s:.1f} s foretold, {cpu_s:.1f} s taken by the whole process",
        f"plan itself took  {told['measured']['wall_s']:.1f} s of transcribing; process of the job {wall_s:.1f} s",
    ]
    print("\n".join(lines))  # noqa: T201


def run(command: str, *arguments: str) -> tuple[dict[str, Any], float, float]:
    """Run a command of ours; return its JSON line, its wall and its CPU seconds."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-m", "jobs", command, *arguments]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout), time.monotonic() - begun, cpu_s


if __name__ == "__main__":
    main()
