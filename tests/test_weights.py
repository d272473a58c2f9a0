"""Every format of checkpoint gives the network that others make of it, or one clear error."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ctranslate2
import models
import numpy as np
import pytest
import torch
import whisper
from models import ALIGNMENT, SIZES, Size
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from pipeline.errors import UserError
from pipeline.whisper.checkpoints.published import PUBLISHED, of_size
from pipeline.whisper.locate import locate
from pipeline.whisper.model import Feed, Whisper
from pipeline.whisper.weights import READERS, build, load

QUANTISATIONS = "float32 float16 bfloat16 int16 int8 int8_float32 int8_float16 int8_bfloat16".split()  # noqa: SIM905
CPU = torch.device("cpu")


def loaded(path: Path) -> Whisper:
    model, tokens = load(locate(str(path)), "float32", CPU)
    assert tokens.layout.vocabulary == model.dims.vocabulary
    return model


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return, by a size's name, a directory with that model in Hugging Face's format; not to be changed."""
    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if name not in made:
            made[name] = models.write_huggingface(
                models.random_model(SIZES[name]), tmp_path_factory.mktemp("models") / name
            )
        return made[name]

    return directory


@pytest.fixture
def small(written: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a copy of the multilingual model, to be damaged."""
    return Path(shutil.copytree(written("multilingual"), tmp_path / "small"))


@torch.inference_mode()
def expected(directory: Path, size: Size) -> tuple[Tensor, Tensor]:
    """Return features and logits by transformers."""
    theirs = WhisperForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()
    found = theirs(input_features=models.mel(size), decoder_input_ids=models.tokens(size))
    return found.encoder_last_hidden_state[0], found.logits[0]


def assert_equal_outputs(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert float(other.std()) > 0.1  # numbers that tell something
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_safetensors_give_the_outputs_of_transformers(written: Callable[[str], Path], name: str) -> None:
    directory, size = written(name), SIZES[name]
    model = loaded(directory)
    assert_equal_outputs(models.outputs(model, size), expected(directory, size))
    assert model.alignment_heads == tuple(tuple(pair) for pair in ALIGNMENT)


@pytest.mark.parametrize("name", ["distil", "english"])
def test_shards_give_the_outputs_of_transformers(tmp_path: Path, name: str) -> None:
    directory = models.write_huggingface(models.random_model(SIZES[name]), tmp_path / name, shard="2MB")
    assert len(list(directory.glob("model-*.safetensors"))) > 1
    assert_equal_outputs(models.outputs(loaded(directory), SIZES[name]), expected(directory, SIZES[name]))


@pytest.mark.parametrize("shards", [1, 3])
def test_pickled_tensors_give_the_outputs_of_transformers(tmp_path: Path, shards: int) -> None:
    size = SIZES["distil"]
    directory = models.write_pickled(models.random_model(size), tmp_path / "distil", shards)
    assert_equal_outputs(models.outputs(loaded(directory), size), expected(directory, size))


def test_half_precision_on_disk_is_converted(tmp_path: Path) -> None:
    size = SIZES["english"]
    directory = models.write_huggingface(models.random_model(size).half(), tmp_path / "half")
    assert_equal_outputs(models.outputs(loaded(directory), size), expected(directory, size))


@pytest.mark.parametrize("name", SIZES)
def test_openai_files_give_the_outputs_of_the_reference(tmp_path: Path, name: str) -> None:
    size = SIZES[name]
    path = models.write_openai(models.random_model(size), tmp_path / "own.pt")
    theirs = whisper.load_model(str(path), device="cpu").float().eval()
    with torch.inference_mode():
        features = theirs.encoder(models.mel(size))
        logits = theirs.decoder(models.tokens(size), features)
    assert_equal_outputs(models.outputs(loaded(path), size), (features[0], logits[0]))


@pytest.mark.parametrize("name", SIZES)
def test_ctranslate2_gives_the_outputs_of_transformers(
    written: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    model = loaded(models.write_ctranslate2(written(name), tmp_path / name, "float32"))
    assert_equal_outputs(models.outputs(model, SIZES[name]), expected(written(name), SIZES[name]))
    assert model.alignment_heads == tuple(tuple(pair) for pair in ALIGNMENT)


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_ctranslate2_runs_to_the_same_outputs_whatever_the_quantisation(
    written: Callable[[str], Path], tmp_path: Path, quantisation: str
) -> None:
    size = SIZES["multilingual"]
    directory = models.write_ctranslate2(written("multilingual"), tmp_path / "ct2", quantisation)
    ours = loaded(directory)
    theirs = ctranslate2.models.Whisper(str(directory), compute_type="float32")
    features = theirs.encode(ctranslate2.StorageView.from_array(models.mel(size).numpy()))
    torch.testing.assert_close(
        models.outputs(ours, size)[0], torch.from_numpy(np.array(features)[0]), atol=1e-3, rtol=1e-4
    )
    heard = dict(theirs.detect_language(features)[0])
    logits = first_logits(ours, torch.from_numpy(np.array(features)))
    chances = logits[[50_259, 50_260, 50_261]].softmax(0).tolist()
    assert heard == pytest.approx(dict(zip(("<|en|>", "<|zh|>", "<|de|>"), chances, strict=True)), abs=1e-3)


@torch.inference_mode()
def first_logits(model: Whisper, features: Tensor) -> Tensor:
    start, position = torch.tensor([[50_258]]), torch.tensor([[0]])
    (hidden,) = model.decoder([Feed(start, position, model.new_cache(1), model.decoder.audio(features), reach=1)])
    return model.decoder.logits(hidden[0])[0]


@pytest.mark.parametrize("quantisation", QUANTISATIONS[1:])
def test_quantised_weights_are_those_that_were_written(
    written: Callable[[str], Path], tmp_path: Path, quantisation: str
) -> None:
    exact = loaded(written("multilingual")).state_dict()
    found = loaded(models.write_ctranslate2(written("multilingual"), tmp_path / "ct2", quantisation)).state_dict()
    for name, tensor in exact.items():
        largest = tensor.flatten(1).abs().amax(1) if tensor.ndim > 1 else tensor.abs()
        step = {"float16": 2**-11, "bfloat16": 2**-8, "int16": 2**-10}.get(quantisation, 1 / 254 + 2**-8)
        if quantisation == "int16":
            largest = tensor.abs().max()[None]
        off = (found[name] - tensor).abs()
        off = off.flatten(1).amax(1) if off.ndim > 1 else off
        assert (off <= largest * step + 1e-6).all(), name


def test_wheels_weights_are_those_of_the_reference_in_another_format(tmp_path: Path) -> None:
    # The demo's model through all of the way: its tensors in OpenAI's names, read back.
    import reference

    base, _ = load(locate("base"), "float32", CPU)
    other = reference.model(base)
    path = tmp_path / "copy.pt"
    torch.save({"dims": vars(other.dims), "model_state_dict": other.state_dict()}, path)
    copy = loaded(path)  # the tokenizer is the wheel's, told by the size of the vocabulary
    assert copy.alignment_heads == base.alignment_heads == PUBLISHED["base"].alignment_heads
    for name, tensor in base.state_dict().items():
        assert torch.equal(copy.state_dict()[name], tensor), name


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_heads_and_hashes_equal_the_reference(name: str) -> None:
    one = PUBLISHED[name]
    assert f"/{one.sha256}/{name}.pt" in whisper._MODELS[name]
    flags = np.frombuffer(gzip.decompress(base64.b85decode(whisper._ALIGNMENT_HEADS[name])), bool)
    pairs = np.argwhere(flags.reshape(one.layers, one.width // 64))  # each head is 64 wide
    assert one.alignment_heads == tuple(map(tuple, pairs.tolist()))
    if name != "large-v1":
        assert of_size(one.width, one.layers, one.vocabulary) is one


def test_heads_that_nobody_states_are_those_of_the_upper_half(small: Path) -> None:
    (small / "generation_config.json").unlink()
    assert loaded(small).alignment_heads == ((1, 0), (1, 1), (1, 2))


def test_fingerprint_tells_weights_apart_and_covers_every_shard(small: Path, tmp_path: Path) -> None:
    sharded = models.write_huggingface(models.random_model(SIZES["multilingual"]), tmp_path / "s", shard="2MB")
    before = locate(str(sharded)).fingerprint()
    assert before == locate(str(sharded)).fingerprint() != locate(str(small)).fingerprint()
    for shard in sharded.glob("model-*.safetensors"):
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert locate(str(sharded)).fingerprint() != before
        shard.write_bytes(content)


def test_tied_output_layer_stays_one_tensor(small: Path) -> None:
    model, _ = load(locate(str(small)), "bfloat16", CPU)
    assert model.decoder.head.weight.data_ptr() == model.decoder.tokens.weight.data_ptr()


# What is wrong with a checkpoint is said in one line.


def refusal(path: Path) -> str:
    """Return the one error that loading ends with."""
    with pytest.raises(UserError) as caught:
        load(locate(str(path)), "float32", CPU)
    message = str(caught.value)
    assert caught.value.hint
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.fixture(params=["model.bin", "model.safetensors", "shard", "pytorch_model.bin", "own.pt"])
def weights_file(request: pytest.FixtureRequest, written: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a file of weights in each format."""
    model = models.random_model(SIZES["multilingual"])
    match request.param:
        case "model.bin":
            return models.write_ctranslate2(written("multilingual"), tmp_path / "ct2", "int8") / "model.bin"
        case "shard":
            return next(models.write_huggingface(model, tmp_path / "shards", shard="2MB").glob("model-00002-*"))
        case "pytorch_model.bin":
            return models.write_pickled(model, tmp_path / "pickled") / "pytorch_model.bin"
        case "own.pt":
            return models.write_openai(model, tmp_path / "own.pt")
    return models.write_huggingface(model, tmp_path / "hf") / "model.safetensors"


def model_of(file: Path) -> Path:
    return file if file.suffix == ".pt" else file.parent


def test_weights_that_are_cut_short_are_refused_by_name(weights_file: Path) -> None:
    content = weights_file.read_bytes()
    loaded(model_of(weights_file))
    size = len(content)
    for cut in (0, 1, 8, 30, 100, 1_000, size // 3, size // 2, 2 * size // 3, size - 1_000, size - 1):
        weights_file.write_bytes(content[:cut])
        assert weights_file.name in refusal(model_of(weights_file)), cut


def test_weights_that_are_something_else_are_refused_by_name(weights_file: Path) -> None:
    noise = np.random.default_rng(3).bytes(100_000)
    for content in (noise, b"\0" * 100_000, b"<!DOCTYPE html><html>Sign in</html>" * 9, b'{"error": "gone"}'):
        weights_file.write_bytes(content)
        assert weights_file.name in refusal(model_of(weights_file))


def test_weights_with_a_damaged_structure_never_end_in_a_traceback(weights_file: Path) -> None:
    content = weights_file.read_bytes()
    draw = np.random.default_rng(4)
    warnings.simplefilter("ignore")  # torch warns of odd pickles before it refuses them
    for _ in range(60):
        damaged = bytearray(content)
        start = int(draw.integers(3_000)) if draw.random() < 0.5 else len(content) - 1 - int(draw.integers(30_000))
        for at in range(start, min(start + 8, len(content))):
            damaged[at] = int(draw.integers(256))
        weights_file.write_bytes(damaged)
        with suppress(UserError):
            checkpoint = locate(str(model_of(weights_file)))
            build(READERS[checkpoint.format](checkpoint), "here")  # as `load` does, which reads the tokenizer first


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["", "[]", '{"model_type": "whi', "\ufeff"])
def test_damaged_json_is_refused_by_name(small: Path, name: str, content: str) -> None:
    (small / name).write_text(content, encoding="utf-8")
    assert name in refusal(small)


def change_config(directory: Path, name: str = "config.json", **values: Any) -> None:
    path = directory / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize(
    "values",
    [
        {"d_model": 96},
        {"vocab_size": 51_864},
        {"num_mel_bins": 128},
        {"encoder_layers": 1},
        {"decoder_layers": 7},
        {"encoder_layers": 10**9},
        {"encoder_layers": 0},
        {"encoder_layers": "two"},
        {"encoder_attention_heads": 5, "decoder_attention_heads": 5},
        {"encoder_attention_heads": 0, "decoder_attention_heads": 0},
        {"encoder_attention_heads": 6},
        {"activation_function": "relu"},
        {"scale_embedding": True},
        {"model_type": "wav2vec2"},
        {"vocab_size": None},
    ],
    ids=str,
)
def test_configuration_that_disagrees_is_refused(small: Path, values: dict[str, Any]) -> None:
    change_config(small, **values)
    assert str(small) in refusal(small)


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("heads", [[[2, 0]], [[0, 3]], [[-1, 0]], [1, 2], "all", [[0, 0, 0]]])
def test_alignment_heads_that_the_model_does_not_have_are_refused(small: Path, heads: Any, file: str) -> None:
    change_config(small, "generation_config.json", alignment_heads=None)
    change_config(small, file, alignment_heads=heads)
    assert f"/{file} states alignment heads" in refusal(small)


@pytest.mark.parametrize("name", ["model.encoder.conv1.bias", "model.decoder.layers.1.encoder_attn.k_proj.weight"])
def test_missing_tensor_is_named(small: Path, name: str) -> None:
    tensors = load_file(small / "model.safetensors")
    tensors.pop(name)
    save_file(tensors, small / "model.safetensors")
    assert name.removeprefix("model.") in refusal(small)


def test_tensor_of_another_shape_or_kind_is_named(small: Path) -> None:
    path = small / "model.safetensors"
    tensors = load_file(path)
    name = "model.decoder.layers.0.fc1.weight"
    save_file(tensors | {name: tensors[name][:-1].contiguous()}, path)
    assert "decoder.layers.0.mlp.up.weight is torch.float32 [191, 48]" in refusal(small)
    save_file(tensors | {name: tensors[name].to(torch.int8)}, path)
    assert "torch.int8" in refusal(small)


@pytest.mark.parametrize("part", [torch.zeros(47, 22), torch.zeros(()), torch.zeros(48, 48, dtype=torch.int8)])
def test_parts_of_one_tensor_that_do_not_fit_together_are_named(small: Path, part: Tensor) -> None:
    path = small / "model.safetensors"
    save_file(load_file(path) | {"model.encoder.layers.1.self_attn.k_proj.weight": part}, path)
    assert "encoder.layers.1.attention.qkv.weight" in refusal(small)


def test_adapter_beside_the_weights_is_refused(small: Path) -> None:
    path = small / "model.safetensors"
    save_file(load_file(path) | {"model.encoder.layers.0.fc1.lora_A.weight": torch.zeros(2, 48)}, path)
    assert "lora_A" in refusal(small)


def test_tokenizer_of_another_vocabulary_is_refused(small: Path) -> None:
    models.write_tokenizer(small / "tokenizer.json", 51_866)
    assert "has 51866 tokens, the weights 51865" in refusal(small)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"state": 1},
        {"dims": {}, "model_state_dict": {}},
        {"dims": [1], "model_state_dict": {}},
        {"dims": {"n_vocab": 51_865}, "model_state_dict": {3: 4}},
    ],
    ids=str,
)
def test_file_of_another_model_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "own.pt"
    models.write_tokenizer(tmp_path / "tokenizer.json", 51_865)
    torch.save(content, path)
    assert str(path) in refusal(path)


