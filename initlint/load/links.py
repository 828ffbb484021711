"""What stands between two layers, as one function of single values: non-linearities and constant factors, evaluated."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np

from .. import activations
from .constants import Constants
from .elementwise import Array, Region, Regions
from .graph import Graph, Node

MOVES = frozenset(
    {
        "Identity", "Cast", "CastLike", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Slice",
        "Split", "Pad", "Expand", "Tile", "MaxPool", "AveragePool", "Resize", "Upsample", "DepthToSpace",
        "SpaceToDepth", "QuantizeLinear", "DequantizeLinear",
    }
)  # fmt: skip
"""Operators that move values; pooling of a few neighbours changes their scale by less than a factor of 2."""

_FACTORS = frozenset({"Add", "Sub", "Mul", "Div", "Neg"})

_FREE = frozenset({"elementwise", "leaky-relu", "elu", "celu", "hard-sigmoid"})
"""Names that do not tell the function: nobody's, or with a number of their own."""

_SAME = 1e-3
"""Relative to the largest of three: float32 constants differ by 1e-6, the sharpest factor in use (1.02) by 2e-2."""

_LONGEST = 64


@dataclass(frozen=True, slots=True)
class Link:
    """``values`` on ``activations.GRID``, empty where a name says it all; see ``Layer.input_values``."""

    values: tuple[float, ...] = ()
    known: bool = True


NAMED = Link()
UNKNOWN = Link(known=False)


class Links:
    """Walks back from the input of a layer to the output of the layer before it, which is one of ``ends``."""

    def __init__(self, graph: Graph, constants: Constants, regions: Regions, ends: Container[str]) -> None:
        self._graph, self._constants, self._regions, self._ends = graph, constants, regions, ends
        self._nodes = {node.index: node for node in graph.nodes}

    def before(self, value: str) -> Link:
        """What was met on the way to ``value``."""
        steps: list[Node | Region] = []
        for _ in range(_LONGEST):
            region, node = self._regions.ending.get(value), self._graph.producer.get(value)
            if region is not None:
                steps.append(region)
                value = region.start
            elif value in self._ends or node is None:
                return self._link(value, steps[::-1])
            else:
                source = self._single(node)
                if not source:
                    return UNKNOWN
                if node.op in _FACTORS:
                    steps.append(node)
                value = source
        return UNKNOWN

    def _single(self, node: Node) -> str:
        """The only value that ``node`` moves, shifts or rescales; empty where it does anything else."""
        live = [value for value in dict.fromkeys(node.inputs) if value in self._graph.live]
        if len(live) != 1:
            return ""
        if node.op in MOVES:
            return live[0] if live[0] == node.input(0) else ""
        fixed = [value for value in node.inputs if value and value != live[0]]
        scalar = all(self._constants.scalar(value) is not None for value in fixed)
        return live[0] if node.op in _FACTORS and scalar and len(node.inputs) - len(fixed) == 1 else ""

    def _link(self, start: str, steps: list[Node | Region]) -> Link:
        if not steps or (len(steps) == 1 and isinstance(steps[0], Region) and steps[0].name not in _FREE):
            return NAMED
        grid = np.array(activations.GRID)
        values = self._evaluated(steps, grid)
        if values is None or not np.isfinite(values).all():
            return UNKNOWN
        names = [step.name for step in steps if isinstance(step, Region)]
        known = activations.get(names[0] if len(names) == 1 else "identity")
        near = np.abs(grid) <= 8.0
        reference = np.array([known(float(z)) for z in grid])
        if len(names) < 2 and np.abs(values - reference)[near].max() <= _SAME * max(1.0, np.abs(reference[near]).max()):
            return NAMED
        return Link(tuple(float(value) for value in values))

    def _evaluated(self, steps: list[Node | Region], grid: Array) -> Array | None:
        current: Array | None = grid
        for step in steps:
            nodes = [step] if isinstance(step, Node) else [self._nodes[i] for i in sorted(step.nodes)]
            live = [value for value in nodes[0].inputs if value in self._graph.live]
            values = {step.start if isinstance(step, Region) else live[0]: current}
            for node in nodes:
                current = values[node.outputs[0]] = self._regions.evaluate(node, values, grid.shape)
                if current is None:
                    return None
            if isinstance(step, Region):
                current = values[step.end]
        return current
