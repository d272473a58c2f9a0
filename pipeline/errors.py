"""The exception tree.

BulkscribeError
├── UserError         what the caller asked for cannot be done: one line and a `hint:`, exit code 2
└── DataError         a recording cannot be read: it becomes that recording's row, the job goes on
    ├── OpenError     the store does not give it (absent, refused, transient trouble that outlasted the retries)
    └── DecodeError   ffmpeg cannot make audio of it

Everything else is a bug or a broken machine: it is not caught and stops the job.
"""

from __future__ import annotations

from pipeline.types import Failure


class BulkscribeError(Exception):
    """Root of the tree."""


class UserError(BulkscribeError):
    """What was asked for cannot be done; `hint` says what would help."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str]]:
        return UserError, (str(self), self.hint)  # crosses process borders whole


def install(extra: str) -> str:
    """Return the command that installs an extra, for a hint."""
    return f"pip install -c constraints.txt -e '.[{extra}]'"


class DataError(BulkscribeError):
    """A recording cannot be read. `kind` is a stable word for counting, the message the cause in its own words."""

    stage = "data"

    def __init__(self, kind: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable

    @property
    def failure(self) -> Failure:
        return Failure(self.stage, self.kind, str(self), self.retryable)


class OpenError(DataError):
    """The store does not give the recording."""

    stage = "open"


class DecodeError(DataError):
    """ffmpeg cannot make audio of the recording."""

    stage = "decode"
