"""CAM++: what a voice sounds like, as a vector (https://arxiv.org/abs/2303.00332), at inference.

A small network of residual convolutions over time and bands, then densely connected convolutions over time, each
masked by the context that it stands in, then mean and deviation over time. Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

SIZE = 192  # of the vector
_BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers, and how far their kernels are spread
_SEGMENT = 100  # frames that share a context
_EPSILON = 1e-5


class CamPlus:
    """The network, with the weights of 3D-Speaker's checkpoints."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Take the checkpoint's tensors, on the device to work on."""
        self._weights = weights

    def __call__(self, features: Tensor) -> Tensor:
        """Return a vector, [batch, SIZE], for each of `features`, [batch, frames, bands] without their mean."""
        x = self._head(features.transpose(1, 2)[:, None])
        x = self._convolved(x, "xvector.tdnn.linear", stride=2, padding=2)
        x = self._normed(x, "xvector.tdnn.nonlinear.batchnorm").relu()
        for number, (layers, dilation) in enumerate(_BLOCKS, 1):
            for layer in range(1, layers + 1):
                x = torch.cat([x, self._dense(x, f"xvector.block{number}.tdnnd{layer}", dilation)], 1)
            x = self._normed(x, f"xvector.transit{number}.nonlinear.batchnorm").relu()
            x = self._convolved(x, f"xvector.transit{number}.linear")
        x = self._normed(x, "xvector.out_nonlinear.batchnorm").relu()
        told = torch.cat([x.mean(-1), x.std(-1)], 1)[..., None]
        return self._normed(self._convolved(told, "xvector.dense.linear"), "xvector.dense.nonlinear.batchnorm")[..., 0]

    def _head(self, x: Tensor) -> Tensor:
        """Return [batch, channels, frames] of [batch, 1, bands, frames]; a quarter of the bands is in each channel."""
        x = self._normed(self._planar(x, "head.conv1", padding=1), "head.bn1").relu()
        for layer in (1, 2):
            for block, stride in ((0, 2), (1, 1)):
                x = self._residual(x, f"head.layer{layer}.{block}", stride)
        x = self._normed(self._planar(x, "head.conv2", stride=2, padding=1), "head.bn2").relu()
        return x.flatten(1, 2)

    def _residual(self, x: Tensor, name: str, stride: int) -> Tensor:
        y = self._normed(self._planar(x, f"{name}.conv1", stride=stride, padding=1), f"{name}.bn1").relu()
        y = self._normed(self._planar(y, f"{name}.conv2", padding=1), f"{name}.bn2")
        if stride > 1:
            x = self._normed(self._planar(x, f"{name}.shortcut.0", stride=stride), f"{name}.shortcut.1")
        return (x + y).relu()

    def _dense(self, x: Tensor, name: str, dilation: int) -> Tensor:
        x = self._convolved(self._normed(x, f"{name}.nonlinear1.batchnorm").relu(), f"{name}.linear1")
        x = self._normed(x, f"{name}.nonlinear2.batchnorm").relu()
        y = self._convolved(x, f"{name}.cam_layer.linear_local", padding=dilation, dilation=dilation)
        context = self._convolved(_context(x), f"{name}.cam_layer.linear1").relu()
        return y * self._convolved(context, f"{name}.cam_layer.linear2").sigmoid()

    def _convolved(self, x: Tensor, name: str, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias")
        return F.conv1d(x, weight, bias, stride, padding, dilation)

    def _planar(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self._weights[f"{name}.weight"], None, (stride, 1), padding)

    def _normed(self, x: Tensor, name: str) -> Tensor:
        get = self._weights.get
        mean, var = self._weights[f"{name}.running_mean"], self._weights[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, get(f"{name}.weight"), get(f"{name}.bias"), eps=_EPSILON)


def _context(x: Tensor) -> Tensor:
    """Return the mean over all frames, plus that of each frame's segment."""
    frames = x.shape[-1]
    local = F.avg_pool1d(x, _SEGMENT, _SEGMENT, ceil_mode=True).repeat_interleave(_SEGMENT, -1)[..., :frames]
    return x.mean(-1, keepdim=True) + local
