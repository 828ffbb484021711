"""What a non-linearity reads of a layer's output: a soft cap 15 tanh(x / 15) reads a fifteenth of it."""

from __future__ import annotations

from ..activations import SAME, UNKNOWN, Affine
from .constants import Constants
from .elementwise import Regions
from .graph import LINK, Graph, Node
from .links import MOVES

_KEEPING = MOVES | {
    "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceMin", "MaxRoiPool", "Gather",
    "GatherElements", "GatherND", "Compress", "ReverseSequence", "Trilu", "SplitToSequence", "SequenceAt", "Concat",
    "SequenceConstruct", "SequenceInsert", "ConcatFromSequence", LINK, "Where", "ScatterND", "ScatterElements",
}  # fmt: skip
"""Operators that leave the scale of what they hand on as it is, or nearly so."""


class Readings:
    """Follows the constant factors and offsets from value to value."""

    def __init__(self, graph: Graph, constants: Constants, regions: Regions) -> None:
        self._graph, self._constants, self._regions = graph, constants, regions

    def behind(self, value: str, after: str, so_far: Affine) -> Affine:
        """What ``after``, the next value on a walk, holds if ``value`` holds ``so_far`` of the layer's output."""
        node = self._graph.producer.get(after)
        if node is None or after in self._regions.ending:
            return UNKNOWN
        if node.op in _KEEPING:
            return so_far
        if value not in node.inputs:
            return SAME  # a norm written in several operations: counted is from its output on
        return self._through(node, value, so_far)

    def _through(self, node: Node, value: str, so_far: Affine) -> Affine:
        others = [self._constants.scalar(each) for each in node.inputs if each and each != value]
        number = others[0] if len(others) == 1 else None
        first = node.input(0) == value
        if node.op == "Neg":
            return so_far.then(-1.0, 0.0)
        if number is None:
            return UNKNOWN
        if node.op == "Add":
            return so_far.then(1.0, number)
        if node.op == "Sub":
            return so_far.then(1.0, -number) if first else so_far.then(-1.0, number)
        if node.op == "Mul":
            return so_far.then(number, 0.0)
        return so_far.then(1.0 / number, 0.0) if node.op == "Div" and first and number != 0.0 else UNKNOWN
