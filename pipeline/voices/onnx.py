"""Any speaker model in ONNX that takes Kaldi's mel bands: WeSpeaker's and 3D-Speaker's are exported so.

Knows tensors and onnxruntime. Its input is [batch, frames, 80] without the mean over the frames, its first output
[batch, size].
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.voices.fbank import BANDS


class OnnxEmbedder:
    """What a voice sounds like, by a file."""

    def __init__(self, path: Path) -> None:
        """Load the file; UserError where it takes something else."""
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors have no other ancestor in common
            raise UserError(f"{path} cannot be loaded: {str(error).partition(chr(10))[0]}", "is it whole?") from error
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 3 or not (shape[2] == BANDS or isinstance(shape[2], str | None)):
            told = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise UserError(f"{path} takes {told}", f"a speaker model takes [batch, frames, {BANDS}]")
        self._input = inputs[0].name

    def __call__(self, features: Tensor) -> Tensor:
        """Return a vector for each of the features, one after the other: not all exports take batches."""
        vectors = [self._session.run(None, {self._input: one[None].cpu().numpy()})[0] for one in features]
        return torch.cat([torch.from_numpy(vector).reshape(1, -1) for vector in vectors])
