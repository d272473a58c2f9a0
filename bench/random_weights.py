"""A checkpoint with random weights of given sizes, for measuring speed: CTranslate2's format, float16.

Its tokenizer has the right ids of special tokens, and words made up of random letters.
"""

from __future__ import annotations

import json
import random
import string
import struct
from pathlib import Path
from typing import BinaryIO

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from pipeline.whisper.model import Dims, Whisper

TEXT_TOKENS = 50_257
_FLOAT16, _INT8 = 4, 1  # ids of CTranslate2's types
_NAMES = {  # ours -> theirs, in this order
    ".": "/",
    "/layers/": "/layer_",
    "attention/qkv": "self_attention/linear_0",
    "attention/out": "self_attention/linear_1",
    "attention/norm": "self_attention/layer_norm",
    "cross/q": "attention/linear_0",
    "cross/kv": "attention/linear_1",
    "cross/out": "attention/linear_2",
    "cross/norm": "attention/layer_norm",
    "mlp/norm": "ffn/layer_norm",
    "mlp/up": "ffn/linear_0",
    "mlp/down": "ffn/linear_1",
    "coder/norm": "coder/layer_norm",
    "layer_norm/weight": "layer_norm/gamma",
    "layer_norm/bias": "layer_norm/beta",
    "coder/positions": "coder/position_encodings/encodings",
    "decoder/tokens": "decoder/embeddings",
}


def write_checkpoint(dims: Dims, directory: Path) -> Path:
    """Write model.bin, config.json and tokenizer.json; return the directory."""
    directory.mkdir()
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Whisper(dims).state_dict().items()}
    del shapes["decoder.head.weight"]  # that of the tokens
    with (directory / "model.bin").open("wb") as file:
        file.write(struct.pack("<I", 6))
        _text(file, "WhisperSpec")
        file.write(struct.pack("<II", 3, len(shapes) + 1))
        _variable(file, "encoder/num_heads", torch.tensor(dims.heads, dtype=torch.int8))
        torch.manual_seed(0)
        for name, shape in shapes.items():
            weight = name.endswith("norm.weight") + 0.02 * torch.randn(shape)
            _variable(file, _theirs(name), weight.half())
        file.write(struct.pack("<I", 0))  # aliases
    (directory / "config.json").write_text(json.dumps({}))
    _tokenizer(dims.vocabulary).save(str(directory / "tokenizer.json"))
    return directory


def _theirs(name: str) -> str:
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _text(file: BinaryIO, text: str) -> None:
    file.write(struct.pack("<H", len(text) + 1) + text.encode() + b"\0")


def _variable(file: BinaryIO, name: str, tensor: Tensor) -> None:
    _text(file, name)
    file.write(struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape))
    file.write(struct.pack("<BI", _INT8 if tensor.dtype == torch.int8 else _FLOAT16, tensor.nbytes))
    file.write(tensor.numpy().tobytes())


def _tokenizer(vocabulary: int) -> Tokenizer:
    letters = random.Random(0)
    words = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = set(words)
    while len(words) < TEXT_TOKENS:
        word = "Ġ" + "".join(letters.choices(string.ascii_lowercase, k=5))
        if word not in known:
            words.append(word)
            known.add(word)
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    languages = [f"l{i}" for i in range(99 + vocabulary - 51_865)]
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    tokenizer.add_special_tokens([f"<|{name}|>" for name in ["endoftext", "startoftranscript", *languages, *tasks]])
    return tokenizer
