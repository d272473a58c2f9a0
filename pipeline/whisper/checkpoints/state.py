"""A format's tensors -> our state dict. Knows our network's names and shapes, and no file.

Formats differ in the names of the modules, and in whether queries, keys and values are one tensor (ours are) or three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.whisper.model import Dims

Heads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds."""

    dims: Dims
    state: dict[str, Tensor]  # as `Whisper.state_dict()`
    alignment_heads: Heads  # (layer, head): they tell word times


@dataclass(frozen=True)
class Names:
    """What a format calls our modules. Several names, separated by blanks, are joined along their outputs."""

    layers: str  # as "{side}.blocks.{index}"
    outside: dict[str, str]  # modules outside the layers, with a weight and a bias
    layer: dict[str, str]  # inside a layer of either side
    cross: dict[str, str]  # inside a layer of the decoder
    embeddings: dict[str, str]  # tensors that are no module's weight or bias
    head: str  # the output layer's weights where they are not the token embeddings
    separator: str = "."
    without_bias: tuple[str, ...] = ()  # endings of modules that have none: it is zero


def rename(tensors: Mapping[str, Tensor], names: Names, dims: Dims, source: str) -> dict[str, Tensor]:
    """Return our state dict. UserError when a tensor is missing, or there are some that Whisper does not have."""
    rest, dot = dict(tensors), names.separator

    def take(name: str) -> Tensor:
        try:
            return rest.pop(name)
        except KeyError:
            raise UserError(f"{source} lacks the tensor {name} of a Whisper model", "choose another model") from None

    state = {ours: take(theirs) for ours, theirs in names.embeddings.items()}
    state["decoder.head.weight"] = rest.pop(names.head, state["decoder.tokens.weight"])
    for ours, theirs in _modules(names, dims):
        parts = theirs.split()
        weights = [take(f"{part}{dot}weight") for part in parts]
        biases = [
            weight.new_zeros(weight.shape[:1]) if part.endswith(names.without_bias) else take(f"{part}{dot}bias")
            for part, weight in zip(parts, weights, strict=True)
        ]
        state[f"{ours}.weight"] = _joined(weights, f"{ours}.weight", source)
        state[f"{ours}.bias"] = _joined(biases, f"{ours}.bias", source)
    unknown = sorted(name for name, tensor in rest.items() if tensor.ndim > 1)
    if unknown:
        raise UserError(
            f"{source} holds tensors that a Whisper model of its sizes does not have: {unknown[0]} ...",
            "choose another model; merge adapters into it before",
        )
    return state


def _joined(parts: list[Tensor], name: str, source: str) -> Tensor:
    """Return the parts, joined along their outputs."""
    kinds = {(part.dtype, part.shape[1:], part.ndim) for part in parts}
    if len(kinds) > 1 or parts[0].ndim == 0:
        raise UserError(
            f"{source}: the parts of {name} do not fit together: "
            + ", ".join(f"{part.dtype} {list(part.shape)}" for part in parts),
            "choose another model",
        )
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def named_tensors(value: object, source: str) -> dict[str, Tensor]:
    """Return `value`, when it is a dictionary of tensors by name; UserError otherwise."""
    if isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_meta
        for name, tensor in value.items()
    ):
        return value
    raise UserError(f"{source} holds no tensors by name", "choose another model")


def _modules(names: Names, dims: Dims) -> Iterator[tuple[str, str]]:
    """Yield each of our modules, and what the format calls its parts."""
    yield from names.outside.items()
    for side, count in (("encoder", dims.encoder_layers), ("decoder", dims.decoder_layers)):
        for index in range(count):
            scope = names.layers.format(side=side, index=index)
            for ours, theirs in (names.layer if side == "encoder" else names.layer | names.cross).items():
                yield (
                    f"{side}.layers.{index}.{ours}",
                    " ".join(scope + names.separator + part for part in theirs.split()),
                )


def checked_heads(stated: object, dims: Dims, source: str) -> Heads:
    """Return the heads that follow the audio, as a configuration states them; where it does not, see below.

    Where nobody has looked for them, it is all of the upper half of the layers. UserError when they are no heads.
    """
    if not stated:
        upper = range(dims.decoder_layers // 2, dims.decoder_layers)
        return tuple((layer, head) for layer in upper for head in range(dims.heads))
    try:
        pairs = tuple((int(layer), int(head)) for layer, head in stated)  # type: ignore[attr-defined]
        if all(0 <= layer < dims.decoder_layers and 0 <= head < dims.heads for layer, head in pairs):
            return pairs
    except (TypeError, ValueError):
        pass
    raise UserError(
        f"{source} states alignment heads that the model's {dims.decoder_layers} layers of {dims.heads} do not have",
        "correct `alignment_heads`, or take it out",
    )
