"""Silero's network with products: the same answers as the wheel's own file."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from pipeline import speech, speech_network
from pipeline.errors import UserError
from pipeline.ffmpeg_process import find_ffmpeg
from pipeline.speech import CONTEXT, FRAME, STATE, load_session
from pipeline.speech_network import quickened

AUDIO = Path(__file__).parent.parent / "examples" / "audio"
FILE = speech._model_file()


def rewritten(model: bytes) -> bytes:
    return quickened(model, "")


def session(model: bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


@cache
def frames(name: str) -> np.ndarray:
    """Return the recording as the model hears it, [frames, 576], as loud as can be."""
    command = [find_ffmpeg(), "-v", "error", "-i", str(AUDIO / name), "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    raw = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    audio = np.frombuffer(raw, np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(audio / np.abs(audio).max(), CONTEXT + FRAME)[::FRAME]
    return np.ascontiguousarray(windows)


def heard(model: Any, inputs: np.ndarray, group: int) -> list[np.ndarray]:
    """Return the probabilities of all frames, and both states at the end."""
    odds, hidden, cell = [], np.zeros(STATE, np.float32), np.zeros(STATE, np.float32)
    for at in range(0, len(inputs), group):
        one = {"input": inputs[at : at + group], "h": hidden, "c": cell}
        some, hidden, cell = model.run(["speech_probs", "hn", "cn"], one)
        odds.append(some)
    return [np.concatenate(odds), hidden, cell]


@pytest.mark.parametrize("group", [1, 7, 128])
@pytest.mark.parametrize("name", ["fr_standard.m4a", "en_switchboard.mp3", "music.mp3"])
def test_the_answers_are_those_of_the_wheel_s_file(name: str, group: int) -> None:
    ours, theirs = (heard(one, frames(name), group) for one in (load_session(), session(FILE.read_bytes())))
    assert ours[0].shape == theirs[0].shape == (len(frames(name)),)
    assert name == "music.mp3" or theirs[0].max() > 0.9 > 0.1 > theirs[0].min()  # it does hear something
    np.testing.assert_allclose(ours[0], theirs[0], atol=2e-5)
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-3, rtol=1e-4)


def test_all_that_is_rewritten_of_the_installed_file_is_its_convolutions() -> None:
    before, after = onnx.load(FILE), onnx.load_from_string(rewritten(FILE.read_bytes()))
    onnx.checker.check_model(after, full_check=True)
    assert "Conv" in {node.op_type for node in before.graph.node}
    assert [node.op_type for node in after.graph.node if node.op_type == "Conv"] == ["Conv"]  # a product already
    assert after.graph.initializer == before.graph.initializer
    assert (after.graph.input, after.graph.output) == (before.graph.input, before.graph.output)
    assert after.opset_import == before.opset_import


def test_another_network_is_left_as_it_is() -> None:
    model = onnx.load(FILE)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Elu"
    assert rewritten(model.SerializeToString()) == model.SerializeToString()


def test_the_same_nodes_with_weights_of_another_size_are_left_as_they_are() -> None:
    model = onnx.load(FILE)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "encoder.1.bias")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros(32, np.float32), weight.name))
    assert rewritten(model.SerializeToString()) == model.SerializeToString()


def test_a_bug_in_the_rewriting_is_no_matter_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_network, "ENCODER", [None])
    with pytest.raises(TypeError):
        load_session.__wrapped__(1)


def test_other_weights_are_taken() -> None:
    model = onnx.load(FILE)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "encoder.1.weight")
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * 0.5).tobytes()
    inputs = frames("fr_standard.m4a")[:200]
    ours, theirs = (heard(session(of(model.SerializeToString())), inputs, 128) for of in (rewritten, bytes))
    np.testing.assert_allclose(ours[0], theirs[0], atol=2e-5)
    assert np.abs(theirs[0] - heard(load_session(), inputs, 128)[0]).max() > 0.01


@pytest.mark.parametrize("content", [b"", b"\0", b"no model", b"\x3a\x05ab", b"\x80", b"\x38\x01", b"PK\3\4" * 99])
def test_what_is_no_model_has_a_hint(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    monkeypatch.setattr(speech, "_model_file", lambda: path)
    with pytest.raises(UserError, match=r"other\.onnx (is no ONNX file|cannot be loaded)") as caught:
        load_session.__wrapped__(1)
    assert "silero-vad" in caught.value.hint


def test_a_file_cut_short_has_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.onnx"
    monkeypatch.setattr(speech, "_model_file", lambda: path)
    whole = FILE.read_bytes()
    for length in (1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"other\.onnx (is no ONNX file|cannot be loaded)"):
            load_session.__wrapped__(1)


def test_a_model_that_is_not_installed_has_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed") as caught:
        load_session.__wrapped__(1)
    assert "silero-vad" in caught.value.hint
