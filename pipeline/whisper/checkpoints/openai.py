"""OpenAI's format: one .pt file with `dims` and `model_state_dict`."""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.whisper.checkpoints.files import Checkpoint
from pipeline.whisper.checkpoints.pickles import read_pickle
from pipeline.whisper.checkpoints.published import PUBLISHED, of_size
from pipeline.whisper.checkpoints.state import Names, Weights, checked_heads, named_tensors, rename
from pipeline.whisper.model import Dims

NAMES = Names(
    layers="{side}.blocks.{index}",
    outside={
        "encoder.conv1": "encoder.conv1",
        "encoder.conv2": "encoder.conv2",
        "encoder.norm": "encoder.ln_post",
        "decoder.norm": "decoder.ln",
    },
    layer={
        "attention.norm": "attn_ln",
        "attention.qkv": "attn.query attn.key attn.value",
        "attention.out": "attn.out",
        "mlp.norm": "mlp_ln",
        "mlp.up": "mlp.0",
        "mlp.down": "mlp.2",
    },
    cross={
        "cross.norm": "cross_attn_ln",
        "cross.q": "cross_attn.query",
        "cross.kv": "cross_attn.key cross_attn.value",
        "cross.out": "cross_attn.out",
    },
    embeddings={
        "encoder.positions": "encoder.positional_embedding",
        "decoder.positions": "decoder.positional_embedding",
        "decoder.tokens.weight": "decoder.token_embedding.weight",
    },
    head="",  # always the token embeddings
    without_bias=(".key",),
)


def read(checkpoint: Checkpoint) -> Weights:
    """Return what the checkpoint holds; UserError names the file and what is wrong with it."""
    (path,) = checkpoint.weights
    source = str(path)
    content = read_pickle(path)
    dims = _dims(content.get("dims"), source)
    state = rename(named_tensors(content.get("model_state_dict"), source), NAMES, dims, source)
    published = PUBLISHED.get(path.stem) or of_size(dims.width, dims.decoder_layers, dims.vocabulary)
    return Weights(dims, state, checked_heads(published and published.alignment_heads, dims, source))


def _dims(stated: object, source: str) -> Dims:
    sizes = stated if isinstance(stated, dict) else {}
    try:
        dims = Dims(
            mel_bands=int(sizes["n_mels"]),
            vocabulary=int(sizes["n_vocab"]),
            width=int(sizes["n_audio_state"]),
            heads=int(sizes["n_audio_head"]),
            encoder_layers=int(sizes["n_audio_layer"]),
            decoder_layers=int(sizes["n_text_layer"]),
        )
        text = (int(sizes["n_text_state"]), int(sizes["n_text_head"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{source} does not tell the sizes of a Whisper model: {error}", "choose another model"
        ) from error
    if text != (dims.width, dims.heads):
        raise UserError(f"{source}: encoder and decoder differ in width or heads", "choose another model")
    return dims
