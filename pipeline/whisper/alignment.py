"""Text tokens -> when they are spoken, from the decoder's attention to the audio. Knows no words and no segments.

Source: `whisper.timing` of the reference implementation: attention of the heads that follow the audio, normalised and
smoothed, then dynamic time warping (Sakoe and Chiba 1978).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.whisper.model import CACHE_STEP, Whisper

POSITIONS_PER_SECOND = 50  # of the encoder's output
MEDIAN = 7  # positions of the filter that smooths attention

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
    """Align windows (each with at least one token) in one pass of the decoder."""
    queries, logits = _teach(model, windows)
    attention, probabilities = [], []
    for row, one in enumerate(windows):
        rows = len(one.start) + len(one.text) + 1  # end of text counted
        begin = len(one.start) - 1  # the last token of the start foretells the first of the text
        attention.append(_attention(model, queries, row, one, rows)[begin:-1].cpu().double().numpy())
        foretold = logits[row, begin : begin + len(one.text), : one.eot].softmax(1)
        text = torch.tensor(one.text, device=foretold.device)
        probabilities.append(foretold.gather(1, text[:, None])[:, 0].cpu().double().numpy())
    first = warp([-matrix for matrix in attention])
    return [
        Alignment(starts / POSITIONS_PER_SECOND, values) for starts, values in zip(first, probabilities, strict=True)
    ]


def _teach(model: Whisper, windows: Sequence[Spoken]) -> tuple[list[Tensor], Tensor]:
    """Feed the texts; return the queries to the audio, [N, H, T, E] a layer, and the logits [N, T, vocabulary]."""
    device = model.decoder.positions.device
    longest = max(len(one.start) + len(one.text) + 1 for one in windows)
    tokens = torch.full((len(windows), longest), windows[0].eot)
    for row, one in enumerate(windows):
        tokens[row, : len(one.start) + len(one.text)] = torch.tensor([*one.start, *one.text])
    positions = torch.arange(longest, device=device).expand(len(windows), -1)
    cache = model.new_cache(len(windows), CACHE_STEP * math.ceil(longest / CACHE_STEP))
    kv = torch.stack([one.audio for one in windows], 2)  # [L, 2, N, H, A, E]
    queries: list[Tensor] = []
    hidden = model.decoder(tokens.to(device), positions, cache, kv, longest, queries)  # [N, T, D]
    return queries, model.decoder.logits(hidden)


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
    reach = MEDIAN // 2
    if positions > reach:
        weights = F.pad(weights, (reach, reach), mode="reflect").unfold(2, MEDIAN, 1).median(3).values
    mean_weights: Tensor = weights.mean(0)
    return mean_weights


def warp(costs: Sequence[Floats]) -> list[Floats]:
    """Return, for each matrix of costs [T, positions], the first position of each row on the cheapest monotone path.

    The path goes from corner to corner by diagonal steps where they are strictly cheapest, then steps to the next row,
    else to the next position. All matrices are walked at once, an antidiagonal a step; sums are float32 as in the
    reference.
    """
    height, width = (max(cost.shape[axis] for cost in costs) for axis in (0, 1))
    # slanted[d, b, i] is the cost of row i - 1 at position d - i - 1; infinite outside of the matrix.
    slanted = np.full((height + width + 1, len(costs), height + 1), np.inf)
    for b, cost in enumerate(costs):
        row, position = np.indices(cost.shape)
        slanted[row + position + 2, b, row + 1] = cost
    moves = np.empty(slanted.shape, np.uint8)
    before = np.full(slanted.shape[1:], np.inf, np.float32)
    before[:, 0] = 0.0  # the corner from which all paths start
    last = np.full_like(before, np.inf)
    for d in range(2, len(slanted)):
        diagonal, down, along = before[:, :-1], last[:, :-1], last[:, 1:]
        take_diagonal = (diagonal < down) & (diagonal < along)
        take_down = (down < diagonal) & (down < along)
        moves[d, :, 1:] = np.where(take_diagonal, DIAGONAL, np.where(take_down, DOWN, ALONG))
        best = np.where(take_diagonal, diagonal, np.where(take_down, down, along))
        now = np.full_like(before, np.inf)
        now[:, 1:] = best + slanted[d, :, 1:]
        before, last = last, now
    return [_trace(moves[:, b], *cost.shape) for b, cost in enumerate(costs)]


DIAGONAL, DOWN, ALONG = 0, 1, 2


def _trace(moves: NDArray[np.uint8], height: int, width: int) -> Floats:
    """Walk back from the last corner; return the first position of each row."""
    first = np.zeros(height)
    row, position = height, width
    while row > 0 and position > 0:
        first[row - 1] = position - 1
        move = moves[row + position, row]
        row -= move != ALONG
        position -= move != DOWN
    return first
