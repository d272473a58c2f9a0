"""Hugging Face's format: config.json beside safetensors or PyTorch's pickles, in one file or in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.errors import UserError
from pipeline.whisper.checkpoints.files import GENERATION, Checkpoint, read_json
from pipeline.whisper.checkpoints.pickles import read_pickle
from pipeline.whisper.checkpoints.state import Names, Weights, checked_heads, named_tensors, rename
from pipeline.whisper.model import Dims

NAMES = Names(
    layers="{side}.layers.{index}",
    outside={
        "encoder.conv1": "encoder.conv1",
        "encoder.conv2": "encoder.conv2",
        "encoder.norm": "encoder.layer_norm",
        "decoder.norm": "decoder.layer_norm",
    },
    layer={
        "attention.norm": "self_attn_layer_norm",
        "attention.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
        "attention.out": "self_attn.out_proj",
        "mlp.norm": "final_layer_norm",
        "mlp.up": "fc1",
        "mlp.down": "fc2",
    },
    cross={
        "cross.norm": "encoder_attn_layer_norm",
        "cross.q": "encoder_attn.q_proj",
        "cross.kv": "encoder_attn.k_proj encoder_attn.v_proj",
        "cross.out": "encoder_attn.out_proj",
    },
    embeddings={
        "encoder.positions": "encoder.embed_positions.weight",
        "decoder.positions": "decoder.embed_positions.weight",
        "decoder.tokens.weight": "decoder.embed_tokens.weight",
    },
    head="proj_out.weight",
    without_bias=("k_proj",),
)


def read(checkpoint: Checkpoint) -> Weights:
    """Return what the checkpoint holds; UserError names the file and what is wrong with it."""
    config = read_json(checkpoint.config)
    dims = _dims(config, str(checkpoint.config))
    tensors: dict[str, Tensor] = {}
    for path in checkpoint.weights:
        tensors |= {name.removeprefix("model."): tensor for name, tensor in _tensors(path).items()}
    state = rename(tensors, NAMES, dims, str(checkpoint.weights[0].parent))
    generation = checkpoint.config.with_name(GENERATION)
    stated = (read_json(generation) if generation.is_file() else {}).get("alignment_heads")
    heads, source = (stated, generation) if stated else (config.get("alignment_heads"), checkpoint.config)
    return Weights(dims, state, checked_heads(heads, dims, str(source)))


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        return named_tensors(read_pickle(path), str(path))
    from safetensors import SafetensorError  # only here: other formats do without
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is cut short or no safetensors file ({error})", "download the model again") from error


def _dims(config: dict[str, Any], source: str) -> Dims:
    kind = config.get("model_type")
    if kind != "whisper":
        raise UserError(f"{source} is of no Whisper model, but of {kind}", "choose another model")
    # What our network has built in; transformers' own defaults where the configuration is silent.
    for key, built_in in {"activation_function": "gelu", "scale_embedding": False}.items():
        if config.get(key, built_in) != built_in:
            raise UserError(f"{source}: {key} {config[key]!r} is not supported", "choose another model")
    try:
        heads = {int(config[f"{side}_attention_heads"]) for side in ("encoder", "decoder")}
        dims = Dims(
            mel_bands=int(config.get("num_mel_bins", 80)),
            vocabulary=int(config["vocab_size"]),
            width=int(config["d_model"]),
            heads=min(heads),
            encoder_layers=int(config["encoder_layers"]),
            decoder_layers=int(config["decoder_layers"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source} does not tell the sizes of its network: {error}", "download it again") from error
    if len(heads) > 1:
        raise UserError(f"{source}: encoder and decoder differ in their number of heads", "choose another model")
    return dims
