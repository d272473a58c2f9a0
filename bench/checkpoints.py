"""Our checkpoint in the formats of other engines, with the same weights.

CTranslate2's is the one that it is in, its parts joined; OpenAI's is made from the loaded model; ggml's (whisper.cpp)
from that one, in float16 as whisper.cpp's users have it. Source of ggml's layout: `models/convert-pt-to-ggml.py` of
whisper.cpp.
"""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import whisper
from whisper.audio import mel_filters

from pipeline.whisper.locate import locate
from pipeline.whisper.weights import load

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import reference  # the tests' own way of making OpenAI's model from ours


def write(kind: str, model: str, folder: Path) -> Path:
    """Write the checkpoint `model` for a kind of engine into `folder`, once; return where."""
    suffix, writer = _WRITERS[kind]
    path = folder / f"{kind}{suffix}"
    if not path.exists():
        writer(model, path)
    return path


def _ctranslate2(model: str, directory: Path) -> None:
    checkpoint = locate(model)
    directory.mkdir()
    with (directory / "model.bin").open("wb") as file:
        for part in checkpoint.weights:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)
    for path in checkpoint.config.parent.glob("*.*"):
        if path.suffix in (".json", ".txt"):
            shutil.copy(path, directory)


def _openai(model: str, path: Path) -> None:
    theirs = _reference(model)
    torch.save({"dims": asdict(theirs.dims), "model_state_dict": theirs.state_dict()}, path)


def _ggml(model: str, path: Path) -> None:
    theirs = _reference(model)
    d = theirs.dims
    filters = mel_filters("cpu", d.n_mels).numpy()
    encoding = whisper.tokenizer.get_encoding("multilingual" if theirs.is_multilingual else "gpt2")
    words = [encoding.decode_single_token_bytes(token) for token in range(encoding.eot_token)]
    with path.open("wb") as file:
        encoder = (d.n_audio_ctx, d.n_audio_state, d.n_audio_head, d.n_audio_layer)
        decoder = (d.n_text_ctx, d.n_text_state, d.n_text_head, d.n_text_layer)
        _integers(file, 0x67676D6C, d.n_vocab, *encoder, *decoder, d.n_mels, 1)
        _integers(file, *filters.shape)
        file.write(filters.astype(np.float32).tobytes())
        _integers(file, len(words))
        for word in words:
            _integers(file, len(word))
            file.write(word)
        for name, tensor in theirs.state_dict().items():
            _ggml_tensor(file, name, tensor.numpy())


def _ggml_tensor(file: BinaryIO, name: str, array: np.ndarray) -> None:
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        array = array[:, None]
    exact = array.ndim < 2 or name.endswith(("conv1.bias", "conv2.bias", "positional_embedding"))
    _integers(file, array.ndim, len(name), 0 if exact else 1, *reversed(array.shape))
    file.write(name.encode())
    file.write(array.astype(np.float32 if exact else np.float16).tobytes())


def _integers(file: BinaryIO, *values: int) -> None:
    file.write(struct.pack(f"<{len(values)}i", *values))


def _reference(model: str) -> whisper.Whisper:
    return reference.model(load(locate(model), "float32", torch.device("cpu"))[0])


_WRITERS: dict[str, tuple[str, Callable[[str, Path], None]]] = {
    "faster-whisper": ("", _ctranslate2),
    "openai-whisper": (".pt", _openai),
    "whisper.cpp": (".bin", _ggml),
}
