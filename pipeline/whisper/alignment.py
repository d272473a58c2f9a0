"""Text tokens -> when they are spoken, from the decoder's attention to the audio. Knows no words and no segments.

Source: `whisper.timing` of the reference implementation: attention of the heads that follow the audio, normalised and
smoothed, then dynamic time warping (Sakoe and Chiba 1978).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from pipeline.whisper.device import onto
from pipeline.whisper.model import ANY_SHAPE, Whisper, together

POSITIONS_PER_SECOND = 50  # of the encoder's output
MEDIAN = 7  # positions of the filter that smooths attention
# Exchanges that bring the median of seven into the middle (Paeth 1990, Graphics Gems): quicker than sorting.
EXCHANGES = ((0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4))

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spoken:
    """A window's text to align."""

    start: list[int]  # start of transcript, language, task, no timestamps
    text: list[int]  # tokens, without timestamps
    eot: int
    audio: Tensor  # cross keys and values [L, 2, H, A, E]
    frames: int  # of content, 10 ms each


@dataclass(frozen=True)
class Alignment:
    """When each token starts; the last time is where the last token ends."""

    times: Floats  # seconds in the window [T + 1]
    probabilities: Floats  # of the tokens, among all below end of text [T]


@torch.inference_mode()
def align(model: Whisper, windows: Sequence[Spoken]) -> list[Alignment]:
    """Align windows, each with at least one token."""
    batches = (windows[at : at + model.batch] for at in range(0, len(windows), model.batch))
    listened = [found for batch in batches for found in _listen(model, batch)]
    first = warp([-attention for attention, _ in listened])
    return [
        Alignment(starts / POSITIONS_PER_SECOND, values) for starts, (_, values) in zip(first, listened, strict=True)
    ]


def _listen(model: Whisper, windows: Sequence[Spoken]) -> Iterator[tuple[Floats, Floats]]:
    """Yield each text's attention to the audio [T, positions] and the probabilities of its tokens [T]."""
    queries, logits = _teach(model, windows)
    for row, (one, raw) in enumerate(zip(windows, logits, strict=True)):
        rows = len(one.start) + len(one.text) + 1  # end of text counted
        attention = _attention(model, queries, row, one, rows)[len(one.start) - 1 : -1]
        foretold = raw[:, : one.eot].softmax(1)
        text = onto(foretold.device, torch.tensor(one.text))
        probabilities = foretold.gather(1, text[:, None])[:, 0]
        yield attention.cpu().double().numpy(), probabilities.cpu().double().numpy()


@sdpa_kernel(ANY_SHAPE)
def _teach(model: Whisper, windows: Sequence[Spoken]) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Feed the texts; return the queries to the audio, [N, H, T, E] a layer, and each text's logits [T, vocabulary]."""
    queries: list[Tensor] = []
    audio = together([one.audio for one in windows])  # [L, 2, N, H, A, E]
    (hidden,) = model.decoder([model.feed([[*one.start, *one.text, one.eot] for one in windows], audio, queries)])
    # The last token of the start foretells the first of the text.
    begins = (len(one.start) - 1 for one in windows)
    before = [row[begin : begin + len(one.text)] for row, one, begin in zip(hidden, windows, begins, strict=True)]
    logits = model.decoder.logits(torch.cat(before))
    return queries, torch.split(logits, [len(one.text) for one in windows])


def _attention(model: Whisper, queries: list[Tensor], row: int, one: Spoken, rows: int) -> Tensor:
    """Return the mean normalised attention of a window's tokens to its content: float32 [T, positions]."""
    positions = one.frames // 2
    heads = [
        queries[layer][row, head, :rows].float() @ one.audio[layer, 0, head, :positions].float().T
        for layer, head in model.alignment_heads
    ]
    weights = (torch.stack(heads) * one.audio.shape[-1] ** -0.5).softmax(2)  # [heads, T, positions]
    deviation, mean = torch.std_mean(weights, 1, keepdim=True, unbiased=False)
    weights = (weights - mean) / deviation
    smooth: Tensor = _median(weights).mean(0)
    return smooth


def _median(x: Tensor) -> Tensor:
    """Return the running median of `MEDIAN` positions, reflected at the ends: [..., positions]."""
    reach, positions = MEDIAN // 2, x.shape[-1]
    if positions <= reach:
        return x
    padded = F.pad(x, (reach, reach), mode="reflect")
    shifted = [padded[..., i : i + positions] for i in range(MEDIAN)]
    for a, b in EXCHANGES:
        shifted[a], shifted[b] = shifted[a].minimum(shifted[b]), shifted[a].maximum(shifted[b])
    return shifted[reach]


def warp(costs: Sequence[Floats]) -> list[Floats]:
    """Return, for each matrix of costs [T, positions], the first position of each row on the cheapest monotone path.

    The path goes from corner to corner by steps along the row, to the next row, or both at once. All matrices are
    walked together, an antidiagonal a step. As in the reference sums are float32, and where the diagonal step and the
    one to the next row cost the same, the path goes along the row.
    """
    height, width = (max(cost.shape[axis] for cost in costs) for axis in (0, 1))
    slanted = np.stack([_slant(cost, height, width) for cost in costs], 1)  # [height + width - 1, B, height]
    # sums[d, b, i] is the cost of the path to row i - 1 and position d - i - 1; outside of the matrix it is infinite.
    sums = np.full((len(slanted) + 2, len(costs), height + 1), np.inf, np.float32)
    sums[0, :, 0] = 0.0  # the corner from which all paths start
    for d in range(2, len(sums)):
        diagonal, down, along = sums[d - 2, :, :-1], sums[d - 1, :, :-1], sums[d - 1, :, 1:]
        best = np.minimum(diagonal, down)
        best[diagonal == down] = np.inf
        np.add(np.minimum(best, along, out=best), slanted[d - 2], out=sums[d, :, 1:], casting="same_kind")
    return [_trace(sums[:, b], *cost.shape) for b, cost in enumerate(costs)]


def _slant(cost: Floats, height: int, width: int) -> Floats:
    """Return out[d, i] = cost[i, d - i], infinite outside of the matrix: [height + width - 1, height]."""
    diagonals = height + width - 1
    wide = np.full((height, diagonals + 1), np.inf)
    wide[: cost.shape[0], : cost.shape[1]] = cost
    # Read with rows shorter by one, each row starts one further to the right.
    return np.ascontiguousarray(wide.reshape(-1)[: height * diagonals].reshape(height, diagonals).T)


def _trace(sums: NDArray[np.float32], height: int, width: int) -> Floats:
    """Walk back from the last corner; return the first position of each row."""
    first = np.zeros(height)
    row, position = height, width
    while row > 0 and position > 0:
        first[row - 1] = position - 1
        d = row + position
        diagonal, down, along = sums[d - 2, row - 1], sums[d - 1, row - 1], sums[d - 1, row]
        if min(diagonal, down) < along and diagonal != down:
            row -= 1
            position -= diagonal < down
        else:
            position -= 1
    return first
