"""Pixel shuffles: where the units of a layer become positions, so that equal units are deliberate (ICNR)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ..kinds import Kind
from .constants import Constants
from .elementwise import Regions
from .graph import Graph, Node
from .norm_sites import NormSite
from .stored import Operation

_PASSED = frozenset({"Reshape", "Transpose", "Identity", "Cast", "Dropout", "Add", "Sub", "Sum", "Mean", "Mul", "Div"})
"""Operators in front of a shuffle that treat equal units alike; non-linearities and norms are looked for apart."""

_LONGEST = 12
"""Steps: a norm, an activation, a factor and a shift on top of the three of the longest spelling of a shuffle."""


class Shuffles:
    """Answers for the operations of one graph."""

    def __init__(
        self,
        graph: Graph,
        constants: Constants,
        regions: Regions,
        norms: Mapping[str, list[NormSite]],
        slopes: frozenset[int],
    ) -> None:
        """``norms`` by the value they read, ``slopes`` are the nodes that hold the slope of a PRelu."""
        self._graph, self._constants, self._regions = graph, constants, regions
        self._norms, self._slopes = norms, slopes

    def of(self, op: Operation) -> bool:
        """Units become positions: DepthToSpace, or Reshape to more axes, Transpose, Reshape back."""
        value, trail = op.output, list[Node]()
        for _ in range(_LONGEST):
            users = {user.index: user for user, _ in self._graph.readers(value)}
            if (behind := self._behind_function(value, set(users))) is not None:
                value = behind
                continue
            if len(users) != 1:
                return False
            (user,) = users.values()
            trail.append(user)
            if user.op == "DepthToSpace":
                return True
            if [node.op for node in trail[-3:]] == ["Reshape", "Transpose", "Reshape"]:
                return not self._splits_heads(*trail[-3:]) and not self._keeps_units(op, trail[-3], trail[-1])
            if user.op not in _PASSED and user.index not in self._slopes:
                return False
            value = user.outputs[0]
        return False

    def _behind_function(self, value: str, users: set[int]) -> str | None:
        """What one non-linearity or norm makes of ``value``, if nobody else reads that."""
        if value in self._graph.outputs:
            return None
        for region in self._regions.starting.get(value, []):
            if users <= region.nodes:
                return region.end
        for site in self._norms.get(value, []):
            if users <= set(site.absorbed) and not site.is_sum:
                return site.value
        return None

    def _keeps_units(self, op: Operation, split: Node, merged: Node) -> bool:
        """They are not cut, as where only places are moved, or are as many behind it, as behind a channel shuffle."""
        for _ in range(_LONGEST):  # PyTorch copies first what it cannot view
            users = [user for user, _ in self._graph.readers(merged.outputs[0])]
            if len(users) != 1 or users[0].op != "Reshape":
                break
            merged = users[0]
        units, axis = op.weight.view.groups * op.weight.view.units, op.unit_axis
        shapes = [self._graph.sizes.get(node.outputs[0]) or self._target(node) for node in (split, merged)]
        return any(-len(shape) <= axis < len(shape) and shape[axis] == units for shape in shapes)

    def _splits_heads(self, split: Node, moved: Node, merged: Node) -> bool:
        """The units became samples, not positions: heads of an attention, windows that are attended to apart."""
        before, after = self._target(split), self._target(merged)
        if before and after and min(before) > 0 and after[0] != 0:
            known = prod(size for size in after if size > 0)
            return (prod(before) // known if after[0] < 0 else after[0]) != before[0]
        return moved.integers("perm") in ((0, 2, 1, 3), (0, 2, 3, 1))  # (batch, places, heads, width)

    def _target(self, reshape: Node) -> tuple[int, ...]:
        """The shape that it gives; empty where that is not known beforehand."""
        return reshape.integers("shape") or self._constants.ints(reshape.input(1)) or ()


def slopes_of(operations: list[Operation]) -> frozenset[int]:
    """Nodes that are a PRelu with a learnt slope."""
    return frozenset(op.node.index for op in operations if op.kind is Kind.PRELU)
