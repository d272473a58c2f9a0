"""Repositories of the Hugging Face hub -> directories on this machine: the cache first, then the network.

Knows which files to ask for, not what is in them. Free of torch.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
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
    """Return a directory with the checkpoint of a repository, in one format, the first of `files.WEIGHTS`.

    UserError when the hub has no such repository, or no weights in it; UnreachableError.
    """
    cached = _cached(repository)
    if cached and (weights := _weights(cached)):
        try:  # newer hub libraries tell when a part of it is missing
            return _snapshot(repository, weights, local_files_only=True)
        except LocalEntryNotFoundError:
            pass
    try:
        weights = files.preferred(set(HfApi().list_repo_files(repository)))
        if weights is None:
            raise UserError(f"{repository} on the Hugging Face hub holds no weights: {' or '.join(files.WEIGHTS)}")
        return _snapshot(repository, weights)
    except RepositoryNotFoundError:
        raise UserError(f"the Hugging Face hub has no model {repository}", "check the name, or log in") from None
    except _UNREACHABLE as error:
        if cached and _weights(cached):
            return cached
        raise UnreachableError(repository) from error


def fetch_file(repository: str, file: str) -> Path:
    """Return one file of a repository; UnreachableError."""
    try:
        return Path(hf_hub_download(repository, file, local_files_only=True))
    except LocalEntryNotFoundError:
        try:
            return Path(hf_hub_download(repository, file))
        except _UNREACHABLE as error:
            raise UnreachableError(repository) from error


def _cached(repository: str) -> Path | None:
    try:
        return Path(snapshot_download(repository, allow_patterns=[files.CONFIG], local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _weights(directory: Path) -> str | None:
    return files.preferred({path.name for path in directory.iterdir()})


def _snapshot(repository: str, weights: str, *, local_files_only: bool = False) -> Path:
    return Path(
        snapshot_download(repository, allow_patterns=files.patterns(weights), local_files_only=local_files_only)
    )
