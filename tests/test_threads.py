"""How the processes of a job wait for each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from speech_examples import clip, passage, write_wav

ROOT = Path(__file__).parents[1]


def policies(folder: Path, runner: str, **environment: str) -> set[str]:
    """Run the real model and return the policies that OpenMP names as it is loaded, in any of the job's processes."""
    speech = write_wav(folder / "speech.wav", clip(passage("es_centralita.opus", "es"), 3).pcm)
    arguments = ["transcribe", str(speech), "--out", str(folder / "out"), "--model", "base", "--runner", runner]
    arguments += ["--temperatures", "0", "--no-evidence"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    with tempfile.TemporaryDirectory(prefix="ray") as short:
        done = subprocess.run(
            [sys.executable, "-m", "jobs", *arguments],
            cwd=ROOT,
            env=inherited | {"OMP_DISPLAY_ENV": "TRUE", "RAY_TMPDIR": short} | environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        )
        of_workers = [path.read_text(errors="replace") for path in Path(short).rglob("worker-*.err")]
    return set(re.findall(r"OMP_WAIT_POLICY ?= ?'(\w+)'", done.stderr + "".join(of_workers)))


@pytest.mark.parametrize("runner", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_threads_wait_asleep(tmp_path: Path, runner: str) -> None:
    assert policies(tmp_path, runner) == {"PASSIVE"}


@pytest.mark.slow
def test_users_own_policy_is_kept(tmp_path: Path) -> None:
    assert policies(tmp_path, "local", OMP_WAIT_POLICY="ACTIVE") == {"ACTIVE"}
