"""Which files make up a checkpoint in each format. Knows names and JSON, not weights. Free of torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

CTRANSLATE2, HUGGINGFACE, OPENAI = "ctranslate2", "huggingface", "openai"

# The file that stands for the weights -> format. Where a directory holds several, the first is taken.
WEIGHTS = {
    "model.bin": CTRANSLATE2,
    "model.safetensors": HUGGINGFACE,
    "model.safetensors.index.json": HUGGINGFACE,
    "pytorch_model.bin": HUGGINGFACE,
    "pytorch_model.bin.index.json": HUGGINGFACE,
}
INDEX = ".index.json"  # names the shard of each tensor
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
GENERATION = "generation_config.json"  # Hugging Face; may be absent
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")  # CTranslate2; one of them
BESIDE = (CONFIG, TOKENIZER, GENERATION, *VOCABULARIES)  # the weights
SUFFIXES = (".pt", ".pth")  # of OpenAI's checkpoints, which are single files


@dataclass(frozen=True)
class Checkpoint:
    """The files of a model on this machine."""

    name: str  # as it was asked for
    format: str  # CTRANSLATE2, HUGGINGFACE or OPENAI
    weights: tuple[Path, ...]  # parts of model.bin, or shards, in order
    tokenizer: Path  # tokenizer.json
    config: Path  # config.json; OpenAI's format has none
    sha256: str = ""  # that the joined weights must have; "" where nobody says

    def verify(self) -> None:
        """UserError when the weights' hash is not the expected one."""
        if self.sha256 and (found := self.fingerprint()) != self.sha256:
            raise UserError(
                f"the weights of {self.name!r} in {self.weights[0]} are not those that were published: SHA-256 {found}",
                "install or download the model again; give a model of your own another name",
            )

    def read(self) -> bytearray:
        """Return the joined weights."""
        sizes = [part.stat().st_size for part in self.weights]
        data = bytearray(sum(sizes))
        rest = memoryview(data)
        for part, size in zip(self.weights, sizes, strict=True):
            with part.open("rb") as file:
                file.readinto(rest[:size])
            rest = rest[size:]
        return data

    def fingerprint(self) -> str:
        """Return the SHA-256 of the joined weights, read through once."""
        digest = hashlib.sha256()
        for part in self.weights:
            with part.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()


def patterns(weights: str) -> list[str]:
    """Return the patterns of the files that hold the weights which the file `weights` stands for."""
    if not weights.endswith(INDEX):
        return [weights]
    stem, _, suffix = weights.removesuffix(INDEX).rpartition(".")
    return [weights, f"{stem}-*.{suffix}"]


def find(directory: Path) -> tuple[str, tuple[Path, ...]]:
    """Return the format of the weights in a directory, and their files in order; UserError when one is missing."""
    names = {path.name for path in directory.iterdir() if path.is_file()}
    chosen = next((name for name in WEIGHTS if name in names), "")
    missing = [] if chosen else [" or ".join(WEIGHTS)]
    missing += [] if CONFIG in names else [CONFIG]
    shards = _shards(directory / chosen) if chosen.endswith(INDEX) else [chosen]
    missing += [shard for shard in shards if shard and shard not in names]
    if missing:
        raise UserError(
            f"the model directory {directory} lacks {', '.join(missing)}",
            "a checkpoint is model.bin (CTranslate2) or model.safetensors (Hugging Face) with config.json and "
            "tokenizer.json, or a single .pt file (OpenAI)",
        )
    return WEIGHTS[chosen], tuple(directory / shard for shard in shards)


def _shards(index: Path) -> list[str]:
    places = read_json(index).get("weight_map")
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise UserError(f"{index} names no shards", "download the model again")
    return sorted(set(names))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; UserError when it holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}", "download the model again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object", "download the model again")
    return value
