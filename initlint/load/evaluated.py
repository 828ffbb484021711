"""What is known before any input arrives: initializers, and what the graph computes from them alone.

Evaluation is lazy and bounded. Repeated values stay views (a ConstantOfShape of 10^8 elements takes a few bytes),
large results are not kept, and an operator that is not listed in ``folding.OPERATORS`` makes its result unknown, never
an error.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from copy import copy
from math import prod
from pathlib import Path
from typing import Self

import numpy as np
from onnx import TensorProto

from .external import MappedFiles
from .folding import (
    MAX_COMPUTED,
    OPERATORS,
    SHAPE_KEEPING,
    VIEWS,
    Array,
    cast_type,
    numpy_type,
    placeholder,
)
from .graph import DRAWN, RESHAPES, Graph, Node

_KEEP = 2**16
"""Computed arrays of at most so many elements are remembered."""


class Evaluated:
    """Lazy values of a graph's constants."""

    def __init__(self, graph: Graph, base_dir: Path | None) -> None:
        self._graph = graph
        self._files = MappedFiles(base_dir)
        self._memo: dict[str, Array | None] = {}
        self._specs: dict[str, Array | None] = {}

    def with_values(self, values: Mapping[str, Array]) -> Self:
        """The same with these stored values in the place of the file's."""
        other = copy(self)
        other._memo = dict(values)
        return other

    def known(self, name: str) -> bool:
        return name in self._graph.constants

    def release(self) -> None:
        """Give back the memory of external data read so far; arrays stay valid."""
        self._files.release()

    # -- shapes and types ----------------------------------------------------------------------------------------

    def spec(self, name: str) -> Array | None:
        """An array of the right shape and dtype, whose values mean nothing: reading weights only to ask for their
        shape would cost as much as checking them. None where ``array`` would be None too."""
        trail: list[tuple[str, Node | None]] = []
        current = name
        while current not in self._specs:
            if not current or not self.known(current):
                self._specs[current] = None
                break
            node = self._graph.producer.get(current)
            trail.append((current, node))
            if node is None or node.op not in VIEWS | SHAPE_KEEPING or not node.input(0):
                break
            current = node.inputs[0]
        for value, node in reversed(trail):
            self._specs[value] = self._spec(value, node)
        return self._specs[name]

    def _spec(self, name: str, node: Node | None) -> Array | None:
        if node is None:
            tensor = self._graph.initializers[name]
            return placeholder(tuple(tensor.dims), numpy_type(tensor.data_type))
        if node.op in DRAWN:
            return self._drawn_spec(node)
        first = self._specs.get(node.input(0)) if node.op in VIEWS | SHAPE_KEEPING else None
        if first is None:
            array = self.array(name)
            return None if array is None else placeholder(array.shape, array.dtype)
        if node.op in SHAPE_KEEPING:
            return placeholder(first.shape, cast_type(node, first.dtype))
        values = [first, *(self.array(value) if value else None for value in node.inputs[1:])]
        results: dict[str, Array | None] = {}
        self._apply(node, values, results)
        return results.get(name)

    @staticmethod
    def _drawn_spec(node: Node) -> Array | None:
        """RandomNormal and RandomUniform say their shape, but have no values before a run."""
        shape = node.integers("shape")
        if any(size < 0 for size in shape) or prod(shape) > MAX_COMPUTED:
            return None
        try:
            return placeholder(shape, numpy_type(node.integer("dtype", TensorProto.FLOAT)))
        except (KeyError, ValueError):
            return None

    # -- values --------------------------------------------------------------------------------------------------

    def array(self, name: str) -> Array | None:
        """The value, or None where it is not constant or not computable here. Do not write to it."""
        if name in self._memo:
            return self._memo[name]
        if not name or not self.known(name):
            return None
        if name not in self._graph.producer:
            return self._initializer(name)
        values: dict[str, Array | None] = {}
        budget = MAX_COMPUTED
        for each in self._upstream(name, self._memo):
            if each in values or each in self._memo:
                continue
            node = self._graph.producer.get(each)
            if node is None:
                values[each] = self._initializer(each)
                continue
            self._compute(node, values, budget)
            if node.op not in VIEWS:
                budget -= sum(array.size for value in node.outputs if (array := values.get(value)) is not None)
        self._remember(values)
        return values[name] if name in values else self._memo.get(name)

    def _remember(self, values: dict[str, Array | None]) -> None:
        for value, array in values.items():
            if array is None or (array.size <= _KEEP and self._graph.producer.get(value) is not None):
                self._memo[value] = array

    def _upstream(self, name: str, known: Container[str] = ()) -> list[str]:
        """``name`` and what it is computed from, in the order of the graph, but not what ``known`` is computed from; no
        recursion, chains may be long."""
        pending, seen = [name], {name}
        while pending:
            node = self._graph.producer.get(pending.pop())
            for value in node.inputs if node else ():
                if value and value not in seen and value not in known and self.known(value):
                    seen.add(value)
                    pending.append(value)
        return sorted(seen, key=self._depth)

    def _depth(self, name: str) -> int:
        node = self._graph.producer.get(name)
        return node.index if node else -1

    def _initializer(self, name: str) -> Array | None:
        tensor = self._graph.initializers.get(name)
        return None if tensor is None else self.tensor(tensor)

    def tensor(self, tensor: TensorProto) -> Array | None:
        """The array of a TensorProto; external data is memory-mapped; strings give None."""
        if tensor.data_type == TensorProto.STRING:
            return None
        return self._files.array(tensor)

    def _compute(self, node: Node, values: dict[str, Array | None], budget: int) -> None:
        """Put the outputs of ``node`` into ``values``."""
        values.update((output, None) for output in node.outputs if output)
        if node.op in ("Constant", "ConstantOfShape"):
            values[node.outputs[0]] = self._constant_node(node, values)
            return
        if node.op not in OPERATORS:
            return
        operands = [self._found(value, values) if value else None for value in node.inputs]
        if any(operand is None and node.inputs[i] for i, operand in enumerate(operands)):
            if node.op in RESHAPES:  # a reshape to an unknown shape still holds the same values in the same order
                values[node.outputs[0]] = operands[0]
            return
        if node.op in VIEWS or sum(operand.size for operand in operands if operand is not None) <= budget:
            self._apply(node, operands, values)

    def _found(self, name: str, values: dict[str, Array | None]) -> Array | None:
        return values[name] if name in values else self._memo.get(name)

    def _apply(self, node: Node, operands: Sequence[Array | None], values: dict[str, Array | None]) -> None:
        try:
            with np.errstate(all="ignore"):
                result = OPERATORS[node.op](node, operands, self._graph.opset)
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError):
            return  # malformed: the runtime will say so when it runs the graph
        outputs = result if isinstance(result, list) else [result]
        values.update((output, value) for output, value in zip(node.outputs, outputs, strict=False) if output)

    def _constant_node(self, node: Node, values: dict[str, Array | None]) -> Array | None:
        if node.op == "ConstantOfShape":
            return self._filled(node, self._found(node.input(0), values))
        for key, value in node.attributes.items():
            if key == "value" and isinstance(value, TensorProto):
                return self.tensor(value)
            if key in ("value_float", "value_floats"):
                return np.asarray(value, np.float32)
            if key in ("value_int", "value_ints"):
                return np.asarray(value, np.int64)
        return None

    def _filled(self, node: Node, shape: Array | None) -> Array | None:
        if shape is None or shape.dtype.kind not in "iu" or bool((shape < 0).any()):
            return None
        fill = node.attribute("value")
        value = np.zeros(1, np.float32) if fill is None else self.tensor(fill)
        dims = tuple(int(d) for d in shape.reshape(-1))
        if value is None or value.size != 1 or prod(dims) > MAX_COMPUTED or len(dims) > 32:
            return None
        return np.broadcast_to(value.reshape(()), dims)

    def scalar(self, name: str) -> float | None:
        """The value of a constant with one element."""
        array = self._small(name, lambda spec: spec.size == 1 and spec.dtype.kind not in "OSU")
        return None if array is None else float(np.asarray(array).reshape(()).astype(np.float64))

    def ints(self, name: str) -> tuple[int, ...] | None:
        """The values of a constant vector of integers."""
        array = self._small(name, lambda spec: spec.size <= 64 and spec.dtype.kind in "iu")
        return None if array is None else tuple(int(v) for v in array.reshape(-1))

    def _small(self, name: str, suits: Callable[[Array], bool]) -> Array | None:
        spec = self.spec(name) if name else None
        return self.array(name) if spec is not None and suits(spec) else None
