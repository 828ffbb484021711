"""What is known before any input arrives: initializers, and what the graph computes from them alone.

Evaluation is lazy and bounded. Repeated values stay views (a ConstantOfShape of 10^9 elements takes a few bytes), and
an operator that is not listed in ``folding.OPERATORS`` makes its result unknown, never an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .folding import MAX_COMPUTED, OPERATORS, Array, is_weight_dtype
from .graph import RESHAPES, Graph, Node, carried
from .onnx_file import byte_size, external_location, external_path, is_external

_KEEP = 2**16
"""Computed arrays of at most so many elements are remembered."""


class Constants:
    """Lazy values of a graph's constants."""

    def __init__(self, graph: Graph, base_dir: Path | None) -> None:
        self._graph = graph
        self._base_dir = base_dir
        self._memo: dict[str, Array | None] = {}
        self._roots: dict[str, tuple[str, ...]] = {}

    def known(self, name: str) -> bool:
        return name in self._graph.constants

    def array(self, name: str) -> Array | None:
        """The value, or None where it is not constant or not computable here. Do not write to it."""
        if name in self._memo:
            return self._memo[name]
        if not name or not self.known(name):
            return None
        self._resolve_upstream(name)
        return self._memo[name] if name in self._memo else self._evaluate(name)

    def _resolve_upstream(self, name: str) -> None:
        """Evaluate small ancestors first, without recursion: chains in a file may be long."""
        order: list[str] = []
        pending, seen = [name], {name}
        while pending:
            current = pending.pop()
            order.append(current)
            node = self._graph.producer.get(current)
            for value in node.inputs if node else ():
                if value and value not in seen and value not in self._memo and self.known(value):
                    seen.add(value)
                    pending.append(value)
        for value in sorted(order, key=self._depth):
            if value != name and self._graph.producer.get(value) is not None:
                self._evaluate(value)

    def _depth(self, name: str) -> int:
        node = self._graph.producer.get(name)
        return node.index if node else -1

    def _evaluate(self, name: str) -> Array | None:
        if name in self._memo:
            return self._memo[name]
        node = self._graph.producer.get(name)
        value: Array | None
        if node is None:
            value = self._initializer(name)
        else:
            value = self._compute(node, name)
        if node is not None or (value is not None and value.size <= _KEEP):
            self._memo[name] = value
        return value

    def _initializer(self, name: str) -> Array | None:
        tensor = self._graph.initializers.get(name)
        return None if tensor is None else self.tensor(tensor)

    def tensor(self, tensor: TensorProto) -> Array | None:
        """The array of a TensorProto; external data is memory-mapped; strings give None."""
        if tensor.data_type == TensorProto.STRING:
            return None
        if not is_external(tensor):
            return numpy_helper.to_array(tensor)
        if self._base_dir is None:
            return None
        _, offset, _ = external_location(tensor)
        path = external_path(tensor, self._base_dir)
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        shape = tuple(tensor.dims)
        if prod(shape) == 0:
            return np.zeros(shape, dtype)
        if byte_size(tensor) != prod(shape) * dtype.itemsize:  # packed sub-byte types
            return None
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)

    def _compute(self, node: Node, name: str) -> Array | None:
        if node.op in ("Constant", "ConstantOfShape"):
            return self._constant_node(node)
        operator = OPERATORS.get(node.op)
        if operator is None:
            return None
        values = [self.array_now(value) if value else None for value in node.inputs]
        if any(value is None and node.inputs[i] for i, value in enumerate(values)):
            return self._keep_shape(node, values)
        if sum(value.size for value in values if value is not None) > MAX_COMPUTED:
            return None
        try:
            with np.errstate(all="ignore"):
                result = operator(node, values, self._graph.opset)
        except (ValueError, IndexError, TypeError, KeyError, OverflowError, MemoryError, ZeroDivisionError):
            return None  # malformed: the runtime will say so when it runs the graph
        outputs = result if isinstance(result, list) else [result]
        for output, value in zip(node.outputs, outputs, strict=False):
            if output:
                self._memo[output] = value
        return self._memo.get(name)

    def _keep_shape(self, node: Node, values: Sequence[Array | None]) -> Array | None:
        """A reshape to an unknown shape still holds the same values in the same order."""
        if node.op in RESHAPES and node.outputs:
            self._memo[node.outputs[0]] = values[0]
            return values[0]
        return None

    def array_now(self, name: str) -> Array | None:
        return self._memo[name] if name in self._memo else self._initializer(name)

    def _constant_node(self, node: Node) -> Array | None:
        if node.op == "ConstantOfShape":
            shape = self.array_now(node.input(0))
            fill = node.attribute("value")
            if shape is None or (shape < 0).any():
                return None
            scalar = np.zeros(1, np.float32) if fill is None else numpy_helper.to_array(fill)
            return np.broadcast_to(scalar.reshape(()), tuple(int(d) for d in shape))
        for key, value in node.attributes.items():
            if key == "value":
                return self.tensor(value)
            if key in ("value_float", "value_floats"):
                return np.asarray(value, np.float32)
            if key in ("value_int", "value_ints"):
                return np.asarray(value, np.int64)
        return None

    def scalar(self, name: str) -> float | None:
        """The value of a constant with one element."""
        if not name or not self.known(name):
            return None
        array = self.array(name)
        if array is None or array.size != 1 or array.dtype.kind in "OSU":
            return None
        return float(np.asarray(array).reshape(()).astype(np.float64))

    def ints(self, name: str) -> tuple[int, ...] | None:
        """The values of a constant vector of integers."""
        array = self.array(name)
        if array is None or array.size > 64:
            return None
        return tuple(int(v) for v in array.reshape(-1))

    def roots(self, name: str) -> tuple[str, ...]:
        """The stored floating-point tensors that a constant is computed from; a generated one is its own root."""
        if name not in self._roots:
            self._roots[name] = tuple(self._find_roots(name))
        return self._roots[name]

    def _find_roots(self, name: str) -> list[str]:
        found: list[str] = []
        pending, seen = [name], {name}
        while pending:
            current = pending.pop()
            node = self._graph.producer.get(current)
            if node is None or node.op in ("Constant", "ConstantOfShape"):
                array = self.array(current)
                if array is not None and is_weight_dtype(array.dtype):
                    found.append(current)
                continue
            if node.op in ("Shape", "Size"):
                continue
            for value in reversed(carried(node)):
                if value and value not in seen:
                    seen.add(value)
                    pending.append(value)
        return found
