"""Second passes that are killed: `python opinions_driver.py SOURCE OUT FOLDER STEP` works on copies of a finished OUT.

In FOLDER/AT the driver dies before its AT-th change to the file system, for each STEP-th one that there is; then the
same pass is run again. Forks, so that starting a driver costs little.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from ledger_driver import disturb

from jobs import transcribe
from jobs.options import collect
from jobs.running import JobOptions
from jobs.second_opinion import ask
from pipeline.sources import resolve

OPTIONS = ["--model", "fake", "--runner", "local", "--second-opinion", "fake", "--doubt-hallucination", "0"]


def second_pass(source: str, out: str) -> None:
    """Ask for opinions, as the command does."""
    values = transcribe.command.make_context("transcribe", [source, "--out", out, *OPTIONS]).params
    ask(resolve([source]).recordings, out, collect(JobOptions, values), values)


def forked(work: Callable[[], None]) -> bool:
    """Do it in a process of its own; say whether that came to its end."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def main(source: str, out: str, folder: str, step: str) -> None:
    """Kill at one change after the other, until there is none left to die before."""
    resolve([source])  # what is loaded lazily, once
    at, ended = 1 - int(step), False
    while not ended:
        at += int(step)
        copy = str(shutil.copytree(out, Path(folder) / str(at)))

        def dying(copy: str = copy, at: int = at) -> None:
            disturb(copy, at, "kill")
            second_pass(source, copy)

        ended = forked(dying)
        assert forked(lambda copy=copy: second_pass(source, copy))  # type: ignore[misc]


if __name__ == "__main__":
    main(*sys.argv[1:])
