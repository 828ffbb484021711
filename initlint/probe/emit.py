"""Writes small expressions as ONNX nodes, in whichever form the opset wants."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from .payload import Array

REDUCE_AXES_AS_INPUT = 18
"""From this opset on ReduceMean, ReduceMax, ReduceMin and ReduceSumSquare take their axes as an input."""

_EQUAL_OF_FLOATS, _WHERE, _SIGN, _FILLED, _EXPAND = 11, 9, 9, 9, 8
"""The opsets that brought Equal for floats, Where, Sign, ConstantOfShape and Expand."""

_LARGEST = float(np.finfo(np.float32).max)


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

    def equal(self, one: str, other: str) -> str:
        """Where two floats are equal."""
        if self._opset >= _EQUAL_OF_FLOATS:
            return self.op("Equal", one, other)
        return self.op("Not", self.op("Or", self.op("Less", one, other), self.op("Greater", one, other)))

    def where(self, condition: str, one: str, other: str) -> str:
        """``one`` where the condition holds, else ``other``, which is finite in opsets without such an operator."""
        if self._opset >= _WHERE:
            return self.op("Where", condition, one, other)
        one = self.op("Clip", one, min=-_LARGEST, max=_LARGEST)  # infinity times 0 is no number
        rest = self.to_float(self.op("Not", condition))
        return self.op("Add", self.op("Mul", self.to_float(condition), one), self.op("Mul", rest, other))

    def sign(self, value: str) -> str:
        if self._opset >= _SIGN:
            return self.op("Sign", value)
        zero = self.floats(0.0)
        above, below = (self.to_float(self.op(kind, value, zero)) for kind in ("Greater", "Less"))
        return self.op("Sub", above, below)

    def zeros_like(self, value: str) -> str:
        if self._opset >= _FILLED:
            return self.op("ConstantOfShape", self.op("Shape", value))
        return self.op("Mul", value, self.floats(0.0))

    def expand_like(self, value: str, wide: str) -> str:
        """``value`` in the shape of ``wide``."""
        if self._opset >= _EXPAND:
            return self.op("Expand", value, self.op("Shape", wide))
        return self.op("Add", value, self.zeros_like(wide))

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
