"""Repositories of the Hugging Face hub -> directories on this machine: the cache first, then the network.

Knows which files to ask for, not what is in them. Free of torch.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from pipeline.errors import UserError
from pipeline.whisper.checkpoints import files

_UNREACHABLE = (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError)


class UnreachableError(Exception):
    """What was asked for is not in the cache, and the hub cannot be asked."""


def fetch_model(repository: str) -> Path:
    """Return a directory with the checkpoint of a repository, in one format: the first of `files.WEIGHTS`.

    UserError when the hub has no such repository, or no weights in it; UnreachableError.
    """
    try:
        if cached := _cached(repository, files.BESIDE):
            return cached
        for weights in files.WEIGHTS:  # one a round, so that no more than one format is downloaded
            directory = Path(snapshot_download(repository, allow_patterns=[*files.patterns(weights), *files.BESIDE]))
            if (directory / weights).is_file():
                return directory
    except HFValidationError as error:
        raise UserError(f"{repository} is no id of the Hugging Face hub: {error}", "check the name") from None
    except RepositoryNotFoundError:
        raise UserError(f"the Hugging Face hub has no model {repository}", "check the name, or log in") from None
    except _UNREACHABLE as error:
        if cached := _cached(repository, ()):
            return cached
        raise UnreachableError(repository) from error
    # An unreachable hub ends here, too, when other files of the repository are in the cache.
    raise UserError(
        f"{repository} has none of {', '.join(files.WEIGHTS)} on the Hugging Face hub, "
        "or the hub cannot be reached and they are not in its cache",
        f"choose another model, or download {repository} where there is a network and pass its directory to --model",
    )


def fetch_file(repository: str, file: str) -> Path:
    """Return one file of a repository; UnreachableError."""
    try:
        return Path(hf_hub_download(repository, file, local_files_only=True))
    except LocalEntryNotFoundError:
        try:
            return Path(hf_hub_download(repository, file))
        except _UNREACHABLE as error:
            raise UnreachableError(repository) from error


def _cached(repository: str, beside: tuple[str, ...]) -> Path | None:
    """Return the cached directory that holds weights, and of the files `beside` them all that the repository has."""
    for weights in files.WEIGHTS:
        patterns = [*files.patterns(weights), *beside]
        try:
            directory = Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
        if (directory / weights).is_file():
            return directory
    return None
