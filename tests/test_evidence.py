"""Evidence: what the audio adds to a text's likelihood, held to the reference implementation's network."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import reference
import torch
import whisper
from speech_examples import LANGUAGES, answers, clip, passage, passes, with_options

from pipeline.types import SAMPLE_RATE, Passage, Pcm, Segment, Span
from pipeline.whisper import mel as audio
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.evidence import CLAIMS, TOKENS, Claim, Weighed, Weight, silence, sums, weigh
from pipeline.whisper.model import Whisper
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.reels import Window

PLAIN = WhisperOptions(jump_s=math.inf, temperatures=(0.0,), dtype="float32")
TEXTS = {
    "es_centralita.opus": " Gracias por llamar a la centralita.",
    "fr_standard.m4a": " Merci. Au revoir et à bientôt, mes amis.",
}


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    return WhisperEngine(PLAIN)


def claim(engine: WhisperEngine, pcm: Pcm, language: str, text: str) -> Claim:
    """Return a text between timestamps, claimed to be in the audio."""
    prompt, _ = engine.tokens.prompt(language, "transcribe", [], timestamps=True)
    first = engine.tokens.layout.first_timestamp
    mel = audio.window(audio.log_mel(torch.from_numpy(pcm), engine.model.dims.mel_bands), 0, len(pcm) // audio.HOP)
    (encoded,) = engine.encoders.encode(mel[None])
    return Claim(
        prompt, [first + 10, *engine.tokens.encode(text), first + 200], engine.tokens.layout.eot, encoded.audio
    )


@torch.inference_mode()
def expected(engine: WhisperEngine, samples: Pcm, one: Claim) -> torch.Tensor:
    """Return the log-probability of each token by the reference's spectrogram and network."""
    floats = samples.astype(np.float32) / 32_768
    content = whisper.log_mel_spectrogram(floats, padding=30 * SAMPLE_RATE)[:, : len(samples) // 160]
    mel = whisper.pad_or_trim(content, 3000)
    logits = reference.model(engine.model)(mel[None], torch.tensor([one.prompt + one.tokens]))
    before = logits[0, len(one.prompt) - 1 : -1].log_softmax(1)
    found: torch.Tensor = before.gather(1, torch.tensor(one.tokens)[:, None])[1:-1, 0]  # without the timestamps
    return found


def logprobs(found: Weighed) -> torch.Tensor:
    """Return the log-probabilities with audio and with silence: [2, T]."""
    return torch.tensor(found.read()).T


def test_log_probabilities_with_audio_and_with_silence_equal_the_reference(engine: WhisperEngine) -> None:
    heard = {name: clip(passage(name, LANGUAGES[name]), 12).pcm for name in TEXTS}
    claims = [claim(engine, heard[name], LANGUAGES[name], text) for name, text in TEXTS.items()]
    zeros = np.zeros(30 * SAMPLE_RATE, np.int16)
    for name, one, found in zip(TEXTS, claims, weigh(engine.model, claims, silence(engine.model)), strict=True):
        with_audio, with_silence = logprobs(found)
        torch.testing.assert_close(with_audio, expected(engine, heard[name], one), atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(with_silence, expected(engine, zeros, one), atol=2e-3, rtol=1e-3)


def test_evidence_does_not_depend_on_what_else_is_weighed(engine: WhisperEngine) -> None:
    name, language = next(item for item in LANGUAGES.items() if item[0] in TEXTS)
    whole = claim(engine, clip(passage(name, language), 12).pcm, language, TEXTS[name] * 8)
    claims = [replace(whole, tokens=whole.tokens[:count]) for count in (5, 20, 60)]
    with passes(engine.model) as together:
        found = weigh(engine.model, claims, engine.silence)
    with passes(engine.model) as alone:
        expected = [weigh(engine.model, [one], engine.silence)[0] for one in claims]
    # Not equal numbers alone: attention to other shapes has other sums on some CPUs.
    assert len(together) == 1
    assert sorted(chain(*together)) == sorted(chain(*alone))
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(logprobs(mine), logprobs(other), atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", [1, 4])
def test_many_texts_are_weighed_in_several_passes_and_as_each_alone(
    engine: WhisperEngine, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, language = next(item for item in LANGUAGES.items() if item[0] in TEXTS)
    whole = claim(engine, clip(passage(name, language), 12).pcm, language, TEXTS[name] * 8)
    claims = [replace(whole, tokens=whole.tokens[:count]) for count in [*range(3, 3 + CLAIMS), *[75] * CLAIMS]]
    claims[::3] = [replace(one, audio=None, heard=[-1.0] * len(one.text)) for one in claims[::3]]
    alone = [weigh(engine.model, [one], engine.silence)[0] for one in claims]
    monkeypatch.setattr(Whisper, "batch", batch)
    with passes(engine.model) as together:
        found = weigh(engine.model, claims, engine.silence)
    assert len(together) == 3  # as many short texts as there may be; as many tokens as there may be; and what is left
    lengths = [sum(len(row) for feed in feeds for row in feed) for feeds in together]
    assert max(lengths) <= TOKENS * (1 if batch == 1 else 1.25)  # rows of a feed are as long as its longest
    for mine, other in zip(found, alone, strict=True):
        torch.testing.assert_close(logprobs(mine), logprobs(other), atol=1e-4, rtol=0)


WAYS = {
    "greedy": {},
    "beam": {"beam": 3},
    "sampled": {"temperatures": (0.4,), "best_of": 2},
    "without timestamps": {"timestamps": False},
}


@pytest.mark.parametrize("way", [way if way == "greedy" else pytest.param(way, marks=pytest.mark.slow) for way in WAYS])
def test_what_decoding_has_met_is_what_listening_again_finds(
    engine: WhisperEngine, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[tuple[Claim, Claim]] = []

    def claimed(listening: WhisperEngine, window: Window) -> Claim:
        assert window.encoding
        claim = claim_of(listening, window)
        claims.append((claim, replace(claim, heard=(), audio=window.encoding.result().audio)))
        return claim

    claim_of = WhisperEngine._claim
    monkeypatch.setattr(WhisperEngine, "_claim", claimed)
    monkeypatch.setattr(WhisperEngine, "_listens_again", lambda *_: True)
    clips = [clip(passage(name, LANGUAGES[name]), 10) for name in TEXTS]
    answers(with_options(engine, replace(PLAIN, logprob_threshold=-9.0, **WAYS[way])), *clips)
    assert len(claims) == len(clips)
    for met, again in claims:
        assert met.audio is None
        found = [logprobs(weigh(engine.model, [one], engine.silence)[0]) for one in (met, again)]
        torch.testing.assert_close(*found, atol=1e-3, rtol=0)


def test_segments_have_the_evidence_of_their_text_tokens(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = []

    def noted(*arguments: object) -> list[Weighed]:
        found = weigh(*arguments)  # type: ignore[arg-type]
        sums.extend((heard, quiet) for heard, quiet in map(logprobs, found))
        return found

    monkeypatch.setattr("pipeline.whisper.engine.weigh", noted)
    one = clip(passage("es_centralita.opus", "es"), 10)
    found = answers(with_options(engine, WhisperOptions(context="none", timestamps=False, dtype="float32")), one)
    segments = found[one.recording_id].segments
    assert len(segments) == len(sums)  # without timestamps a window is a segment
    for segment, (heard, quiet) in zip(segments, sums, strict=True):
        nats = float((heard - quiet).sum())
        assert segment.tokens == len(heard)
        assert segment.evidence == pytest.approx(nats, rel=1e-4)
        assert segment.evidence_per_token == pytest.approx(nats / len(heard), rel=1e-4)
        assert segment.text_logprob == pytest.approx(float(heard.mean()), rel=1e-4)
        assert segment.unlikely_share == pytest.approx(float((heard.exp() < 0.5).float().mean()))


@pytest.mark.parametrize(
    ("busy", "waiting", "texts", "weighed"),
    [(16, 0, 1, 1), (16, 2, 3, 0), (16, 2, 4, 4), (128, 0, 7, 0), (128, 0, 8, 8), (128, 2, 16, 16), (0, 2, 1, 1)],
)
def test_texts_are_gathered_while_others_are_decoded_and_more_while_others_wait(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch, busy: int, waiting: int, texts: int, weighed: int
) -> None:
    monkeypatch.setattr("pipeline.whisper.engine.weigh", lambda _model, claims, _quiet: claims)
    monkeypatch.setattr(engine, "_unweighed", lambda _window: True)
    monkeypatch.setattr(engine, "_claim", lambda _window: "its weights")
    windows = [SimpleNamespace(weighed=None) for _ in range(texts)]
    lane = SimpleNamespace(slots=SimpleNamespace(busy=busy), waiting=[object()] * waiting)
    engine._weigh(windows, lane)  # type: ignore[arg-type]
    assert sum(window.weighed is not None for window in windows) == weighed


@pytest.mark.slow
def test_texts_that_are_weighed_together_have_the_evidence_of_each_alone(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def noted(model: Whisper, claims: list[Claim], quiet: torch.Tensor) -> list[Weighed]:
        sizes.append(len(claims))
        return weigh(model, claims, quiet)

    clips = [
        replace(clip(passage(name, LANGUAGES[name]), seconds), recording_id=f"{name} {seconds}")
        for name in TEXTS
        for seconds in (2, 3, 4, 5, 6, 7)
    ]
    options = replace(PLAIN, logprob_threshold=-9.0, slots=8)
    monkeypatch.setattr("pipeline.whisper.engine.weigh", noted)
    together = answers(with_options(engine, options), *clips)
    assert max(sizes) > 1
    assert sum(sizes) == len(clips)
    for one in clips[::4]:
        alone = answers(with_options(engine, options), one)[one.recording_id]
        found = [[segment.evidence for segment in each.segments] for each in (together[one.recording_id], alone)]
        assert found[0]
        assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_sums_are_of_what_each_token_weighs() -> None:
    found = sums([Weight(-1.0, -5.0), Weight(-2.0, -2.5), Weight(-3.0, -3.0)])
    assert found is not None
    assert (found.evidence, found.per_token, found.logprob, found.unlikely) == (4.5, 1.5, -2.0, 1.0)
    surer = sums([Weight(-0.6, -5.0), Weight(-0.8, -0.1)])
    assert surer is not None
    assert surer.unlikely == 0.5
    assert sums([]) is None


@pytest.mark.slow
def test_text_of_noise_has_less_evidence_than_speech(engine: WhisperEngine) -> None:
    noise = np.random.default_rng(5).normal(0, 300, 20 * SAMPLE_RATE).astype(np.int16)
    empty = Passage("noise", 0, 0, noise, (Span(0, len(noise)),), "en")
    open_gates = WhisperOptions(no_speech_threshold=1.0, logprob_threshold=-9.0, dtype="float32")
    listening = with_options(engine, open_gates)
    invented = said(listening, empty)
    spoken = [one for name, language in list(LANGUAGES.items())[:2] for one in said(listening, passage(name, language))]
    assert invented
    least = min(one.evidence_per_token or 0 for one in spoken if len(one.text) > 20)
    assert max(one.evidence_per_token or 0 for one in invented) < least


def said(engine: WhisperEngine, one: Passage) -> tuple[Segment, ...]:
    """Return the segments of a passage."""
    return answers(engine, one)[one.recording_id].segments
