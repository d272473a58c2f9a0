"""A job's driver that can be killed: `python ledger_driver.py` forks one for each order (JSON) on its stdin.

It stands between the test and the drivers so that starting one costs milliseconds. For each order it prints how the
driver ended: its exit code, or minus the signal. The audit hook sees every change to the file system that Python makes,
so a driver can be made to die, to be interrupted, or to find the disk full, before each of them in turn, without a
change to the code under test.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import sys
import time
import traceback
from typing import Any

import pandas as pd
import pyarrow.dataset
from material import CONFIG, listing, shuffled

from pipeline import phrases, text_language
from pipeline.errors import UserError
from pipeline.ledger import Ledger, LedgerOptions
from pipeline.types import Recording

LOADED_LAZILY = (pd, pyarrow.dataset)  # by pyarrow: once here, not in each driver, as what the segments' marks need
text_language.guess("once")
phrases.known()
OPTIONS = LedgerOptions(flush_recordings=7)
INTERRUPTED, REFUSED = 3, 4  # exit codes


def recordings(again: bool) -> list[Recording]:
    """Return what is to be transcribed: at first, or `again` with a third of it changed and more of it."""
    if not again:
        return listing(20)
    changed = listing(20, version="2")
    return [new if number % 3 == 0 else old for number, (old, new) in enumerate(zip(listing(20), changed, strict=True))]


def work(out: str, seed: int, again: bool) -> None:
    """Do the job to its end, as a command would; some material is lost on the way and comes in a later round."""
    rng = random.Random(f"{seed} {os.getpid()}")
    names = recordings(again) + (listing(26)[20:] if again else [])
    with Ledger.open(out, CONFIG, model="base", retry_failed=again, options=OPTIONS) as ledger:
        missing, lost = ledger.todo(names), 0.05
        while missing:
            for items in shuffled(missing, seed, rng, healed=again, lost=lost):
                ledger.receive(items)
            missing, lost = ledger.missing(), 0.0


def disturb(out: str, at: int, how: str) -> None:
    """Die (`how` kill) or be interrupted before the `at`th change under `out`, or find the disk `full` from it on."""
    left = at

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not (writes or event in ("os.rename", "os.remove", "os.mkdir")) or not str(args[0]).startswith(out):
            return
        left -= 1
        if how == "full":
            if left <= 0 and event in ("open", "os.mkdir"):  # renaming and removing take no room
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif left == 0:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt

    sys.addaudithook(hook)


def drive(order: dict[str, Any]) -> None:
    """Be a driver."""
    if "at" in order:
        disturb(order["out"], order["at"], order["how"])
    try:
        work(order["out"], order["seed"], order["again"])
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    except UserError as error:
        os._exit(REFUSED if "No space left" in str(error) and "free some space" in error.hint else 1)


def main() -> None:
    """Take orders."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            code = 1
            try:
                drive(order)
                code = 0
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(code)
        if "kill_after_s" in order:
            time.sleep(order["kill_after_s"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 (this is its answer)


if __name__ == "__main__":
    main()
