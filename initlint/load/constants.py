"""What is known before any input arrives: initializers, and what the graph computes from them alone.

Evaluation is lazy and bounded. Repeated values stay views (a ConstantOfShape of 10^8 elements takes a few bytes),
large results are not kept, and an operator that is not listed in ``folding.OPERATORS`` makes its result unknown, never
an error.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from copy import copy
from functools import cached_property
from math import prod
from pathlib import Path

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
    is_weight_dtype,
    numpy_type,
    placeholder,
)
from .graph import DRAWN, RESHAPES, Graph, Node, carried
from .naming import is_generated

_KEEP = 2**16
"""Computed arrays of at most so many elements are remembered."""


SOURCES = frozenset({"Constant", "ConstantOfShape"}) | DRAWN
"""Operators that make a tensor out of their attributes."""

_ARRANGING = VIEWS | SHAPE_KEEPING | {"CastLike", "Gather", "Concat", "Pad", "Tile"}
"""Operators that leave values as they are, of their first input at least."""


class Constants:
    """Lazy values of a graph's constants."""

    def __init__(self, graph: Graph, base_dir: Path | None) -> None:
        self._graph = graph
        self._files = MappedFiles(base_dir)
        self._memo: dict[str, Array | None] = {}
        self._specs: dict[str, Array | None] = {}
        self._roots: dict[str, tuple[str, ...]] = {}

    def with_values(self, values: Mapping[str, Array]) -> Constants:
        """The same with these stored values in the place of the file's."""
        other = copy(self)
        other._memo = dict(values)
        return other

    def known(self, name: str) -> bool:
        return name in self._graph.constants

    def readers(self, name: str) -> list[Node]:
        return [node for node, _ in self._graph.readers(name)]

    def is_fixed(self, name: str) -> bool:
        """Whether a stored value is known not to be trained; a file does not say."""
        return False

    def is_stray(self, name: str) -> bool:
        """Whether it is a stored tensor although its name is made up: of a module, one that is not registered."""
        return False

    def is_own(self, name: str) -> bool:
        """Whether the model's author has named it: no exporter made the name up, and no quantiser put it there."""
        return not is_generated(name) or (name.endswith("_scale") and not self._is_quantised)

    @cached_property
    def _is_quantised(self) -> bool:
        return any("Quantize" in node.op or "Integer" in node.op or "QLinear" in node.op for node in self._graph.nodes)

    def aliases(self, name: str) -> tuple[str, ...]:
        """Every name by which modules hold a stored value, where that is known."""
        return ()

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

    def is_drawn(self, name: str) -> bool:
        """Whether random numbers of the run, rather than stored ones, go into the constant."""
        return any(root in self._graph.producer and self._graph.producer[root].op in DRAWN for root in self.roots(name))

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

    # -- origin --------------------------------------------------------------------------------------------------

    def roots(self, name: str) -> tuple[str, ...]:
        """The stored floating-point tensors that a constant is computed from; a generated one is its own root."""
        if name not in self._roots:
            self._roots[name] = tuple(self._find_roots(name))
        return self._roots[name]

    def piece(self, name: str, size: int) -> Hashable:
        """What tells the constant from others of its only root: the root's name for all of it, in whatever order, else
        how it was cut out, so that two layers which read the same piece share it."""
        (root,) = self.roots(name)
        whole = self.spec(root)
        if name == root or whole is None or whole.size <= size:
            return root
        steps: list[Hashable] = []
        while (node := self._graph.producer.get(name)) is not None and name != root:
            if node.op not in _ARRANGING:
                return name
            others = [array for value in node.inputs[1:] if value and (array := self.array(value)) is not None]
            steps.append((node.op, node.outputs.index(name), repr(sorted(node.attributes.items(), key=lambda a: a[0]))))
            steps.extend(array.tobytes() for array in others)
            name = node.input(0)
        return (root, *steps)

    def place(self, name: str) -> str:
        """The constant as a block of its only root, as Python would write it: "[0:32]", "[:, 32:48]", "[2]" for one of
        a stack, "[2, :, 0:10]"; empty if it is none."""
        (root,) = self.roots(name)
        whole, piece = self.spec(root), self.spec(name)
        if whole is None or piece is None:
            return ""
        terms: list[str] = []
        dropped, count = whole.ndim - piece.ndim, whole.size
        for axis, size in enumerate(whole.shape):
            if count == piece.size:
                break
            column = np.arange(size, dtype=np.int32).reshape(-1, *[1] * (whole.ndim - axis - 1))
            places = self._moved(root, name, np.broadcast_to(column, whole.shape))
            if places is None or not places.size:
                return ""
            first, last = int(places.min()), int(places.max()) + 1
            count = count // size * (last - first)
            if last - first == 1 < size and dropped > 0:
                terms.append(str(first))
                dropped -= 1
            else:
                terms.append(f"{first}:{last}" if last - first < size else ":")
        return f"[{', '.join(terms)}]" if terms and count == piece.size else ""

    def _moved(self, root: str, name: str, array: Array) -> Array | None:
        """What the nodes between ``root`` and ``name`` make of ``array`` in the place of the root's values."""
        values: dict[str, Array | None] = {root: array}
        for each in self._upstream(name):
            node = self._graph.producer.get(each)
            if node is not None and node.input(0) in values and node.op in _ARRANGING - {"CastLike"}:
                first = values[node.input(0)]
                self._apply(node, [first, *(self.array(value) for value in node.inputs[1:])], values)
        return values.get(name)

    def arranged(self, name: str, entries: Mapping[str, Array]) -> Array | None:
        """What becomes of ``entries``, given in the place of the roots' values, if these are only moved and joined."""
        values: dict[str, Array | None] = dict(entries)
        for each in self._upstream(name):
            node = self._graph.producer.get(each)
            carrying = [] if node is None else [value for value in carried(node) if value in values]
            if node is None or each in values or not carrying:
                continue
            first, spec = values[carrying[0]], self.spec(each)
            if first is None or spec is None or len(carrying) > (1 if node.op != "Concat" else len(node.inputs)):
                return None
            if node.op in RESHAPES or node.op == "Flatten":
                values[each] = first.reshape(spec.shape)
            elif node.op in SHAPE_KEEPING:
                values[each] = first
            elif node.op == "Transpose":
                axes = node.integers("perm") or tuple(reversed(range(first.ndim)))
                values[each] = first.transpose(axes)
            elif node.op == "Concat" and len(carrying) == len(node.inputs):
                join = np.stack if spec.ndim > first.ndim else np.concatenate  # an eager run's stack is one node
                pieces = [moved for value in node.inputs if (moved := values[value]) is not None]
                values[each] = join(pieces, axis=node.integer("axis", 0))
            else:
                return None
            if (moved := values[each]) is None or moved.shape != spec.shape:
                return None
        return values.get(name)

    def is_computed(self, name: str) -> bool:
        """Whether arithmetic, not just another arrangement or another type, makes it of what is stored."""
        node = self._graph.producer.get(name)
        while node is not None and node.op in _ARRANGING:
            node = self._graph.producer.get(node.input(0))
        return node is not None and node.op not in SOURCES

    def repeats(self, name: str) -> bool:
        """Whether rows of what is stored are looked up more than once for it."""
        while (node := self._graph.producer.get(name)) is not None and node.op not in SOURCES:
            if node.op in ("Gather", "GatherND"):
                places = self.array(node.input(1))
                if places is not None and places.size > 1 and _holds_equal_rows(node, places):
                    return True
            name = node.input(0)
        return False

    def is_arranged(self, name: str) -> bool:
        """Whether it is another arrangement, or another type, of one other value."""
        node = self._graph.producer.get(name)
        return node is not None and node.op in _ARRANGING - {"Concat", "Pad"}

    @staticmethod
    def _fills_floats(node: Node | None) -> bool:
        """A ConstantOfShape whose shape is unknown or too large still says what it is filled with."""
        if node is None or node.op != "ConstantOfShape":
            return False
        fill = node.attribute("value")
        return not isinstance(fill, TensorProto) or is_weight_dtype(numpy_type(fill.data_type))

    def _find_roots(self, name: str) -> list[str]:
        found: list[str] = []
        pending, seen = [name], {name}
        while pending:
            current = pending.pop()
            node = self._graph.producer.get(current)
            if node is None or node.op in SOURCES:
                spec = self.spec(current)
                if is_weight_dtype(spec.dtype) if spec is not None else self._fills_floats(node):
                    found.append(current)
                continue
            if node.op in ("Shape", "Size"):
                continue
            if node.op == "DequantizeLinear" and node.input(0) not in self._graph.producer:
                found.append(node.input(0))  # whatever its type: biases are stored as int32
                seen.add(node.input(0))
            for value in reversed(carried(node)):
                if value and value not in seen:
                    seen.add(value)
                    pending.append(value)
        return found


def _holds_equal_rows(node: Node, places: Array) -> bool:
    """Of an eager run GatherND has one tensor of indices for each axis, and the first is looked at."""
    depth = places.shape[-1] if node.op == "GatherND" and len(node.inputs) == 2 and places.ndim > 1 else 1
    rows = places.reshape(-1, depth)
    return len(np.unique(rows, axis=0)) < len(rows)
