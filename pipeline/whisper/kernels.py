"""A step's attention to the text as one kernel for NVIDIA GPUs: it writes the newest keys and values into the cache
and reads no more of the cache than each row has filled. Knows tensors only.

torch's own attention has one length for all rows: it reads as far as the longest has come, several times what the mean
row has, and the mask and the writing are kernels of their own. Triton comes with torch for CUDA; it needs a C compiler.
(A kernel of ours for the audio was no quicker than cuDNN's, which moves 2.9 of an H100's 3.0 TB/s.)
"""

from __future__ import annotations

import logging
import subprocess
from functools import lru_cache

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
    from triton.errors import TritonError
except ImportError:  # torch for CPUs comes without
    triton = None

_log = logging.getLogger(__name__)

BLOCK, WARPS = 64, 2  # cached positions that are read at a time, and warps that do it: on an H100 the quickest


def remember(qkv: Tensor, position: Tensor, cache: Tensor) -> Tensor:
    """Attend from one new token a row to itself and the earlier ones.

    qkv [R, 3, H, E] in one piece; position int64 [R], of the new token; cache [2, R, H, S, E], keys and values, takes
    the new ones at `position`. Returns [R, H E], in the number format of `qkv`.
    """
    rows, _, heads, size = qkv.shape
    out = qkv.new_empty(rows, heads * size)
    strides = cache.stride(0), cache.stride(1), cache.stride(2)
    _remember[(rows * heads,)](qkv, position, cache, out, *strides, size**-0.5, heads, size, BLOCK, num_warps=WARPS)
    return out


@lru_cache(maxsize=8)
def usable(device: torch.device, size: int) -> bool:
    """Say whether the kernel can be had on `device`, a GPU, for heads of `size` numbers.

    Without it torch's attention does the same, more slowly.
    """
    if triton is None:
        return False
    try:
        with torch.cuda.device(device):
            token, first = torch.zeros(1, 3, 1, size, device=device), torch.zeros(1, dtype=torch.int64, device=device)
            remember(token, first, token.new_zeros(2, 1, 1, 1, size))
    except (TritonError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        _log.warning("no Triton on this machine (%s): decoding on the GPU is slower; is there a C compiler?", reason)
        return False
    return True


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _remember(  # type: ignore[no-untyped-def]
        qkv, position, cache, out, of_kind, of_row, of_head, scale,
        heads: tl.constexpr, size: tl.constexpr, block: tl.constexpr,
    ):  # fmt: skip
        """One row's head: a softmax over itself, then block by block over its past (Milakov and Gimelshein 2018)."""
        row, head = tl.program_id(0) // heads, tl.program_id(0) % heads
        e = tl.arange(0, size)
        newest = qkv + (row * 3 * heads + head) * size + e
        q = tl.load(newest).to(tl.float32) * scale
        k, v = tl.load(newest + heads * size), tl.load(newest + 2 * heads * size)
        at = tl.load(position + row)
        keys = cache + row.to(tl.int64) * of_row + head * of_head
        values = keys + of_kind
        tl.store(keys + at * size + e, k)
        tl.store(values + at * size + e, v)
        highest = tl.sum(q * k.to(tl.float32))
        total = 1.0
        heard = v.to(tl.float32)
        for start in range(0, at, block):
            past = start + tl.arange(0, block)
            there = (past < at)[:, None]
            places = past[:, None] * size + e[None, :]
            scores = tl.sum(tl.load(keys + places, there, 0.0).to(tl.float32) * q[None, :], 1)
            scores = tl.where(past < at, scores, float("-inf"))
            higher = tl.maximum(highest, tl.max(scores))
            weights, kept = tl.exp(scores - higher), tl.exp(highest - higher)
            total = total * kept + tl.sum(weights)
            heard = heard * kept + tl.sum(weights[:, None] * tl.load(values + places, there, 0.0).to(tl.float32), 0)
            highest = higher
        tl.store(out + (row * heads + head) * size + e, (heard / total).to(out.dtype.element_ty))
