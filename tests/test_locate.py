"""Model names -> files: directories, single files, the hub's cache, and a hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import models
import pytest
import torch
from hub_server import COMMIT, HubServer
from models import SIZES

from pipeline.errors import UserError
from pipeline.whisper.checkpoints.files import CTRANSLATE2, HUGGINGFACE, OPENAI
from pipeline.whisper.locate import locate
from pipeline.whisper.tokens import Tokens

ROOT = Path(__file__).parent.parent
INDEX = {"weight_map": {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}}


def fill(directory: Path, *names: str) -> Path:
    """Make a directory with these files; their content is their name."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text(json.dumps(INDEX) if "index" in name else json.dumps({"is": name}))
    return directory


@pytest.mark.parametrize(
    ("names", "format", "weights"),
    [
        (["model.bin"], CTRANSLATE2, ["model.bin"]),
        (["model.safetensors"], HUGGINGFACE, ["model.safetensors"]),
        (["pytorch_model.bin"], HUGGINGFACE, ["pytorch_model.bin"]),
        (["pytorch_model.bin", "model.safetensors", "flax_model.msgpack"], HUGGINGFACE, ["model.safetensors"]),
        (["model.bin", "model.safetensors"], CTRANSLATE2, ["model.bin"]),
        (
            ["model.safetensors.index.json", *INDEX["weight_map"].values()],
            HUGGINGFACE,
            sorted(INDEX["weight_map"].values()),
        ),
    ],
    ids=str,
)
def test_format_is_told_by_what_lies_in_the_directory(
    tmp_path: Path, names: list[str], format: str, weights: list[str]
) -> None:
    directory = fill(tmp_path / "model", "config.json", "tokenizer.json", *names)
    found = locate(str(directory))
    assert (found.format, [path.name for path in found.weights]) == (format, weights)
    assert (found.config, found.tokenizer) == (directory / "config.json", directory / "tokenizer.json")


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ([], "model.bin or model.safetensors"),
        (["model.bin"], "config.json"),
        (["model.gguf", "config.json"], "model.bin or model.safetensors"),
        (["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"], "model-00002-of-00002"),
    ],
    ids=str,
)
def test_missing_files_are_named(tmp_path: Path, names: list[str], missing: str) -> None:
    with pytest.raises(UserError, match=missing):
        locate(str(fill(tmp_path / "model", *names)))


@pytest.mark.parametrize("places", [{}, {"a": "../../secret"}, {"a": ["x"]}, "all", None], ids=str)
def test_index_that_names_no_shards_is_refused(tmp_path: Path, places: object) -> None:
    directory = fill(tmp_path / "model", "config.json", "tokenizer.json")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(UserError, match="names no shards"):
        locate(str(directory))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "~/nowhere", "nowhere.pt", "nowhere"])
def test_model_that_does_not_exist_is_refused_with_a_hint(name: str) -> None:
    with pytest.raises(UserError, match=r"no model") as caught:
        locate(name)
    assert "directory" in caught.value.hint


def test_single_file_is_of_openais_format(tmp_path: Path) -> None:
    fill(tmp_path, "own.pt", "tokenizer.json", "model.safetensors")
    found = locate(str(tmp_path / "own.pt"))
    assert (found.format, found.weights) == (OPENAI, (tmp_path / "own.pt",))
    with pytest.raises(UserError, match=r"model\.safetensors is no \.pt file") as caught:
        locate(str(tmp_path / "model.safetensors"))
    assert "directory" in caught.value.hint


# A tokenizer that is not beside the weights is told by the size of the vocabulary.


def vocabulary_of(path: Path) -> int:
    return Tokens(locate(str(path)).tokenizer).layout.vocabulary