@pytest.mark.parametrize("change", [{"n_audio_layer": 3}, {"n_text_layer": 1}, {"n_text_head": 4}, {"n_mels": 128}])
def test_sizes_that_disagree_with_the_tensors_are_refused(tmp_path: Path, change: dict[str, int]) -> None:
    content = models.openai_content(models.random_model(SIZES["multilingual"]))
    path = tmp_path / "own.pt"
    models.write_tokenizer(tmp_path / "tokenizer.json", 51_865)
    torch.save(content | {"dims": content["dims"] | change}, path)
    assert str(path) in refusal(path)


def test_ctranslate2_model_of_another_kind_is_refused(written: Callable[[str], Path], tmp_path: Path) -> None:
    path = models.write_ctranslate2(written("multilingual"), tmp_path / "ct2", "int8") / "model.bin"
    path.write_bytes(path.read_bytes().replace(b"WhisperSpec", b"BertSpec123", 1))
    assert "it holds BertSpec123 specification 6.3" in refusal(path.parent)


def test_published_name_is_held_to_its_hash(tmp_path: Path) -> None:
    path = models.write_openai(models.random_model(SIZES["multilingual"]), tmp_path / "base.pt")
    assert "not those that were published" in refusal(path)
    assert loaded(path.rename(tmp_path / "my-base.pt"))


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["own.pt", "pytorch_model.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_not_executed(small: Path, name: str, zipped: bool) -> None:
    trace, path = small / "executed", small / name
    (small / "model.safetensors").unlink()
    content = models.openai_content(models.random_model(SIZES["multilingual"])) | {"surprise": Bomb(trace)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(trace)))
    assert name in refusal(path if name.endswith(".pt") else small)
    assert not trace.exists()
    if zipped:
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert trace.exists()  # so the file was armed
