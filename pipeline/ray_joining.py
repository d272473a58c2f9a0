"""What this process needs while it joins or starts Ray: a line where that fails, quiet, and SIGTERM as it was."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import UserError

_ELSEWHERE = "leave --address out to run here"


def reach(address: str) -> None:
    """UserError when nobody listens at HOST:PORT (`ray://` or not): Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"no Ray cluster answers at {address}: {error}", _ELSEWHERE) from error


@contextmanager
def failures_told(address: str) -> Iterator[None]:
    """Make a UserError of what Ray raises when it cannot join or start: for a start plain Exceptions, too."""
    try:
        yield
    except Exception as error:
        if not address:
            hint = (
                "try again on a less busy machine, or with another --object-store-gb; --runner local does without Ray"
            )
            raise UserError(f"Ray does not start here: {error}", hint) from error
        if isinstance(error, (ConnectionError, ValueError)):
            raise UserError(f"no Ray cluster answers at {address}: {error}", _ELSEWHERE) from error
        raise


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Drop what Ray's C++ parts print while they start; what goes wrong there is raised, too."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def same_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does: Ray, while it starts, puts `sys.exit` there, which is not how the job ends."""
    if threading.current_thread() is not threading.main_thread():  # elsewhere Ray cannot set it, nor can we
        yield
        return
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as ending:
        if ending.code == signal.SIGTERM and callable(kept):
            kept(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, kept)
