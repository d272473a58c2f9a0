"""How a command talks: words on stderr for people, or with `--log-json` each event as a JSON object a line.

stdout is left to data. Knows no pipeline; `pipeline/logs.py` writes the lines.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import TracebackType
from typing import Any

import click

from pipeline import logs
from pipeline.types import SAMPLE_RATE, Finished, Review, Survey

_log = logging.getLogger(__name__)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def talking(json: bool) -> Iterator[None]:
    """Talk in words, or as `json`; undone at the end, unless that is an error, which is still to be told."""
    if json:
        logs.start()
        sys.excepthook = _crashed
    yield
    end()


def end() -> None:
    """Go back to words."""
    logs.stop()
    sys.excepthook = sys.__excepthook__


def wordy() -> bool:
    """Say whether people are talked to."""
    return logs.active() is None


def known_as(run_id: str) -> None:
    """Name the run in what programs are told from now on."""
    if logs.active():
        logs.start(run_id)


def say(event: str, words: str = "", *, level: int = logging.INFO, **fields: Any) -> None:
    """Tell people `words`, if there are any; programs `event` with its `fields`."""
    if logs.active():
        _log.log(level, event, extra={"fields": fields | ({"message": words} if words else {})})
    elif words:
        click.echo(words, err=True)


def say_finished(item: Finished | Survey | Review) -> None:
    """Tell programs what became of a recording; people see the count."""
    if not logs.active():
        return
    outcome, failure = item.outcome, item.outcome.failure
    about: dict[str, Any] = {"recording_id": outcome.recording.id, "uri": outcome.recording.uri}
    about |= {"status": outcome.status, "duration_s": outcome.duration / SAMPLE_RATE}
    match item:
        case Finished():
            about |= {"segments": len(item.segments)}
        case Survey():
            about |= {"reason": item.reason}
        case Review():
            about |= {"opinions": len(item.opinions)}
    if failure is None:
        say("recording_finished", **about)
        return
    about |= {"stage": failure.stage, "kind": failure.kind, "message": failure.message, "retryable": failure.retryable}
    say("recording_failed" if outcome.status == "failed" else "recording_finished", level=logging.WARNING, **about)


@contextmanager
def stdout_is_data() -> Iterator[None]:
    """Take what Ray prints to stdout (a node has died) for talk."""
    with redirect_stdout(_Talk()):
        yield


class _Talk(io.TextIOBase):
    def write(self, text: str) -> int:
        if not logs.active():
            return sys.stderr.write(text)
        for line in filter(str.strip, _COLOURS.sub("", text).splitlines()):
            say("ray", line.strip(), level=logging.WARNING)
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell what ended the job, as Python would, in a line."""
    _log.critical("crashed", exc_info=(kind, error, trace), extra={"fields": {"message": f"{kind.__name__}: {error}"}})
