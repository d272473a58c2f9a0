"""What is made for CPUs with AMX gives what the plain way gives, on any CPU that it runs on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.whisper import mel as audio
from pipeline.whisper import model as network
from pipeline.whisper.device import Bfloat16, bfloat16
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.model import Dims, Encoder, attend
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.padding import AUDIO_POSITIONS, Thinned
from pipeline.whisper.tiles import SCORES, TiledLinear, vacate

HAS_BFLOAT16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 on this CPU"
)


@HAS_BFLOAT16
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1504, 64), (2, 7, 64), (1, 64)])
@torch.inference_mode()
def test_a_product_is_that_of_the_weights_as_they_lie_elsewhere(shape: tuple[int, ...], *, bias: bool) -> None:
    torch.manual_seed(1)
    linear, x = nn.Linear(64, 48, bias=bias).bfloat16(), torch.randn(shape).bfloat16()
    found, exact = TiledLinear(linear, 1500)(x), linear.float()(x.float())
    assert (found.dtype, found.shape) == (torch.bfloat16, exact.shape)
    assert (found - exact).norm() / exact.norm() < 0.004


@pytest.mark.parametrize("repelled", [False, True])
def test_vacant_keys_weigh_next_to_nothing_whatever_the_others_score(*, repelled: bool) -> None:
    torch.manual_seed(2)
    real, more = 1500, 4
    q, k, v = torch.randn(3, 2, 8, real + more, 64)
    if repelled:
        k -= 5 * q.mean(2, keepdim=True).sign()  # every score is low: without a mean of 0, zeros would take it all
        q = q.abs() * q.mean(2, keepdim=True).sign()
    exact = attend(q, k[:, :, :real], v[:, :, :real])
    ones = torch.ones_like(v)
    attended = k.clone()
    vacate(attended, v, real)
    vacate(k, ones, real)
    weight = attend(q, k, ones)
    assert (weight <= 1 + 1e-5).all()
    assert (weight >= real / (real + more) - 1e-5).all()
    torch.testing.assert_close(attend(q, attended, v), exact * weight, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("seconds", [3, 12, 30])
@torch.inference_mode()
def test_an_encoder_that_fills_up_its_positions_gives_those_that_are_real(
    seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vacated: list[tuple[int, int]] = []

    def noted(k: torch.Tensor, v: torch.Tensor, count: int) -> None:
        vacated.append((k.shape[2], count))
        vacate(k, v, count)

    monkeypatch.setattr(network, "vacate", noted)
    torch.manual_seed(3)
    encoder = Encoder(Dims(mel_bands=8, vocabulary=0, width=16, heads=2, encoder_layers=3, decoder_layers=0))
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    frames = seconds * audio.FRAMES_PER_SECOND
    thinned = Thinned.behind(frames)
    mel = audio.window(torch.randn(8, frames), 0, frames)[None]
    exact = encoder(mel, thinned)
    assert exact.shape[1] == (thinned.positions if thinned else AUDIO_POSITIONS)
    assert exact.shape[1] % SCORES
    assert not vacated
    encoder.filled_to = SCORES
    found = encoder(mel, thinned)
    assert found.shape == exact.shape
    assert (found - exact).norm() / exact.norm() < (1e-5 if thinned else 0.003)
    assert vacated == ([] if thinned else [(1504, 1500)] * 3)  # the others have a mask


def test_the_encoder_of_int8_is_made_for_tiles_where_there_are_any() -> None:
    model = WhisperEngine(WhisperOptions(dtype="int8")).model
    tiles = bfloat16() is Bfloat16.TILES
    readers = [*model.encoder.layers, *(layer.cross.kv for layer in model.decoder.layers)]
    products = [one for reader in readers for one in reader.modules() if hasattr(one, "packed")]
    assert len(products) == 4 * model.dims.encoder_layers + model.dims.decoder_layers
    assert {isinstance(one, TiledLinear) for one in products} == {tiles}
    assert (model.encoder.filled_to == SCORES) == tiles
