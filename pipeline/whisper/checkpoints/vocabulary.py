"""How many tokens a checkpoint knows, without loading its weights: what tells which tokenizer is its own.

Free of torch, so that the driver can choose a tokenizer for a model that only the actors load.
"""

from __future__ import annotations

import json
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import UserError
from pipeline.whisper.checkpoints import files


def vocabulary_size(format: str, weights: Path) -> int | None:
    """Return the number of tokens, None where the files beside the weights do not tell it; UserError when damaged."""
    return _READERS[format](weights)


def _listed(weights: Path) -> int | None:
    """CTranslate2: the length of the list of tokens beside the weights."""
    for name in files.VOCABULARIES:
        path = weights.with_name(name)
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8")
                return len(json.loads(text)) if path.suffix == ".json" else text.count("\n")
            except ValueError as error:
                raise UserError(f"{path} is damaged: {error}", "download the model again") from error
    return None


def _configured(weights: Path) -> int | None:
    """Hugging Face: config.json says so."""
    size = files.read_json(weights.with_name(files.CONFIG)).get("vocab_size")
    return size if isinstance(size, int) else None


def _pickled(weights: Path) -> int | None:
    """OpenAI: the number after the key `n_vocab` in the pickle, which is scanned, not executed."""
    try:
        with zipfile.ZipFile(weights) as archive:
            pickle = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            if pickle is None:
                return None
            known = False
            for opcode, value, _ in pickletools.genops(archive.read(pickle)):
                if known and isinstance(value, int) and "PUT" not in opcode.name:  # BINPUT counts what was read
                    return value
                known = value == "n_vocab" or (known and ("PUT" in opcode.name or opcode.name == "MEMOIZE"))
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise UserError(f"{weights} is cut short or no PyTorch checkpoint ({error})", "download it again") from error
    return None


_READERS: dict[str, Callable[[Path], int | None]] = {
    files.CTRANSLATE2: _listed,
    files.HUGGINGFACE: _configured,
    files.OPENAI: _pickled,
}