def test_tokenizer_of_a_single_file_is_told_by_its_sizes(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    torch.save(models.openai_content(models.random_model(SIZES["multilingual"])), path)
    assert vocabulary_of(path) == 51_865


def test_tokenizer_of_a_directory_is_told_by_its_configuration(tmp_path: Path) -> None:
    directory = fill(tmp_path / "hf", "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"vocab_size": 51_865}))
    assert vocabulary_of(directory) == 51_865


@pytest.mark.parametrize("name", ["vocabulary.json", "vocabulary.txt"])
def test_tokenizer_of_a_ctranslate2_model_is_told_by_its_vocabulary(tmp_path: Path, name: str) -> None:
    directory = fill(tmp_path / "ct2", "model.bin", "config.json")
    words = [f"word{i}" for i in range(51_865)]
    (directory / name).write_text(json.dumps(words) if name.endswith("json") else "\n".join(words) + "\n")
    assert vocabulary_of(directory) == 51_865
    (directory / name).write_text("[")
    with pytest.raises(UserError, match=name if name.endswith("json") else r"lacks tokenizer\.json"):
        locate(str(directory))


def test_vocabulary_that_no_tokenizer_is_known_of_is_refused(tmp_path: Path) -> None:
    directory = fill(tmp_path / "hf", "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"vocab_size": 32_000}))
    with pytest.raises(UserError, match=r"lacks tokenizer\.json, for a vocabulary of 32000") as caught:
        locate(str(directory))
    assert "tokenizer.json" in caught.value.hint


# The hub's libraries read their environment when they are loaded: each look-up is its own process.


def look_up(name: str, home: Path, **environment: str) -> dict[str, str]:
    """Return what `locate` finds with that cache: the directory and the names of the weights; or its error."""
    code = (
        "import json, sys\n"
        "from pipeline.errors import UserError\n"
        "from pipeline.whisper.locate import locate\n"
        "try:\n"
        "    found = locate(sys.argv[1])\n"
        "    out = {'weights': ' '.join(p.name for p in found.weights), 'tokenizer': str(found.tokenizer)}\n"
        "except UserError as error:\n"
        "    out = {'error': str(error), 'hint': error.hint}\n"
        "assert 'torch' not in sys.modules\n"
        "print(json.dumps(out))"
    )
    variables = {"HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", **environment}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", code, name], cwd=ROOT, env=kept | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def cache(home: Path, repository: str, *names: str) -> Path:
    """Lay out the hub's cache by hand, as an earlier download would have."""
    folder = home / "hub" / ("models--" + repository.replace("/", "--"))
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    return fill(folder / "snapshots" / COMMIT, *names)


@pytest.mark.parametrize("weights", ["model.bin", "model.safetensors", "pytorch_model.bin"])
def test_cached_repository_is_found_offline(home: Path, weights: str) -> None:
    cached = cache(home, "openai/whisper-small", "config.json", "tokenizer.json", weights)
    found = look_up("openai/whisper-small", home, HF_HUB_OFFLINE="1")
    assert found == {"weights": weights, "tokenizer": str(cached / "tokenizer.json")}


def test_size_is_the_name_of_a_repository(home: Path) -> None:
    cache(home, "Systran/faster-whisper-small", "config.json", "tokenizer.json", "model.bin")
    assert look_up("small", home, HF_HUB_OFFLINE="1")["weights"] == "model.bin"


@pytest.mark.parametrize("names", [["config.json", "tokenizer.json"], []], ids=str)
def test_repository_without_cached_weights_is_not_there_offline(home: Path, names: list[str]) -> None:
    if names:
        cache(home, "openai/whisper-small", *names)
    found = look_up("openai/whisper-small", home, HF_HUB_OFFLINE="1")
    assert "cannot be reached" in found["error"]
    assert "download openai/whisper-small" in found["hint"]


def test_missing_tokenizer_is_taken_from_the_cache_of_its_vocabulary(home: Path, tmp_path: Path) -> None:
    directory = fill(tmp_path / "turbo", "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"vocab_size": 51_866}))
    missing = look_up(str(directory), home, HF_HUB_OFFLINE="1")
    assert "tokenizer.json of openai/whisper-large-v3" in missing["hint"]
    cached = cache(home, "openai/whisper-large-v3", "tokenizer.json")
    assert look_up(str(directory), home, HF_HUB_OFFLINE="1")["tokenizer"] == str(cached / "tokenizer.json")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    everything = ["model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "config.json", "tokenizer.json"]
    repositories = {
        "org/both": fill(tmp_path / "both", "model.bin", "README.md", *everything),
        "org/all": fill(
            tmp_path / "all", "generation_config.json", "model.fp32-00001-of-00002.safetensors", *everything
        ),
        "org/shards": fill(
            tmp_path / "shards", "model.safetensors.index.json", *INDEX["weight_map"].values(), *everything[1:]
        ),
        "org/other": fill(tmp_path / "other", "model.gguf", "config.json"),
    }
    server = HubServer(repositories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("repository", "downloaded"),
    [
        ("org/both", ["config.json", "model.bin", "tokenizer.json"]),
        ("org/all", ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]),
        (
            "org/shards",
            [
                "config.json",
                *sorted(INDEX["weight_map"].values()),
                "model.safetensors.index.json",
                "tokenizer.json",
            ],
        ),
    ],
)
def test_one_format_is_downloaded_once(hub: HubServer, home: Path, repository: str, downloaded: list[str]) -> None:
    found = look_up(repository, home, HF_ENDPOINT=hub.url)
    assert found["weights"]
    assert sorted(hub.given) == downloaded
    assert look_up(repository, home, HF_ENDPOINT=hub.url) == found
    assert look_up(repository, home, HF_HUB_OFFLINE="1") == found
    assert sorted(hub.given) == downloaded


def test_interrupted_download_is_finished(hub: HubServer, home: Path) -> None:
    look_up("org/shards", home, HF_ENDPOINT=hub.url)
    lost = next(home.rglob("model-00002-*"))
    lost.unlink()
    hub.given.clear()
    assert "model-00002-of-00002.safetensors" in look_up("org/shards", home, HF_ENDPOINT=hub.url)["weights"]
    assert lost.exists()


@pytest.mark.parametrize(
    ("repository", "error"),
    [
        ("org/nowhere", "has no model org/nowhere"),
        ("org/other", "org/other has none of model.bin, model.safetensors"),
        ("org/a b", "is no id of the Hugging Face hub"),
    ],
)
def test_repository_that_is_of_no_use_is_refused(hub: HubServer, home: Path, repository: str, error: str) -> None:
    found = look_up(repository, home, HF_ENDPOINT=hub.url)
    assert error in found["error"]
    assert found["hint"]


def test_hub_that_does_not_answer_is_said_so(home: Path) -> None:
    found = look_up("org/model", home, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert "cannot be reached" in found["error"]
