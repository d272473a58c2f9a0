"""PyTorch's files of tensors. A pickle can name code to run; here none is: what is more than data is refused."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError

# What torch raises over bytes that are no tensors; it has no exception of its own for them.
_DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OSError,
)


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dictionary in a file of `torch.save`; UserError when it is damaged, or holds more than data."""
    try:
        if not zipfile.is_zipfile(path):  # so the format before 2020, which is one pickle after the other, is refused
            raise UserError(f"{path} is cut short or no PyTorch checkpoint", "download it again, or save it anew")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        *_, reason = str(error).partition("WeightsUnpickler error: ")
        raise UserError(
            f"{path} holds more than tensors, which could be harmful: {(reason or str(error)).strip().splitlines()[0]}",
            "take the checkpoint as safetensors",
        ) from error
    except _DAMAGE as error:
        raise UserError(
            f"{path} is damaged: {(str(error) or repr(error)).splitlines()[0]}", "download it again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no tensors by name", "choose another model")
    return content
