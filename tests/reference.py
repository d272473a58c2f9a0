"""The reference implementation (openai-whisper) with our weights: what the engine's tests compare with."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import whisper
from whisper.model import ModelDimensions
from whisper.model import Whisper as ReferenceWhisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from pipeline.types import Pcm
from pipeline.whisper.model import TEXT_POSITIONS, Whisper
from pipeline.whisper.padding import AUDIO_POSITIONS


def tokenizer(*, multilingual: bool = True, languages: int = 99) -> Tokenizer:
    """Return the tokenizer, set to transcribe English."""
    with warnings.catch_warnings():  # it leaves its vocabulary files open
        warnings.simplefilter("ignore", ResourceWarning)
        return get_tokenizer(multilingual, num_languages=languages, language="en", task="transcribe")


def transcribe(ours: Whisper, pcm: Pcm, **options: Any) -> list[dict[str, Any]]:
    """Return the segments that carry text, by the reference's own loop in float32 with the weights of `ours`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        audio = pcm.astype(np.float32) / 32_768
        segments = whisper.transcribe(model(ours), audio, temperature=0.0, fp16=False, **options)["segments"]
    return [segment for segment in segments if segment["text"].strip()]


@lru_cache(maxsize=1)
def model(ours: Whisper) -> ReferenceWhisper:
    """Return the reference's model with the weights of `ours`."""
    d = ours.dims
    theirs = ReferenceWhisper(
        ModelDimensions(
            d.mel_bands,
            AUDIO_POSITIONS,
            d.width,
            d.heads,
            d.encoder_layers,
            d.vocabulary,
            TEXT_POSITIONS,
            d.width,
            d.heads,
            d.decoder_layers,
        )
    )
    state = dict(_state(ours.state_dict(), d.width))
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert not missing
    heads = torch.zeros(d.decoder_layers, d.heads, dtype=torch.bool)
    for layer, head in ours.alignment_heads:
        heads[layer, head] = True
    theirs.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return theirs.eval()


_NAMES = {
    "encoder.positions": "encoder.positional_embedding",
    "decoder.positions": "decoder.positional_embedding",
    "decoder.tokens.weight": "decoder.token_embedding.weight",
    "encoder.norm": "encoder.ln_post",
    "decoder.norm": "decoder.ln",
    ".layers.": ".blocks.",
    ".attention.norm": ".attn_ln",
    ".attention.out": ".attn.out",
    ".cross.norm": ".cross_attn_ln",
    ".cross.q.": ".cross_attn.query.",
    ".cross.out": ".cross_attn.out",
    ".mlp.norm": ".mlp_ln",
    ".mlp.up": ".mlp.0",
    ".mlp.down": ".mlp.2",
}


def _state(ours: dict[str, torch.Tensor], width: int) -> Any:
    for name, tensor in ours.items():
        theirs = name
        for mine, other in _NAMES.items():
            theirs = theirs.replace(mine, other)
        if theirs == "decoder.head.weight":
            continue
        fused = {".attention.qkv": ("query", "key", "value"), ".cross.kv": ("key", "value")}
        part = next((part for part in fused if part in theirs), None)
        if part is None:
            yield theirs, tensor
            continue
        module = ".attn." if part == ".attention.qkv" else ".cross_attn."
        for piece, split in zip(fused[part], tensor.split(width), strict=True):
            if piece == "key" and theirs.endswith("bias"):
                assert not split.any()  # the reference's keys have none
                continue
            yield theirs.replace(part + ".", module + piece + "."), split
