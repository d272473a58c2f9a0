"""Checkpoint files -> the network with its weights. Each format's names are its reader's matter: see `checkpoints/`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pipeline.errors import UserError
from pipeline.whisper.checkpoints import ctranslate2, files, huggingface, openai
from pipeline.whisper.checkpoints.files import Checkpoint
from pipeline.whisper.checkpoints.state import Weights
from pipeline.whisper.model import Dims, Whisper
from pipeline.whisper.quantise import quantise
from pipeline.whisper.tokens import Tokens

READERS: dict[str, Callable[[Checkpoint], Weights]] = {
    files.CTRANSLATE2: ctranslate2.read,
    files.HUGGINGFACE: huggingface.read,
    files.OPENAI: openai.read,
}


def load(checkpoint: Checkpoint, dtype: str, device: torch.device) -> tuple[Whisper, Tokens]:
    """Return the model in eval mode and its tokenizer; UserError names the file and what is wrong with it.

    `dtype` is the name of a floating format of torch, or int8: see `quantise`.
    """
    tokens = Tokens(checkpoint.tokenizer)
    checkpoint.verify()
    model = build(READERS[checkpoint.format](checkpoint), str(checkpoint.weights[0]))
    if tokens.layout.vocabulary != model.dims.vocabulary:
        raise UserError(
            f"{checkpoint.tokenizer} has {tokens.layout.vocabulary} tokens, the weights {model.dims.vocabulary}",
            "take both from the same place",
        )
    model = model.eval().requires_grad_(False)
    if dtype == "int8":
        return quantise(model.float()), tokens
    return model.to(device=device, dtype=getattr(torch, dtype)), tokens


def build(weights: Weights, source: str) -> Whisper:
    """Return the network with these weights, in the formats they have; UserError when they do not fit together."""
    model = _empty(weights.dims, source)
    for name, expected in model.state_dict().items():
        tensor = weights.state[name]
        if tensor.shape != expected.shape or not tensor.is_floating_point():
            raise UserError(
                f"{source}: {name} is {tensor.dtype} {list(tensor.shape)}, "
                f"where the sizes of the model call for floats {list(expected.shape)}",
                "choose another model, and take its weights and its configuration from the same place",
            )
    model.load_state_dict(weights.state, assign=True)
    if weights.state["decoder.head.weight"] is weights.state["decoder.tokens.weight"]:
        model.decoder.head.weight = model.decoder.tokens.weight  # one tensor stays one when it is converted
    model.alignment_heads = weights.alignment_heads
    return model


def _empty(dims: Dims, source: str) -> Whisper:
    sizes = vars(dims)
    if min(sizes.values()) < 1 or dims.width % dims.heads:
        raise UserError(f"{source}: no network has these sizes: {sizes}", "choose another model")
    with torch.device("meta"):
        return Whisper(dims)
