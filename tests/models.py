"""Small Whisper models with random weights, written in every format by other hands than ours where there are any."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from ctranslate2.converters import TransformersConverter
from torch import Tensor
from transformers import WhisperConfig, WhisperForConditionalGeneration

from pipeline.whisper.locate import locate
from pipeline.whisper.model import Feed, Whisper

transformers.utils.logging.disable_progress_bar()

BASE_VOCABULARY = 51_865
CANTONESE = 50_358  # its place in the larger vocabulary
HEADS = 3
WIDTH = 48
ALIGNMENT = [[1, 0], [1, 2]]


@dataclass(frozen=True)
class Size:
    """What tells one kind of Whisper from another."""

    vocabulary: int
    bands: int
    encoder_layers: int
    decoder_layers: int


SIZES = {
    "multilingual": Size(51_865, 80, 2, 2),
    "english": Size(51_864, 80, 2, 3),
    "large-v3": Size(51_866, 128, 3, 3),
    "distil": Size(51_866, 128, 4, 2),
}


def random_model(size: Size, seed: int = 1) -> WhisperForConditionalGeneration:
    """Return transformers' model with all parameters drawn, norms and biases too, so that none can be mixed up."""
    config = WhisperConfig(
        vocab_size=size.vocabulary,
        num_mel_bins=size.bands,
        d_model=WIDTH,
        encoder_layers=size.encoder_layers,
        decoder_layers=size.decoder_layers,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=4 * WIDTH,
        decoder_ffn_dim=4 * WIDTH,
    )
    model = WhisperForConditionalGeneration(config).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.15 * torch.randn(parameter.shape, generator=draw) + ("norm.weight" in name))
    model.generation_config.alignment_heads = ALIGNMENT
    first = 50_259 if size.vocabulary >= BASE_VOCABULARY else 50_258
    model.generation_config.lang_to_id = {"<|en|>": first, "<|zh|>": first + 1, "<|de|>": first + 2}
    return model


def write_tokenizer(path: Path, vocabulary: int) -> None:
    """Write a tokenizer.json of that vocabulary, made of the demo model's."""
    path.write_text(_tokenizer(vocabulary), encoding="utf-8")


@cache
def _tokenizer(vocabulary: int) -> str:
    data = json.loads(locate("base").tokenizer.read_text(encoding="utf-8"))
    added = data["added_tokens"]
    if vocabulary > BASE_VOCABULARY:
        for token in added:
            token["id"] += token["id"] >= CANTONESE
        added.append({**added[-1], "id": CANTONESE, "content": "<|yue|>"})
        added.sort(key=lambda token: token["id"])
    elif vocabulary < BASE_VOCABULARY:
        for token in added:
            token["id"] -= 1
        words = data["model"]["vocab"]
        last = next(word for word, index in words.items() if index == added[0]["id"])
        words.pop(last)
        data["model"]["merges"] = [m for m in data["model"]["merges"] if "".join(m).replace(" ", "") != last]
    data["post_processor"] = None  # it names tokens by id
    return json.dumps(data)


def write_huggingface(model: WhisperForConditionalGeneration, directory: Path, shard: str = "1GB") -> Path:
    """Write config.json, safetensors and a tokenizer; `shard` is the largest size of a file."""
    model.save_pretrained(directory, max_shard_size=shard)
    write_tokenizer(directory / "tokenizer.json", model.config.vocab_size)
    return directory


def write_pickled(model: WhisperForConditionalGeneration, directory: Path, shards: int = 1) -> Path:
    """Write config.json, pytorch_model.bin, in one or several files, and a tokenizer."""
    write_huggingface(model, directory)
    (directory / "model.safetensors").unlink()
    state = model.state_dict()
    if shards == 1:
        torch.save(state, directory / "pytorch_model.bin")
        return directory
    places = {name: f"pytorch_model-{i % shards + 1:05}-of-{shards:05}.bin" for i, name in enumerate(state)}
    for file in set(places.values()):
        torch.save({name: state[name] for name, place in places.items() if place == file}, directory / file)
    index = {"metadata": {}, "weight_map": places}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    return directory


def write_ctranslate2(huggingface: Path, directory: Path, quantization: str) -> Path:
    """Convert a directory of Hugging Face's with CTranslate2's own converter."""
    TransformersConverter(str(huggingface), copy_files=["tokenizer.json"]).convert(
        str(directory), quantization=quantization
    )
    # The converter and transformers 5 do not pass these on between them.
    config, generation = directory / "config.json", json.loads((huggingface / "generation_config.json").read_text())
    stated = {"alignment_heads": generation["alignment_heads"], "lang_ids": sorted(generation["lang_to_id"].values())}
    config.write_text(json.dumps(json.loads(config.read_text()) | stated))
    return directory


_OPENAI = {
    "model.": "",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
    "embed_positions.weight": "positional_embedding",
    "embed_tokens": "token_embedding",
    ".layers.": ".blocks.",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "self_attn_layer_norm": "attn_ln",
    "final_layer_norm": "mlp_ln",
    "encoder_attn": "cross_attn",
    "self_attn": "attn",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "out",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}


def openai_content(model: WhisperForConditionalGeneration) -> dict[str, Any]:
    """Return what OpenAI's .pt files hold: sizes, and tensors in half precision under their names."""
    state = {}
    for name, tensor in model.state_dict().items():
        for theirs, openais in _OPENAI.items():
            name = name.replace(theirs, openais)
        state[name] = tensor.half()
    state.pop("proj_out.weight")
    config = model.config
    dims = {
        "n_mels": config.num_mel_bins,
        "n_vocab": config.vocab_size,
        "n_audio_ctx": config.max_source_positions,
        "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads,
        "n_audio_layer": config.encoder_layers,
        "n_text_ctx": config.max_target_positions,
        "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads,
        "n_text_layer": config.decoder_layers,
    }
    return {"dims": dims, "model_state_dict": state}


def write_openai(model: WhisperForConditionalGeneration, path: Path) -> Path:
    """Write a .pt file and a tokenizer beside it."""
    torch.save(openai_content(model), path)
    write_tokenizer(path.with_name("tokenizer.json"), model.config.vocab_size)
    return path


def mel(size: Size) -> Tensor:
    """Return a window that no model has seen: [1, bands, 3000]."""
    return torch.randn(1, size.bands, 3000, generator=torch.Generator().manual_seed(2))


def tokens(size: Size) -> Tensor:
    """Return a few tokens from all over the vocabulary: [1, 6]."""
    return torch.tensor([[50_258, 1, 17, 40_000, size.vocabulary - 1, 50_257]])


@torch.inference_mode()
def outputs(model: Whisper, size: Size) -> tuple[Tensor, Tensor]:
    """Return our network's features [A, D] and logits [T, vocabulary]."""
    text = tokens(size)
    features = model.encoder(mel(size))
    positions = torch.arange(text.shape[1])[None]
    audio = model.decoder.audio(features)
    (hidden,) = model.decoder([Feed(text, positions, model.new_cache(1), audio, reach=text.shape[1])])
    return features[0], model.decoder.logits(hidden[0])
