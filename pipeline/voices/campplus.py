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
# A normalisation that follows a convolution directly becomes part of it: names of both, by how they end.
_FOLDED = {
    ".bn1": ".conv1",
    ".bn2": ".conv2",
    ".shortcut.1": ".shortcut.0",
    ".tdnn.nonlinear.batchnorm": ".tdnn.linear",
    ".nonlinear2.batchnorm": ".linear1",
    ".dense.nonlinear.batchnorm": ".dense.linear",
}


class CamPlus:
    """The network, with the weights of 3D-Speaker's checkpoints."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Take the checkpoint's tensors, on the device to work on."""
        self._weights = {name: _laid_out(one) for name, one in _folded(weights).items()}

    def __call__(self, features: Tensor) -> Tensor:
        """Return a vector, [batch, SIZE], for each of `features`, [batch, frames, bands] without their mean."""
        x = self._head(_laid_out(features.transpose(1, 2)[:, None]))
        x = self._convolved(x, "xvector.tdnn.linear", stride=2, padding=2).relu_()
        for number, (layers, dilation) in enumerate(_BLOCKS, 1):
            for layer in range(1, layers + 1):
                x = torch.cat([x, self._dense(x, f"xvector.block{number}.tdnnd{layer}", dilation)], 1)
            x = self._normed(x, f"xvector.transit{number}.nonlinear.batchnorm").relu_()
            x = self._weighed(x, f"xvector.transit{number}.linear")
        x = self._normed(x, "xvector.out_nonlinear.batchnorm").relu_()
        return self._weighed(torch.cat([x.mean(-1), x.std(-1)], 1)[..., None], "xvector.dense.linear")[..., 0]

    def _head(self, x: Tensor) -> Tensor:
        """Return [batch, channels, frames] of [batch, 1, bands, frames]; an eighth of the bands is left."""
        x = self._planar(x, "head.conv1", padding=1).relu_()
        for layer in (1, 2):
            for block, stride in ((0, 2), (1, 1)):
                x = self._residual(x, f"head.layer{layer}.{block}", stride)
        return self._planar(x, "head.conv2", stride=2, padding=1).relu_().contiguous().flatten(1, 2)

    def _residual(self, x: Tensor, name: str, stride: int) -> Tensor:
        y = self._planar(x, f"{name}.conv1", stride=stride, padding=1).relu_()
        y = self._planar(y, f"{name}.conv2", padding=1)
        if stride > 1:
            x = self._planar(x, f"{name}.shortcut.0", stride=stride)
        return y.add_(x).relu_()

    def _dense(self, x: Tensor, name: str, dilation: int) -> Tensor:
        x = self._normed(x, f"{name}.nonlinear1.batchnorm").relu_()
        x = self._weighed(x, f"{name}.linear1").relu_()
        y = self._convolved(x, f"{name}.cam_layer.linear_local", padding=dilation, dilation=dilation)
        context = self._weighed(_context(x), f"{name}.cam_layer.linear1").relu_()
        mask = self._weighed(context, f"{name}.cam_layer.linear2").sigmoid_()
        return y.mul_(mask.repeat_interleave(_SEGMENT, -1)[..., : y.shape[-1]])

    def _convolved(self, x: Tensor, name: str, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias")
        return F.conv1d(x, weight, bias, stride, padding, dilation)

    def _weighed(self, x: Tensor, name: str) -> Tensor:
        """Return a convolution that sees one frame at a time."""
        y, bias = self._weights[f"{name}.weight"][..., 0] @ x, self._weights.get(f"{name}.bias")
        return y if bias is None else y.add_(bias[:, None])

    def _planar(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], (stride, 1), padding)

    def _normed(self, x: Tensor, name: str) -> Tensor:
        scale, mean = self._weights[f"{name}.weight"], self._weights[f"{name}.running_mean"]
        return F.batch_norm(x, mean, self._weights[f"{name}.running_var"], scale, self._weights[f"{name}.bias"])


def _context(x: Tensor) -> Tensor:
    """Return the context of each segment: the mean over all frames, plus the segment's own."""
    return x.mean(-1, keepdim=True) + F.avg_pool1d(x, _SEGMENT, _SEGMENT, ceil_mode=True)


def _folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with each normalisation of `_FOLDED` in the convolution before it."""
    found = dict(weights)
    for name in weights:
        norm = name.removesuffix(".running_mean")
        ending = next((one for one in _FOLDED if name != norm and norm.endswith(one)), None)
        if ending is None:
            continue
        layer = norm.removesuffix(ending) + _FOLDED[ending]
        scale = weights[f"{norm}.running_var"].add(_EPSILON).rsqrt() * weights.get(f"{norm}.weight", 1.0)
        found[f"{layer}.bias"] = weights.get(f"{norm}.bias", 0.0) - weights[name] * scale
        weight = weights[f"{layer}.weight"]
        found[f"{layer}.weight"] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return found


def _laid_out(x: Tensor) -> Tensor:
    """Return planes with their channels last, which convolutions of few channels are quicker with."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
