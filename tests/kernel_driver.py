"""Holds the GPU's kernel against torch's attention, in Triton's interpreter (TRITON_INTERPRET=1).

A process of its own, because the interpreter is chosen when Triton is imported.
"""

from __future__ import annotations

import torch

from pipeline.whisper import kernels
from pipeline.whisper.model import Feed

ROWS, HEADS, SIZE, POSITIONS = 5, 3, 64, 448


def main() -> None:
    torch.manual_seed(0)
    at, cache = torch.tensor([0, 3, 63, 64, 447]), torch.randn(2, 2, ROWS, HEADS, POSITIONS, SIZE)
    qkv = torch.randn(ROWS, 3, HEADS, SIZE)
    feed = Feed(torch.zeros(ROWS, 1, dtype=torch.int64), at[:, None], cache.clone(), torch.empty(0), POSITIONS)
    expected = feed.remember(1, qkv, feed.mask())  # torch's: this is no GPU
    torch.testing.assert_close(kernels.remember(qkv, at, cache[1]), expected, atol=2e-6, rtol=0)
    assert torch.equal(cache, feed.cache)


if __name__ == "__main__":
    main()
