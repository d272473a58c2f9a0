"""CTranslate2's format (`python/ctranslate2/specs/model_spec.py` of releases 1 to 4), quantised or not.

model.bin: version, name and revision of the specification, then each variable as name, shape, type and bytes, then
aliases. Numbers are little-endian. int8 and int16 weights are a scale times what they stand for; they become floats
here: how the network computes is not this module's matter.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.whisper.checkpoints.files import Checkpoint, read_json
from pipeline.whisper.checkpoints.state import Names, Weights, checked_heads, rename
from pipeline.whisper.model import Dims

OLDEST_VERSION = 4  # of the file: since then a variable tells its type
TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)  # by id

NAMES = Names(
    layers="{side}/layer_{index}",
    outside={
        "encoder.conv1": "encoder/conv1",
        "encoder.conv2": "encoder/conv2",
        "encoder.norm": "encoder/layer_norm",
        "decoder.norm": "decoder/layer_norm",
    },
    layer={
        "attention.norm": "self_attention/layer_norm",
        "attention.qkv": "self_attention/linear_0",  # queries, keys and values at once
        "attention.out": "self_attention/linear_1",
        "mlp.norm": "ffn/layer_norm",
        "mlp.up": "ffn/linear_0",
        "mlp.down": "ffn/linear_1",
    },
    cross={
        "cross.norm": "attention/layer_norm",
        "cross.q": "attention/linear_0",
        "cross.kv": "attention/linear_1",
        "cross.out": "attention/linear_2",
    },
    embeddings={
        "encoder.positions": "encoder/position_encodings/encodings",
        "decoder.positions": "decoder/position_encodings/encodings",
        "decoder.tokens.weight": "decoder/embeddings/weight",
    },
    head="decoder/projection/weight",
    separator="/",
)


def read(checkpoint: Checkpoint) -> Weights:
    """Return what the checkpoint holds; UserError names the file and what is wrong with it."""
    source = str(checkpoint.weights[0])
    variables = read_variables(checkpoint.read(), source)
    dims = _dims(variables, source)
    tensors = {
        name.replace("/gamma", "/weight").replace("/beta", "/bias"): tensor
        for name, tensor in variables.items()
        if not name.endswith("_scale")
    }
    heads = read_json(checkpoint.config).get("alignment_heads")
    return Weights(dims, rename(tensors, NAMES, dims, source), checked_heads(heads, dims, str(checkpoint.config)))


def read_variables(data: bytearray, source: str) -> dict[str, Tensor]:
    """Parse a model.bin; floats are views into `data`. UserError when it is cut short or of another kind."""
    reader = _Reader(data)
    try:
        version, name = reader.number("I"), reader.text()
        revision = reader.number("I")
        if not OLDEST_VERSION <= version < 256 or name != "WhisperSpec":
            raise UserError(
                f"{source} is no Whisper model: it holds {name or 'no'} specification {version}.{revision}",
                "choose another model",
            )
        stored = {reader.text(): reader.tensor() for _ in range(reader.number("I"))}
        variables = {name: _dequantised(name, stored) for name in stored}
        for _ in range(reader.number("I")):
            alias, target = reader.text(), reader.text()
            variables[alias] = variables[target]
    except (struct.error, ValueError, IndexError, KeyError, RuntimeError) as error:
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
        """Return a string, whose length is stated and whose end is a zero."""
        length = self.number("H")
        self.at += length
        text = self.data[self.at - length : self.at]
        if len(text) < length or not text.endswith(b"\0"):
            raise ValueError(f"no string before byte {self.at}")
        return text[:-1].decode()

    def tensor(self) -> Tensor:
        shape = [self.number("I") for _ in range(self.number("B"))]
        dtype, size = TYPES[self.number("B")], self.number("I")
        flat = torch.frombuffer(self.data, dtype=dtype, count=size // dtype.itemsize, offset=self.at)
        self.at += size
        return flat.reshape(shape)


def _dequantised(name: str, stored: Mapping[str, Tensor]) -> Tensor:
    """Return a variable as floats where it has scales: one a row of the output (int8), or one in all (int16)."""
    tensor, scale = stored[name], stored.get(f"{name}_scale")
    if scale is None:
        return tensor
    return tensor.float() / scale.float().reshape(-1, *[1] * (tensor.ndim - 1))


def _dims(variables: Mapping[str, Tensor], source: str) -> Dims:
    layers = {side: {n.split("/")[1] for n in variables if n.startswith(f"{side}/layer_")} for side in _SIDES}
    try:
        width, bands, _ = variables["encoder/conv1/weight"].shape
        return Dims(
            mel_bands=bands,
            vocabulary=len(variables["decoder/embeddings/weight"]),
            width=width,
            heads=int(variables["encoder/num_heads"]),
            encoder_layers=len(layers["encoder"] - {"layer_norm"}),
            decoder_layers=len(layers["decoder"] - {"layer_norm"}),
        )
    except (KeyError, ValueError) as error:
        raise UserError(f"{source} does not tell the sizes of its network: {error}", "download it again") from error


_SIDES = ("encoder", "decoder")
