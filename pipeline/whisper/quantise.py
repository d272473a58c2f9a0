"""Linear maps with int8 weights, for CPUs: a quarter of the bytes to read, and integer products in hardware.

Weights have a scale a row of the output, activations one a row, taken from the row itself: sums are of integers, so a
row's result depends neither on its batch mates nor on the order of summation. Activations have outliers beside which
8 bits lose the rest. Where that matters and rows are few, which cost the same doubled, they are two int8 numbers: a
coarse one, and what it leaves. The codes go into the product moved up by 128: VNNI multiplies unsigned activations
only, and for signed ones oneDNN falls back to plain loops, thousands of times slower, where there is no AMX.
"""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn

from pipeline.whisper.device import Bfloat16, bfloat16
from pipeline.whisper.model import Linear, Whisper
from pipeline.whisper.padding import AUDIO_POSITIONS
from pipeline.whisper.tiles import SCORES, TiledLinear

LARGEST = 127  # codes are symmetric
ZERO = 128  # the activations' code for zero


class Int8Linear(nn.Module):
    """Made of a linear map; takes and gives floats. `fine`: activations are two numbers."""

    packed: Tensor
    scale: Tensor
    offset: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, *, fine: bool = True) -> None:
        super().__init__()
        self.fine = fine
        weight = linear.weight.detach().float()  # [D', D]
        scale = weight.abs().amax(1).clamp(min=1e-12) / LARGEST  # [D']
        codes = (weight / scale[:, None]).round().to(torch.int8)
        self.register_buffer("packed", torch.ops.onednn.qlinear_prepack(codes, None))
        self.register_buffer("scale", scale)
        self.register_buffer("offset", torch.zeros(len(scale), dtype=torch.int64))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """x [..., D] -> [..., D'], in the number format of x."""
        rows = x.reshape(-1, x.shape[-1])
        largest = torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True))  # quicker than of abs()
        step = largest.float().clamp_(min=1e-12).div_(LARGEST)  # [R, 1]
        exact = rows / step
        codes = _two_parts(exact) if self.fine else exact.round_()  # [R, D], or [2 R, D]
        y = torch.ops.onednn.qlinear_pointwise(
            codes.to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO),
            *(1.0, ZERO, self.packed, self.scale, self.offset, None, 1.0, 0, torch.float32, "none", [], ""),
        )
        if self.fine:
            y = torch.add(y[: len(rows)], y[len(rows) :], alpha=1 / (2 * LARGEST))
        y = y.mul_(step) if self.bias is None else torch.addcmul(self.bias, y, step, out=y)
        return y.view(*x.shape[:-1], -1).to(x.dtype)


def _two_parts(exact: Tensor) -> Tensor:
    """Return the coarse codes of [R, D], and behind them those of what they leave: [2 R, D]."""
    coarse = exact.round()
    return torch.cat([coarse, exact.sub_(coarse).mul_(2 * LARGEST).round_()])


def quantise(model: Whisper) -> Whisper:
    """Give a float32 model int8 weights, in place.

    The decoder reads few rows at a time and is bound by reading its weights: int8, with fine activations. The encoder
    and the audio's keys and values are bound by arithmetic: bfloat16 where the CPU multiplies it in tiles (AMX, see
    `tiles`), int8 with one number an activation elsewhere. Where oneDNN computes with bfloat16, those keys and values
    are kept in it, and where the CPU multiplies it in vectors and not in tiles, the encoder attends to long stretches
    and computes its second convolution in it; the first one's input, the spectrogram, has more to lose.
    """
    tiles = bfloat16() is Bfloat16.TILES
    if tiles:
        model.encoder.bfloat16()
        model.encoder.filled_to = SCORES
        for layer in model.decoder.layers:
            layer.cross.kv.bfloat16()  # type: ignore[union-attr]
    for name, module in list(model.named_modules()):
        for child_name, child in list(module.named_children()):
            reads_audio = name.startswith("encoder") or child_name == "kv"
            if isinstance(child, Linear):
                tiled = reads_audio and tiles
                taken = TiledLinear(child, AUDIO_POSITIONS) if tiled else Int8Linear(child, fine=not reads_audio)
                setattr(module, child_name, taken)
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        model.decoder.audio_dtype = torch.bfloat16
    if bfloat16() is Bfloat16.VECTORS:
        model.encoder.conv2.bfloat16()
        for layer in model.encoder.layers:
            layer.attention.rounded = True  # type: ignore[union-attr]
    return model


def coarse(model: Whisper) -> Whisper:
    """Return the model with one number an activation, of the same weights in memory.

    Whole texts are many rows: bound by arithmetic. Good for weighing them: a token's log-probability is off by some
    0.15 nats. Hooks on the modules of the one are not called by those of the other.
    """
    weights = {id(one): one for one in chain(model.parameters(), model.buffers())}
    twin = copy.deepcopy(model, weights)  # what it is told of as copied already, it takes as it is
    for module in twin.modules():
        if isinstance(module, Int8Linear):
            module.fine = False
    return twin
