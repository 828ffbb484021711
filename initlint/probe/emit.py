"""Writes small expressions as ONNX nodes, in whichever form the opset wants."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from .payload import Array

REDUCE_AXES_AS_INPUT = 18
"""From this opset on ReduceMean, ReduceMax, ReduceMin and ReduceSumSquare take their axes as an input."""


class Emitter:
    """Collects nodes and constants; every name starts with ``prefix``."""

    def __init__(self, prefix: str, opset: int) -> None:
        self._prefix = prefix
        self._opset = opset
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def take(self) -> list[NodeProto]:
        """The nodes written since the last call."""
        nodes, self.nodes = self.nodes, []
        return nodes

    def name(self, what: str) -> str:
        self._count += 1
        return f"{self._prefix}{self._count} {what}"

    def constant(self, value: Array) -> str:
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = self.name("constant")
            self.constants.append(numpy_helper.from_array(value, self._constants[key]))
        return self._constants[key]

    def floats(self, *values: float) -> str:
        """A scalar, or a vector, of float32."""
        return self.constant(np.array(values[0] if len(values) == 1 else values, np.float32))

    def ints(self, *values: int) -> str:
        """A vector of int64."""
        return self.constant(np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Write one node; returns its output."""
        output = output or self.name(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def reduce(self, kind: str, value: str, axes: tuple[int, ...]) -> str:
        """Reduce over ``axes``, which stay as axes of length 1."""
        if self._opset < REDUCE_AXES_AS_INPUT:
            return self.op(kind, value, axes=list(axes), keepdims=1)
        return self.op(kind, value, self.ints(*axes), keepdims=1)

    def reduce_all(self, kind: str, value: str) -> str:
        """Reduce over every axis, to a scalar."""
        return self.op(kind, value, keepdims=0)

    def to_float(self, value: str) -> str:
        return self.op("Cast", value, to=TensorProto.FLOAT)
