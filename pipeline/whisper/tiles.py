"""What CPUs with AMX, which multiply bfloat16 in tiles, gain by. Knows products and attention, no network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Scores that torch's kernel for attention takes at once: what is left of a row it takes one by one. 1504 positions
# take about 0.87 of the time of 1500.
SCORES = 16


class TiledLinear(nn.Module):
    """Made of a linear map in bfloat16, whose weights lie as the tiles take them: no product has to lay them out."""

    packed: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        """`rows` are how many it takes at a time, about."""
        super().__init__()
        self.register_buffer("packed", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """x [..., D] -> [..., D'], both bfloat16."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return y


def vacate(k: Tensor, v: Tensor, count: int) -> None:
    """Let keys and values [N, H, S, E] from `count` on weigh next to nothing in attention, in place, without a mask.

    All keys are taken from their mean, which changes no weight. A query's scores are 0 on average then, so that their
    exponentials are 1 or more on average (Jensen's inequality); that of a key of zeros is 1. Four of these take 0.3 %
    of the weight of 1500 at most, less than bfloat16 rounds by. A mask would take most of what whole vectors gain.
    """
    k -= k[:, :, :count].mean(2, keepdim=True)
    k[:, :, count:] = 0
    v[:, :, count:] = 0
