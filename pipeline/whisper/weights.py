"""Checkpoint files -> the network with its weights. Knows CTranslate2's format; others join as further readers.

The format (CTranslate2, `python/ctranslate2/specs/model_spec.py`): version, name and revision of the specification,
then each variable as name, shape, type and bytes, then aliases. Numbers are little-endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.whisper.locate import Checkpoint
from pipeline.whisper.model import Dims, Whisper
from pipeline.whisper.quantise import quantise
from pipeline.whisper.tokens import Tokens

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}  # ids of CTranslate2's types


def load(checkpoint: Checkpoint, dtype: str, device: torch.device) -> tuple[Whisper, Tokens]:
    """Return the model in eval mode and its tokenizer; UserError names the file and what is wrong with it.

    `dtype` is the name of a floating format of torch, or int8: see `quantise`.
    """
    variables = read_variables(checkpoint.read(), str(checkpoint.weights[0]))
    try:
        dims = _dims(variables)
        with torch.device("meta"):
            model = Whisper(dims)
        model.load_state_dict(_state(variables, dims), assign=True)
        model.alignment_heads = _alignment_heads(checkpoint.config, dims)
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{checkpoint.weights[0]} is no Whisper model: {error}", "convert it with ct2-transformers-converter"
        ) from error
    tokens = Tokens(checkpoint.tokenizer)
    if tokens.layout.vocabulary != dims.vocabulary:
        raise UserError(
            f"{checkpoint.tokenizer} has {tokens.layout.vocabulary} tokens, the weights {dims.vocabulary}",
            "take both from the same place",
        )
    model = model.eval().requires_grad_(False)
    if dtype == "int8":
        return quantise(model.float()), tokens
    return model.to(device=device, dtype=getattr(torch, dtype)), tokens


def read_variables(data: bytearray, source: str) -> dict[str, Tensor]:
    """Parse a CTranslate2 model.bin; the tensors are views into `data`. UserError when it is cut short or another."""
    reader = _Reader(data)
    try:
        version, name = reader.number("I"), reader.text()
        revision = reader.number("I")
        if version < 5 or name != "WhisperSpec":
            raise UserError(f"{source} holds {name or 'no'} specification {version}.{revision}, no Whisper model")
        variables = {reader.text(): reader.tensor() for _ in range(reader.number("I"))}
        for _ in range(reader.number("I")):
            alias, target = reader.text(), reader.text()
            variables[alias] = variables[target]
    except (struct.error, ValueError, UnicodeDecodeError, KeyError) as error:
        raise UserError(
            f"{source} is cut short or not in CTranslate2's format ({error})", "download the model again"
        ) from error
    return variables


class _Reader:
    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.at = 0

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return int(value)

    def text(self) -> str:
        length = self.number("H")
        self.at += length
        return self.data[self.at - length : self.at].rstrip(b"\0").decode()

    def tensor(self) -> Tensor:
        shape = [self.number("I") for _ in range(self.number("B"))]
        kind, size = _TYPES[self.number("B")], self.number("I")
        array = np.frombuffer(self.data, kind, size // np.dtype(kind).itemsize, self.at)
        self.at += size
        return torch.from_numpy(array.reshape(shape))


def _dims(variables: Mapping[str, Tensor]) -> Dims:
    width, bands, _ = variables["encoder/conv1/weight"].shape
    layers = {side: {n.split("/")[1] for n in variables if n.startswith(f"{side}/layer_")} for side in _SIDES}
    return Dims(
        mel_bands=bands,
        vocabulary=variables["decoder/embeddings/weight"].shape[0],
        width=width,
        heads=int(variables["encoder/num_heads"]),
        encoder_layers=len(layers["encoder"]) - ("layer_norm" in layers["encoder"]),
        decoder_layers=len(layers["decoder"]) - ("layer_norm" in layers["decoder"]),
    )


def _alignment_heads(config: Path, dims: Dims) -> tuple[tuple[int, int], ...]:
    """Return the heads that follow the audio; where nobody has looked for them, all of the upper half of the layers."""
    stated = json.loads(config.read_text(encoding="utf-8")).get("alignment_heads")
    upper = range(dims.decoder_layers // 2, dims.decoder_layers)
    pairs = stated or [(layer, head) for layer in upper for head in range(dims.heads)]
    return tuple((layer, head) for layer, head in pairs)


_SIDES = ("encoder", "decoder")
# Our module -> CTranslate2's, inside a layer. Its linear_0 of self-attention is queries, keys and values at once.
_LAYER = {
    "attention.norm": "self_attention/layer_norm",
    "attention.qkv": "self_attention/linear_0",
    "attention.out": "self_attention/linear_1",
    "mlp.norm": "ffn/layer_norm",
    "mlp.up": "ffn/linear_0",
    "mlp.down": "ffn/linear_1",
}
_CROSS = {
    "cross.norm": "attention/layer_norm",
    "cross.q": "attention/linear_0",
    "cross.kv": "attention/linear_1",
    "cross.out": "attention/linear_2",
}


def _state(variables: Mapping[str, Tensor], dims: Dims) -> dict[str, Tensor]:
    """Return our state dict. Norms are gamma and beta there, weight and bias here."""
    pairs = {"encoder.conv1": "encoder/conv1", "encoder.conv2": "encoder/conv2"}
    pairs |= {f"{side}.norm": f"{side}/layer_norm" for side in _SIDES}
    for side, count, table in (
        ("encoder", dims.encoder_layers, _LAYER),
        ("decoder", dims.decoder_layers, _LAYER | _CROSS),
    ):
        for i in range(count):
            pairs |= {f"{side}.layers.{i}.{ours}": f"{side}/layer_{i}/{theirs}" for ours, theirs in table.items()}
    state = {
        "encoder.positions": variables["encoder/position_encodings/encodings"],
        "decoder.positions": variables["decoder/position_encodings/encodings"],
        "decoder.tokens.weight": variables["decoder/embeddings/weight"],
        "decoder.head.weight": variables["decoder/embeddings/weight"],
    }
    for ours, theirs in pairs.items():
        weight, bias = ("gamma", "beta") if theirs.endswith("layer_norm") else ("weight", "bias")
        state[f"{ours}.weight"] = variables[f"{theirs}/{weight}"]
        state[f"{ours}.bias"] = variables[f"{theirs}/{bias}"]
    return state
