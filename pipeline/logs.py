"""What happens in a job as JSON, one object a line on stderr.

Modules tell events by Python's logging, with their facts: `log.info("commit", extra={"fields": {"recordings": 7}})`.
Unless `start` was called, nothing below a warning is shown. Knows no job and no Ray; secrets are taken out of all text.

A line has `time` (UTC), `level`, `event` and `run_id`, and beside them what the event says.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from pipeline.uris import redacted

OURS = ("pipeline", "jobs")  # whose events are shown; of other libraries warnings only

_subject: dict[str, str] = {}  # the recording that this process cuts


def subject(**fields: str) -> None:
    """Say which recording this process is at: its `recording_id` and `uri` are added to events; nothing: at none."""
    _subject.clear()
    _subject.update(fields)


class JsonLines(logging.Handler):
    """Writes records to stderr, whatever file that is at the time."""

    def __init__(self, run_id: str | None = None) -> None:
        """`run_id` may be set later, when it is known."""
        super().__init__()
        self.run_id = run_id

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            sys.stderr.write(self.line(record) + "\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 (logging's own rule: a handler must not break what it tells of)
            self.handleError(record)

    def line(self, record: logging.LogRecord) -> str:
        """Return the record as JSON, in one line."""
        fields: Mapping[str, Any] | None = getattr(record, "fields", None)
        if fields is None:  # another library's
            fields = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields = {**fields, "traceback": logging.Formatter().formatException(record.exc_info)}
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.msg if hasattr(record, "fields") else "log",
            "run_id": self.run_id,
            **_subject,
            **fields,
        }
        return json.dumps({name: _clean(value) for name, value in line.items()}, ensure_ascii=False)


def start(run_id: str | None = None) -> JsonLines:
    """Write all events of this process as JSON from now on, and warnings of other libraries; once a process."""
    handler = active() or JsonLines()
    handler.run_id = run_id
    root = logging.getLogger()
    if handler not in root.handlers:
        root.handlers[:] = [handler]
        for name in OURS:
            logging.getLogger(name).setLevel(logging.INFO)
        logging.captureWarnings(True)
    return handler


def active() -> JsonLines | None:
    """Return the handler that `start` has made, if it was called."""
    return next((one for one in logging.getLogger().handlers if isinstance(one, JsonLines)), None)


def stop() -> None:
    """Undo `start`."""
    handler = active()
    if handler is not None:
        logging.getLogger().removeHandler(handler)
        for name in OURS:
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.captureWarnings(False)


def _clean(value: Any) -> Any:
    """Return a value for JSON without secrets; what JSON does not know, as text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(inner) for inner in value]
    return redacted(str(value))
