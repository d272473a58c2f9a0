"""Silero's network for onnxruntime, with products in place of its convolutions.

Duty: the ONNX file of the silero-vad wheel -> a model of the same weights, inputs and outputs that takes a third of the
time. Does NOT know audio or spans, and runs nothing.

The convolutions have four positions a frame and fewer, and onnxruntime multiplies them frame by frame. Here each
position is one product for all frames, with those taps alone that do not lie on padding. Cutting the weights into taps
is part of the graph: onnxruntime does it once, when it loads the model. From the LSTM on the nodes are the file's own.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pipeline.errors import UserError

HINT = "pip install --force-reinstall --no-deps 'silero-vad>=6.2.3,<7'"

# Of the nodes that are replaced. A file with others is left as it is: slower, but not wrong.
DIGEST = "edf73876f2252c833dc8fb887f2842f5a807723add7ebfb017be4a03a9550b77"
HEARD, PADDED = 576, 640  # samples of a frame: as they come, and mirrored at the end
FILTERS, WIDTH, STEP, TIMES = 258, 256, 128, 4  # of the spectrum: real and imaginary ones, samples, samples, positions
BINS = FILTERS // 2
# The convolutions of three taps behind it: name of the weights, channels, features, positions that come in, stride.
ENCODER = [("0", BINS, 128, TIMES, 1), ("1", 128, 64, 4, 2), ("2", 64, 64, 2, 2), ("3", 64, 128, 1, 1)]


def quickened(content: bytes, name: str) -> bytes:
    """Return the ONNX model with products in place of convolutions. UserError, with the file's `name`: it is none."""
    import onnx  # here, because commands that only need the options stay quick
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise UserError(f"{name} is no ONNX file ({error})", HINT) from error
    nodes = list(model.graph.node)
    behind = next((at for at, node in enumerate(nodes) if node.op_type == "LSTM"), 0)
    if _digest(model, nodes[:behind]) != DIGEST:
        return content
    del model.graph.node[:]
    model.graph.node.extend([*_before(nodes[behind].input[0]), *nodes[behind:]])
    rewritten: bytes = model.SerializeToString()
    return rewritten


def _digest(model: Any, nodes: list[Any]) -> str:
    """Return the SHA-256 of nodes, of the sizes of all weights, and of the operators' versions."""
    parts = [one.SerializeToString(deterministic=True) for one in [*model.opset_import, *nodes]]
    sizes = [f"{one.name} {list(one.dims)}".encode() for one in model.graph.initializer]
    return hashlib.sha256(b"\n".join([*parts, *sizes])).hexdigest()


def _before(output: str) -> list[Any]:
    """Return the nodes that make the LSTM's input, float32 [frames, 1, 128], of "input", float32 [frames, 576]."""
    nodes = _Nodes()
    padded = nodes.add("Pad", "input", nodes.integers(0, 0, 0, PADDED - HEARD), mode="reflect")
    waves = _convolved(nodes, padded, ["stft.forward_basis_buffer"], (1, FILTERS, PADDED), WIDTH, STEP, 0)
    waves = nodes.reshape(waves, -1, FILTERS)
    parts = [nodes.cut(waves, 1, 0, BINS), nodes.cut(waves, 1, BINS, FILTERS)]
    power = nodes.add("Add", *(nodes.add("Mul", part, part) for part in parts))
    heard = nodes.reshape(nodes.add("Sqrt", power), -1, TIMES * BINS)
    for name, channels, features, positions, stride in ENCODER:
        weights = [f"encoder.{name}.weight", f"encoder.{name}.bias"]
        shape = channels, features, positions
        heard = nodes.add("Relu", _convolved(nodes, heard, weights, shape, 3, stride, 1))
    nodes.add("Reshape", heard, nodes.integers(-1, 1, 128), output=output)
    return nodes.added


def _convolved(
    nodes: _Nodes, heard: str, weights: list[str], shape: tuple[int, int, int], taps: int, stride: int, padding: int
) -> str:
    """Return float32 [frames, its positions * features] of `heard`, float32 [frames, positions * channels].

    `shape` is (channels, features, positions). Of the weights the first is [features, channels, taps].
    """
    channels, features, positions = shape
    weight, *bias = weights
    products = []
    for at in range(-padding, positions + padding - taps + 1, stride):
        start, end = max(0, at), min(positions, at + taps)
        matrix = nodes.add("Transpose", nodes.cut(weight, 2, start - at, end - at), perm=[2, 1, 0])
        matrix = nodes.reshape(matrix, -1, features)
        products.append(nodes.add("Gemm", nodes.cut(heard, 1, start * channels, end * channels), matrix, *bias))
    return nodes.add("Concat", *products, axis=1)


class _Nodes:
    """Nodes of a graph, in the order in which they are computed. Each has one output."""

    def __init__(self) -> None:
        self.added: list[Any] = []

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node, return the name of its output."""
        from onnx import helper

        output = output or f"added.{len(self.added)}"
        self.added.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def integers(self, *values: int) -> str:
        """Return the name of a constant, int64 [values]."""
        return self.add("Constant", value_ints=list(values))

    def reshape(self, tensor: str, *shape: int) -> str:
        """Return the name of the tensor in another shape; -1 is what is left."""
        return self.add("Reshape", tensor, self.integers(*shape))

    def cut(self, tensor: str, axis: int, start: int, end: int) -> str:
        """Return the name of what lies from `start` to before `end` on an axis."""
        return self.add("Slice", tensor, self.integers(start), self.integers(end), self.integers(axis))
