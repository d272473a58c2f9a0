"""int8 weights: close to the float model, and rows that do not depend on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
import torch
from speech_examples import LANGUAGES, answers, clip, passage, said, with_options
from torch import nn

from pipeline.whisper import model as network
from pipeline.whisper import precision
from pipeline.whisper.device import Bfloat16, bfloat16
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.evidence import Claim, Weighed, weigh
from pipeline.whisper.model import (
    CACHE_STEP,
    FEW,
    MANY,
    QUERIES,
    TEXT_POSITIONS,
    Convolution,
    SelfAttention,
    Whisper,
    attend,
    attend_rounded,
)
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.quantise import Int8Linear

HAS_BFLOAT16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 on this CPU"
)


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    return WhisperEngine(
        WhisperOptions(dtype="int8", temperatures=(0.0, 0.6), logprob_threshold=-0.3, best_of=2, slots=8)
    )


def test_int8_product_is_close_and_keeps_small_activations_beside_large_ones() -> None:
    linear = nn.Linear(64, 32)
    x = torch.randn(5, 64)
    x[:, 0] = 100.0  # as large as outliers of the network are: with 8 bits alone the others would drown
    exact, rough = linear(x), Int8Linear(linear)(x)
    assert (rough - exact).abs().max() < 0.01 * exact.abs().max()


def test_one_number_an_activation_is_close_where_none_stands_out() -> None:
    linear = nn.Linear(64, 32)
    x = torch.randn(5, 64)
    x[1] *= 1000  # each row has a scale of its own
    exact, coarse, fine = linear(x), Int8Linear(linear, fine=False)(x), Int8Linear(linear)(x)
    errors = [(rough - exact).norm(dim=1) / exact.norm(dim=1) for rough in (coarse, fine)]
    assert (errors[0] < 0.02).all()
    assert errors[1].mean() < errors[0].mean()


@pytest.mark.skipif(precision.automatic("cpu") != "int8", reason="this CPU has no int8 products")
@pytest.mark.parametrize("fine", [True, False])
def test_int8_products_run_in_hardware(capfd: pytest.CaptureFixture[str], *, fine: bool) -> None:
    linear = Int8Linear(nn.Linear(512, 512), fine=fine)
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        linear(torch.randn(8, 512))
    (product,) = [line for line in capfd.readouterr().out.splitlines() if ",exec,cpu,matmul," in line]
    assert "vnni" in product or "amx" in product, product  # else it is a plain loop, thousands of times slower


@pytest.mark.parametrize("rows", [1, 3, 16, 40])
@pytest.mark.parametrize("fine", [True, False])
def test_int8_rows_are_the_same_in_any_company(rows: int, *, fine: bool) -> None:
    linear = Int8Linear(nn.Linear(64, 48), fine=fine)
    x = torch.randn(50, 64)
    assert torch.equal(linear(x[:rows]), linear(x)[:rows])


KEYS = 200


@pytest.fixture(params=Bfloat16, ids=lambda how: how.name.lower())
def any_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "bfloat16", lambda: request.param)


@pytest.mark.usefixtures("any_cpu")
@pytest.mark.parametrize("queries", [1, 5, FEW + 1, QUERIES + 1])
@pytest.mark.parametrize("kind", ["none", "mask", "bias"])
def test_queries_of_bfloat16_keys_attend_like_those_of_float32(kind: str, queries: int) -> None:
    torch.manual_seed(4)
    q, k, v = torch.randn(3, 2, queries, 64), torch.randn(3, 2, KEYS, 64), torch.randn(3, 2, KEYS, 64)
    masks = {"none": None, "mask": torch.rand(3, 1, 1, KEYS) < 0.5, "bias": 3 * torch.randn(1, 1, 1, KEYS)}
    mask = masks[kind]
    exact, rounded = attend(q, k, v, mask), attend(q, k.bfloat16(), v.bfloat16(), mask)
    assert rounded.dtype == q.dtype
    assert (rounded - exact).norm() / exact.norm() < 0.02


@pytest.mark.usefixtures("any_cpu")
@pytest.mark.parametrize("queries", [1, 5, FEW + 1])
@pytest.mark.parametrize("rows", [1, 3, 16])
def test_queries_of_bfloat16_keys_are_the_same_in_any_company(rows: int, queries: int) -> None:
    q, k, v = (
        torch.randn(20, 8, queries, 64),
        torch.randn(20, 8, 1500, 64).bfloat16(),
        torch.randn(20, 8, 1500, 64).bfloat16(),
    )
    assert torch.equal(attend(q[:rows], k[:rows], v[:rows]), attend(q, k, v)[:rows])


@pytest.mark.usefixtures("any_cpu")
@pytest.mark.parametrize("blocks", range(1, TEXT_POSITIONS // CACHE_STEP + 1))
def test_a_text_attends_the_same_however_far_its_batch_mates_have_come(blocks: int) -> None:
    q, k, v = torch.randn(20, 8, 1, 64), *torch.randn(2, 20, 8, TEXT_POSITIONS, 64).bfloat16()
    last = torch.randint((blocks - 1) * CACHE_STEP, blocks * CACHE_STEP, (20, 1, 1, 1))

    def attended(rows: int, span: int) -> torch.Tensor:
        return attend(q[:rows], k[:rows, :, :span], v[:rows, :, :span], torch.arange(span) <= last[:rows])

    alone = attended(20, blocks * CACHE_STEP)
    for rows, span in product((1, 7, 20), range(blocks * CACHE_STEP, TEXT_POSITIONS + 1, CACHE_STEP)):
        assert torch.equal(attended(rows, span), alone[:rows])


@pytest.mark.usefixtures("any_cpu")
@pytest.mark.parametrize("length", [7, QUERIES, 2 * QUERIES + 1])
def test_rounded_attention_is_close_however_alike_the_keys_are(length: int) -> None:
    q, k, v = torch.randn(3, 2, 4, length, 64)
    k += 30 * torch.randn(4, 1, 64)  # what all keys have in common makes large scores, and no difference
    for bias in (None, torch.randn(1, 1, 1, length)):
        exact, rounded = attend(q, k, v, bias), attend_rounded(q, k, v, bias)
        assert (rounded - exact).norm() / exact.norm() < 0.02


@pytest.mark.usefixtures("any_cpu")
@pytest.mark.parametrize(("length", "rounded"), [(MANY - 1, False), (MANY, True)])
@torch.inference_mode()
def test_encoder_rounds_long_stretches_only(length: int, *, rounded: bool) -> None:
    attention, bias = SelfAttention(64, 2), torch.randn(1, 1, 1, length)
    x = torch.randn(1, length, 64)
    for given in (None, bias):
        attention.rounded = False
        exact = attention(x, given)
        attention.rounded = True
        found = attention(x, given)
        assert torch.equal(found, exact) != rounded
        torch.testing.assert_close(found, exact, atol=2e-3, rtol=0.0)
    assert (attention(x) - attention(x, bias)).abs().max() > 5e-3


@HAS_BFLOAT16
def test_encoder_of_float32_is_not_rounded_and_that_of_int8_is_where_it_pays() -> None:
    exact, quick = (WhisperEngine(WhisperOptions(dtype=dtype)).model.encoder for dtype in ("float32", "int8"))
    assert {one.dtype for one in exact.parameters()} == {torch.float32}
    assert not any(layer.attention.rounded for layer in exact.layers)
    how = bfloat16()
    assert {layer.attention.rounded for layer in quick.layers} == {how is Bfloat16.VECTORS}
    formats = quick.conv1.weight.dtype, quick.conv2.weight.dtype
    assert [one == torch.bfloat16 for one in formats] == {
        Bfloat16.TILES: [True, True],
        Bfloat16.VECTORS: [False, True],
        Bfloat16.CONVERTED: [False, False],
    }[how]


@torch.inference_mode()
def test_a_rounded_convolution_takes_and_gives_what_others_do() -> None:
    torch.manual_seed(6)
    convolution, x = Convolution(64, 32, stride=2), torch.randn(2, 100, 64)
    exact = convolution(x)
    rounded = convolution.bfloat16()(x)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.01


@HAS_BFLOAT16
def test_what_int8_hears_is_kept_in_bfloat16(engine: WhisperEngine) -> None:
    assert engine.silence.dtype == engine.model.new_audio(1).dtype == torch.bfloat16
    room = engine.model.new_audio(3)
    assert engine.model.bytes_of_audio == room.nbytes // 3


def test_texts_are_weighed_with_coarse_products_of_the_same_weights(engine: WhisperEngine) -> None:
    models = engine.model, engine.weigher
    mine, shared = ([*one.parameters(), *one.buffers()] for one in models)
    assert all(one is other for one, other in zip(mine, shared, strict=True))
    prompt, _ = engine.tokens.prompt("es", "transcribe", [], timestamps=False)
    text = engine.tokens.encode(" Gracias por llamar a la centralita.")
    claims = [
        Claim(prompt, text * count, engine.tokens.layout.eot, heard=[0.0] * len(text) * count) for count in (1, 6)
    ]
    (short, exact), (_, quick) = (
        [torch.tensor(found.read())[:, 1] for found in weigh(one, claims, engine.silence)] for one in models
    )
    assert not torch.equal(quick, exact)
    torch.testing.assert_close(quick, exact, atol=1.0, rtol=0)
    torch.testing.assert_close(quick.sum(), exact.sum(), atol=2.0, rtol=0)
    assert torch.equal(torch.tensor(weigh(engine.model, claims[:1], engine.silence)[0].read())[:, 1], short)


def test_the_engine_weighs_with_the_coarse_model(engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    models = []

    def noted(model: Whisper, claims: Sequence[Claim], quiet: torch.Tensor) -> list[Weighed]:
        models.append(model)
        return weigh(model, claims, quiet)

    monkeypatch.setattr("pipeline.whisper.engine.weigh", noted)
    name, language = next(iter(LANGUAGES.items()))
    answers(engine, clip(passage(name, language), 5))
    assert models
    assert all(model is engine.weigher for model in models)
    assert engine.weigher is not engine.model


def test_text_and_scores_do_not_depend_on_batch_mates(engine: WhisperEngine) -> None:
    # Of several lengths: beside whole windows some whose padding is thinned, much and little.
    lengths = {"en_switchboard.mp3": 30, "es_centralita.opus": 5, "fr_standard.m4a": 21, "it_centralino.flac": 8}
    clips = [clip(passage(name, LANGUAGES[name]), seconds) for name, seconds in lengths.items()]
    together = answers(engine, *clips)
    for one in clips:
        alone, among = answers(engine, one)[one.recording_id], together[one.recording_id]
        assert said(alone.segments) == said(among.segments)
        for mine, other in zip(alone.segments, among.segments, strict=True):
            for name in ("avg_logprob", "no_speech_prob", "evidence", "evidence_per_token"):
                assert getattr(mine, name) == pytest.approx(getattr(other, name), abs=1e-5)
            assert [one.avg_logprob for one in mine.attempts] == pytest.approx(
                [one.avg_logprob for one in other.attempts], abs=1e-5
            )


def test_beam_search_and_context_do_not_depend_on_batch_mates(engine: WhisperEngine) -> None:
    beam = with_options(engine, replace(engine.options, beam=3, context="passage", temperatures=(0.0,)))
    # Contexts of several lengths: their rows begin at different positions.
    clips = [
        replace(clip(passage(name, language), 8), initial_prompt="Marseille, Torino. " * length)
        for length, (name, language) in enumerate(list(LANGUAGES.items())[:3])
    ]
    together = answers(beam, *clips)
    assert said(answers(beam, clips[1])[clips[1].recording_id].segments) == said(
        together[clips[1].recording_id].segments
    )
