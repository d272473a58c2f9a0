"""Steps of decoding: the newest tokens of all lanes go through the network together. Knows slots, no windows.

The network is read once for all lanes, which is most of a step's cost when few rows are at work. On an NVIDIA GPU a
step is hundreds of small kernels: it is recorded once as a CUDA graph for each shape that recurs, and replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.whisper.model import TEXT_POSITIONS, Whisper
from pipeline.whisper.slots import Slots

REACHES = (128, 256, TEXT_POSITIONS)  # positions that the graphs of long and short texts cover
# How far a GPU goes between two looks of the host at which rows have ended: what the host does then takes as long as
# some layers of steps. More steps than a few are lost on the rows that have ended.
LAYERS_A_LOOK, STEPS_A_LOOK = 128, 8

Shape = tuple[tuple[int, int], ...]  # slots and reach of each lane; no slots where it is idle


class Steps:
    """Takes steps in `lanes`, whose buffers stay where they are."""

    def __init__(self, model: Whisper, lanes: Sequence[Slots[Any]]) -> None:
        self._model, self._lanes = model, lanes
        self.graphs = model.device.type == "cuda"
        self.stride = max(1, min(STEPS_A_LOOK, LAYERS_A_LOOK // model.dims.decoder_layers)) if self.graphs else 1
        self._recorded: dict[Shape, torch.cuda.CUDAGraph | None] = {}  # None: met once

    def take(self) -> None:
        """Choose the next tokens of all busy rows, `stride` times."""
        if not any(slots.busy for slots in self._lanes):
            return
        for _ in range(self.stride):
            if self.graphs:
                self._replay(self.shape())
            else:
                self.step(tuple((slots.busy, slots.reach) for slots in self._lanes))
            for slots in self._lanes:
                slots.advance()

    def shape(self) -> Shape:
        """Return the shape of the next step, rounded up so that few shapes come."""
        shape = []
        for slots in self._lanes:
            busy = min(slots.capacity, 1 << (slots.busy - 1).bit_length()) if slots.busy else 0
            shape.append((busy, next(reach for reach in REACHES if slots.reach <= reach) if busy else 0))
        return tuple(shape)

    def step(self, shape: Shape) -> None:
        """Take one step of the first slots of each lane. Asks the device nothing, so that it can be recorded."""
        busy = [(slots, *size) for slots, size in zip(self._lanes, shape, strict=True) if size[0]]
        hidden = self._model.decoder([slots.feed(count, reach) for slots, count, reach in busy])
        logits = self._model.decoder.logits(torch.cat([one[:, 0] for one in hidden]))
        for (slots, _, reach), part in zip(busy, torch.split(logits, [len(one) for one in hidden]), strict=True):
            slots.choose(part, reach)

    def _replay(self, shape: Shape) -> None:
        """Step by a graph. A shape that is met for the first time runs as it is, which warms the libraries up."""
        if shape not in self._recorded:
            self._recorded[shape] = None
            self.step(shape)
            return
        graph = self._recorded[shape]
        if graph is None:
            earlier = next((one for one in self._recorded.values() if one), None)
            graph = self._recorded[shape] = torch.cuda.CUDAGraph()
            pool = earlier.pool() if earlier else None
            # Other threads of the process may use the device meanwhile.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                self.step(shape)
        graph.replay()
