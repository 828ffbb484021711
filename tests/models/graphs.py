"""ONNX graphs written by hand: what only ONNX has, and nets whose every tensor a test wants to choose; no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]
Change = float | Array | Callable[[Array], Array]
"""What becomes of a tensor: one value throughout, another tensor, or a function of the drawn one."""


class Graph:
    """Collects nodes and initialisers; names of layers are PyTorch's ("0.weight")."""

    def __init__(self, seed: int = 0, changes: Mapping[str, Change] | None = None, opset: int = 17) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.changes = dict(changes or {})
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[int | str], kind: int = onnx.TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def tensor(self, name: str, value: Array) -> str:
        change = self.changes.pop(name, None)
        if callable(change):
            value = change(value)
        elif change is not None:
            value = np.broadcast_to(np.asarray(change, value.dtype), value.shape)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def normal(self, name: str, *shape: int, std: float) -> str:
        return self.tensor(name, (self.rng.standard_normal(shape) * std).astype(np.float32))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"/{output}", **attributes))
        return output

    def linear(self, name: str, x: str, fan_in: int, units: int, gain: float = math.sqrt(2.0)) -> str:
        """``x @ weight.T + bias``, weights normal with std gain / sqrt(fan_in) (He by default), bias zero."""
        weight = self.normal(f"{name}.weight", units, fan_in, std=gain / math.sqrt(fan_in))
        bias = self.tensor(f"{name}.bias", np.zeros(units, np.float32))
        return self.op("Gemm", x, weight, bias, transB=1)

    def matmul(self, name: str, x: str, fan_in: int, units: int, gain: float = 1.0) -> str:
        """``x @ weight`` for inputs of any rank; the weight is stored as (in, out)."""
        return self.op("MatMul", x, self.normal(f"{name}.weight", fan_in, units, std=gain / math.sqrt(fan_in)))

    def conv(self, name: str, x: str, inputs: int, units: int, kernel: int = 3, group: int = 1) -> str:
        """A 2-D convolution with "same" padding and no bias, He normal."""
        fan_in = inputs // group * kernel**2
        weight = self.normal(f"{name}.weight", units, inputs // group, kernel, kernel, std=math.sqrt(2.0 / fan_in))
        return self.op("Conv", x, weight, pads=[kernel // 2] * 4, group=group)

    def norm(self, name: str, x: str, width: int) -> str:
        """Batch normalisation as it stands in an untrained file."""
        ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
        named = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones}
        return self.op("BatchNormalization", x, *(self.tensor(f"{name}.{key}", value) for key, value in named.items()))

    def model(self, *outputs: str) -> onnx.ModelProto:
        if self.changes:
            raise KeyError(f"no tensor is called {', '.join(self.changes)}")
        values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "test", self.inputs, values, self.initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def mlp(
    seed: int = 0,
    depth: int = 4,
    width: int = 64,
    inputs: int = 32,
    outputs: int = 10,
    activation: str = "Relu",
    gain: float = math.sqrt(2.0),
    changes: Mapping[str, Change] | None = None,
) -> onnx.ModelProto:
    """The linear layers "0", "2", "4", ... with a non-linearity between them, normal with std gain / sqrt(fan_in)."""
    graph = Graph(seed, changes)
    x = graph.input("x", ["batch", inputs])
    for index in range(depth - 1):
        x = graph.op(activation, graph.linear(str(2 * index), x, inputs, width, gain))
        inputs = width
    return graph.model(graph.linear(str(2 * depth - 2), x, inputs, outputs, 1.0))


def residual(
    seed: int = 0,
    blocks: int = 3,
    width: int = 32,
    activation: str = "Relu",
    changes: Mapping[str, Change] | None = None,
) -> onnx.ModelProto:
    """x + fc2(f(fc1(x))) per block, Fixup's smaller fc1 instead of normalisation; then a linear head."""
    graph = Graph(seed, changes)
    x = graph.input("x", ["batch", width])
    for index in range(blocks):
        hidden = graph.op(activation, graph.linear(f"blocks.{index}.fc1", x, width, width, blocks**-0.5))
        x = graph.op("Add", x, graph.linear(f"blocks.{index}.fc2", hidden, width, width, 1.0))
    return graph.model(graph.linear("head", x, width, 10, 1.0))
