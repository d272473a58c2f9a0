"""Whose output a folder is: a command goes on with its own, and leaves those of others, and users' files, alone.

A run writes its file before anything else of an output appears, so the latest run's file tells whose that is, however
early it was killed. Tables tell it where that file was lost. Duty: the kinds of outputs, and to refuse a folder before
any work. Writes nothing; knows no rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline import run_files, storage
from pipeline.books import DECISIONS_LAYOUT, REVIEWS, TRANSCRIPTS
from pipeline.errors import UserError


@dataclass(frozen=True)
class Output:
    """A kind of output."""

    command: str  # that writes it
    what: str  # it holds, in words for people
    holds: tuple[str, ...]  # what the files of its runs call that
    table: str  # one that no other kind has


OF_TRANSCRIBE = Output("transcribe", TRANSCRIPTS.what, (TRANSCRIPTS.what, REVIEWS.what), TRANSCRIPTS.layout.ledger)
OF_FILTER = Output("filter", "decisions", ("decisions",), DECISIONS_LAYOUT.ledger)
OF_PSEUDO_LABEL = Output("pseudo-label", "a data set of clips", ("clips",), "clips")
OF_CLEAN = Output("clean", "cleaned pairs", ("examples",), "pairs")
OUTPUTS = (OF_TRANSCRIBE, OF_FILTER, OF_PSEUDO_LABEL, OF_CLEAN)


def claim(out: str, own: Output, files: Iterable[str] = ()) -> None:
    """Make sure that `out` is an output of this kind, or may become one.

    UserError where it is another command's, or none yet and one of `files`, which the command writes over at the top of
    its output, is there: that is a user's.
    """
    if not storage.lists(out):
        return  # nothing can be written there either, which the first file to write will tell
    found = _owner(out)
    if found is None:
        if taken := sorted(set(files) & set(storage.names(out)) if files else ()):
            raise UserError(
                f"{out} has a {taken[0]} that is not bulkscribe's, and would be written over",
                "choose another --out, or move that file away",
            )
    elif found is not own:
        raise UserError(
            f"{out} holds {found.what}, an output of `bulkscribe {found.command}`",
            f"choose another --out for `bulkscribe {own.command}`: each output has a folder of its own",
        )


def _owner(out: str) -> Output | None:
    """Return whose output this is; None where nothing says so. In a store that takes two requests, or five at most."""
    held = run_files.latest_holds(out)
    for one in OUTPUTS:
        if held in one.holds:
            return one
    return next((one for one in OUTPUTS if _has_parts(storage.join(out, one.table))), None)


def _has_parts(folder: str) -> bool:
    """Say whether a table lies there: a user's own folder may have the same name."""
    return any(name.startswith("part-") and name.endswith(".parquet") for name in storage.names(folder))
