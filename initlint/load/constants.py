"""Where the constants of a graph come from: which stored tensors are behind one, whole, in part or computed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from onnx import TensorProto

from .evaluated import Evaluated
from .folding import (
    SHAPE_KEEPING,
    VIEWS,
    Array,
    is_weight_dtype,
    numpy_type,
)
from .graph import DRAWN, RESHAPES, Graph, Node, carried
from .naming import is_generated

SOURCES = frozenset({"Constant", "ConstantOfShape"}) | DRAWN
"""Operators that make a tensor out of their attributes."""

_ARRANGING = VIEWS | SHAPE_KEEPING | {"CastLike", "Gather", "Concat", "Pad", "Tile"}
"""Operators that leave values as they are, of their first input at least."""


class Constants(Evaluated):
    """A graph's constants: their values, and their origins."""

    def __init__(self, graph: Graph, base_dir: Path | None) -> None:
        super().__init__(graph, base_dir)
        self._roots: dict[str, tuple[str, ...]] = {}

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

    def is_drawn(self, name: str) -> bool:
        """Whether random numbers of the run, rather than stored ones, go into the constant."""
        return any(root in self._graph.producer and self._graph.producer[root].op in DRAWN for root in self.roots(name))

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
