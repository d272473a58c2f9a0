"""Thinned padding: the same as all of it where padding is alike, nearly the same in the real model, and cheaper."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from speech_examples import LANGUAGES, answers, clip, passage

from pipeline.types import SAMPLE_RATE
from pipeline.whisper import mel as audio
from pipeline.whisper.encoding import NOTHING, Encoded, Encoders
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.model import Dims, Encoder, Feed
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.padding import AUDIO_POSITIONS, MARGIN, STRIDE, Thinned

SECOND = audio.FRAMES_PER_SECOND


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    return WhisperEngine(WhisperOptions(dtype="float32"))


@pytest.mark.parametrize("frames", [1, 2, 799, 800, 1500, 2885])
@pytest.mark.parametrize("grain", [STRIDE, 30 * STRIDE])
def test_audio_and_what_follows_it_are_encoded_one_by_one(frames: int, grain: int) -> None:
    thinned = Thinned.behind(frames, grain)
    if thinned is None:
        assert AUDIO_POSITIONS - frames / 2 - MARGIN < grain
        return
    assert 0 <= thinned.heard - frames / 2 - MARGIN <= grain
    places = thinned.places.tolist()
    assert places[: thinned.heard] == list(range(thinned.heard))
    positions = torch.arange(float(AUDIO_POSITIONS))
    spread = thinned.spread(positions[thinned.places][:, None])[:, 0]
    assert len(spread) == AUDIO_POSITIONS
    assert (spread - positions).abs().max() <= STRIDE / 2


def test_a_full_window_is_encoded_whole() -> None:
    assert Thinned.behind(audio.WINDOW_FRAMES) is None
    assert Thinned.behind(audio.WINDOW_FRAMES - 2 * MARGIN) is None


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_padding_that_is_alike_may_be_thinned_without_a_difference(dtype: torch.dtype, close: float) -> None:
    torch.manual_seed(1)
    encoder = Encoder(Dims(mel_bands=8, vocabulary=0, width=16, heads=2, encoder_layers=3, decoder_layers=0))
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    frames = 7 * SECOND
    thinned = Thinned.behind(frames)
    assert thinned
    encoder.positions[thinned.heard :] = encoder.positions[-1]
    encoder.to(dtype)
    mel = audio.window(torch.randn(8, frames), 0, frames)[None].to(dtype)
    torch.testing.assert_close(thinned.spread(encoder(mel, thinned)), encoder(mel), atol=close, rtol=close)
    encoder.positions[-1] += 2 * torch.randn(16)  # one that is not alike
    assert not torch.allclose(thinned.spread(encoder(mel, thinned)), encoder(mel), atol=close, rtol=close)


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_real_model_hears_the_same(engine: WhisperEngine, name: str) -> None:
    pcm = passage(name, None).pcm[: 6 * SAMPLE_RATE]
    mel = audio.window(audio.log_mel(torch.from_numpy(pcm), engine.model.dims.mel_bands), 0, 6 * SECOND)
    whole, thinned = (heard(engine, mel, grain) for grain in (0, STRIDE))
    assert abs(whole.speech - thinned.speech) < 0.05
    assert max(abs(a - b) for a, b in zip(whole.languages, thinned.languages, strict=True)) < 0.05
    said = whole.audio[..., : 3 * SECOND, :]
    assert (thinned.audio[..., : 3 * SECOND, :] - said).norm() < 0.1 * said.norm()


@torch.inference_mode()
def test_the_first_step_hears_thinned_keys_as_it_hears_all(engine: WhisperEngine) -> None:
    pcm = passage("fr_standard.m4a", None).pcm[: 6 * SAMPLE_RATE]
    mel = audio.window(audio.log_mel(torch.from_numpy(pcm), engine.model.dims.mel_bands), 0, 6 * SECOND)
    thinned = heard(engine, mel, STRIDE)
    assert thinned.kv.shape[-2] < AUDIO_POSITIONS == thinned.audio.shape[-2]
    start = torch.tensor([[engine.tokens.layout.sot]])
    step = Feed(start, torch.zeros_like(start), engine.model.new_cache(1, 1), thinned.audio[:, :, None], reach=1)
    logits = engine.model.decoder.logits(engine.model.decoder([step])[0][:, 0])[0]
    first = engine.tokens.layout.first_language
    languages = logits[first : first + len(thinned.languages)].softmax(0)
    torch.testing.assert_close(torch.tensor(thinned.languages), languages, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("seconds", "alone"), [(1, True), (15, True), (20, False), (28, False), (30, False)])
def test_steps_listen_to_short_windows_as_they_are_and_to_long_ones_whole(seconds: int, *, alone: bool) -> None:
    thinned = Thinned.behind(seconds * SECOND)
    positions = thinned.positions if thinned else AUDIO_POSITIONS
    encoded = Encoded(torch.randn(1, 2, 2, positions, 4), thinned, NOTHING, 0)
    kv, padded = encoded.quickest
    assert padded == (thinned if alone else None)
    assert torch.equal(kv, encoded.kv if alone else encoded.audio)


def heard(engine: WhisperEngine, mel: torch.Tensor, grain: int) -> Encoded:
    """Return a window of 6 s, encoded."""
    encoders = Encoders(engine.model, engine.tokens.layout, 0, grain=grain)
    future = encoders.submit(mel, 6 * SECOND)
    encoders.encode_some(1)
    return future.result()


def test_windows_are_encoded_in_the_order_in_which_they_came(engine: WhisperEngine) -> None:
    encoders = Encoders(engine.model, engine.tokens.layout, 0, grain=STRIDE)
    mel = torch.zeros(engine.model.dims.mel_bands, audio.WINDOW_FRAMES)
    coming = [encoders.submit(mel, seconds * SECOND) for seconds in (20, 5, 20, 5, 20)]
    for number in range(1, len(coming) + 1):
        assert encoders.encode_some(1) == 1
        assert [one.done() for one in coming] == [True] * number + [False] * (len(coming) - number)
    again = [encoders.submit(mel, seconds * SECOND) for seconds in (5, 20, 5, 20)]
    assert encoders.encode_some(4) == 2
    assert [one.done() for one in again] == [True, False, True, False]


def test_one_thread_serves_windows_of_all_lengths() -> None:
    engine = WhisperEngine(WhisperOptions(dtype="int8", threads=1, slots=2))
    whole = passage("en_switchboard.mp3", "en")
    lengths = [33, 4, 31, 32, 34, 5]
    passages = [replace(clip(whole, seconds), recording_id=str(n)) for n, seconds in enumerate(lengths)]
    answered, idle = set(), 0
    for answer in engine.transcribe(iter(passages)):
        idle = 0 if answer else idle + 1
        assert idle < 2_000, f"stands still; answered: {answered}"  # a window takes at most 224 steps, six times
        if answer:
            answered.add(answer.recording_id)
    assert answered == {str(n) for n in range(len(lengths))}


def test_int8_encodes_little_of_a_short_window_and_float32_all(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = Encoder.forward

    def watch(encoder: Encoder, mel: torch.Tensor, thinned: Thinned | None = None) -> torch.Tensor:
        features = forward(encoder, mel, thinned)
        seen.append(features.shape[1])
        return features

    monkeypatch.setattr(Encoder, "forward", watch)
    short = clip(passage("en_switchboard.mp3", "en"), 5)
    exact = answers(engine, short)
    assert set(seen) == {AUDIO_POSITIONS}
    seen.clear()
    quick = answers(WhisperEngine(WhisperOptions(dtype="int8")), short)
    seen.remove(AUDIO_POSITIONS)  # the silence that texts are weighed against
    assert max(seen) < AUDIO_POSITIONS / 3
    texts = [[s.text for s in found[short.recording_id].segments] for found in (exact, quick)]
    assert texts[0] == texts[1]
