"""Inputs where the signal enters a graph; masks and positions only change what is already there."""

from __future__ import annotations

from .constants import Constants
from .elementwise import Regions
from .graph import LINK, Graph, Node
from .sizes import SizeReader

_SUMS = frozenset({"Add", "Sub", "Sum"})
_JOINS = _SUMS | frozenset(
    {
        "Mean", "Mul", "Div", "MatMul", "Einsum", "Gemm", "Pow", "com.microsoft::FusedMatMul",
        "com.microsoft::SkipLayerNormalization", "com.microsoft::SkipSimplifiedLayerNormalization",
    }
)  # fmt: skip
"""Operators that combine data with data."""
_MOVES = frozenset(
    {
        "Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Slice", "Split", "Neg",
        "Expand", "Pad", "Gather", "Concat", LINK,
    }
)  # fmt: skip
"""Operators behind which an input is still itself. Casts, clips and logarithms make penalties of masks."""

_SQUEEZED = frozenset({"sigmoid", "tanh", "relu", "softplus"})
"""What an output may pass behind the sum. The squares and absolute values of a loss compare instead of adding."""

_MAX_WALK = 4000
"""Values that one walk visits."""


class Entries:
    """Finds them in one graph; ``layers`` are the nodes of weighted operations."""

    def __init__(self, graph: Graph, constants: Constants, regions: Regions, layers: frozenset[int]) -> None:
        self._graph, self._constants, self._regions, self._layers = graph, constants, regions, layers
        self._read_sizes: SizeReader | None = None

    def found(self) -> list[str]:
        """Inputs that a layer reads as data, and those that pass it by: their sum with what it gives is an output."""
        names = [value.name for value in self._graph.inputs]
        main = [name for name in names if self._reaches_layer(name)]
        return main + [name for name in names if name not in main and main and self._reaches_output(name)]

    def _reaches_layer(self, start: str) -> bool:
        pending, seen = [start], {start}
        while pending and len(seen) < _MAX_WALK:
            value = pending.pop()
            for user, slot in self._graph.readers(value):
                if user.index in self._layers:
                    return True
                if user.op in _JOINS and self._is_combined(user):
                    continue
                if user.op == "Where" and slot == 0:
                    continue
                for out in user.outputs:
                    if out and out not in seen and out in self._graph.fed:
                        seen.add(out)
                        pending.append(out)
        return False

    def _reaches_output(self, start: str) -> bool:
        """Around all layers, by sums with as many values as it has itself; what it is multiplied with rests at one."""
        pending, seen = [(start, False)], {(start, False)}
        while pending and len(seen) < _MAX_WALK:
            value, joined = pending.pop()
            if joined and value in self._graph.outputs:
                return True
            steps: list[tuple[str, bool]] = [(out, True) for out in self._behind_functions(value) if joined]
            for user, slot in self._graph.readers(value):
                if user.index not in self._layers:
                    steps += [(out, after) for after in self._step(user, slot, value, joined) for out in user.outputs]
            fresh = [step for step in steps if step[0] and step not in seen]
            seen.update(fresh)
            pending += fresh
        return False

    def _behind_functions(self, value: str) -> list[str]:
        """Refined logits and coordinates are brought into their range last."""
        return [region.end for region in self._regions.starting.get(value, []) if region.name in _SQUEEZED]

    def _step(self, user: Node, slot: int, value: str, joined: bool) -> list[bool]:
        """Whether it has met data behind ``user``; nothing where it does not get there as itself."""
        if user.op in _MOVES:
            return [joined] if slot == 0 or user.op in ("Concat", LINK) else []
        others = [each for each in user.inputs if each in self._graph.fed and each != value]
        if not others:
            return [joined] if user.op in _SUMS or (user.op in ("Mul", "Div") and slot == 0) else []
        if not self._is_full(value, user):
            return []
        if user.op in _SUMS:
            return [True]
        return [True] if user.op == "Mul" and all(map(self._rests_at_one, others)) else []

    def _rests_at_one(self, value: str) -> bool:
        """1 + s and exp(s) leave alone what they multiply where s is silent."""
        node = self._graph.producer.get(value)
        if node is None or node.op == "Exp":
            return node is not None
        return node.op == "Add" and any(self._constants.scalar(each) == 1.0 for each in node.inputs)

    def _is_full(self, value: str, join: Node) -> bool:
        """It is not repeated over samples or places to fit, as masks, positions and times are."""
        own, whole = self._sizes.of(value), self._sizes.of(join.outputs[0])
        if own is None or whole is None:
            return True
        return len(own) == len(whole) and all(one != 1 or of == 1 for one, of in zip(own, whole, strict=True))

    @property
    def _sizes(self) -> SizeReader:
        if self._read_sizes is None:
            self._read_sizes = SizeReader(self._graph, self._constants)
            for node in self._graph.nodes:
                self._read_sizes.see(node)
        return self._read_sizes

    def _is_combined(self, node: Node) -> bool:
        """Two or more operands carry data; x * x counts as one."""
        return len({value for value in node.inputs if value in self._graph.fed}) > 1
