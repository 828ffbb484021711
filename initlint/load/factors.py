"""Stored tensors that multiply the signal: ``g * x``, or behind a function that ends at zero: ``sigmoid(g) * x``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .constants import Constants
from .dataflow import Dataflow
from .graph import Graph

FUNCTIONS = {"Sigmoid": "sigmoid", "HardSigmoid": "hard-sigmoid", "Softplus": "softplus"}

_MOVES = frozenset(
    {"Identity", "Cast", "CastLike", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Expand"}
)

_WALK = 4000
"""Values between the product and the next layers; real ones are a few."""


@dataclass(frozen=True)
class FactorSite:
    """One product."""

    root: str
    """The stored value."""
    function: str
    readers: tuple[int, ...]
    """Positions of the operations that read the product, through anything without weights."""


def factor_sites(graph: Graph, constants: Constants, dataflow: Dataflow) -> Iterator[FactorSite]:
    """All of the graph, in execution order."""
    for node in graph.nodes:
        if node.op != "Mul" or not any(value in graph.live for value in node.inputs):
            continue
        for value in node.inputs:
            if value in graph.constants and (found := _squashed(graph, value)) is not None:
                root, function = found
                if not constants.is_fixed(root):
                    yield FactorSite(root, function, _readers(graph, dataflow, node.outputs))


def _squashed(graph: Graph, value: str) -> tuple[str, str] | None:
    """(stored value, function) where nothing but moves and at most one function stands in between."""
    function = ""
    while (node := graph.producer.get(value)) is not None:
        if node.op in FUNCTIONS and not function:
            function = FUNCTIONS[node.op]
        elif node.op not in _MOVES:
            return None
        value = node.input(0)
    return (value, function or "identity") if value in graph.initializers else None


def _readers(graph: Graph, dataflow: Dataflow, values: Sequence[str]) -> tuple[int, ...]:
    pending, seen, found = [value for value in values if value], set(values), set[int]()
    while pending and len(seen) < _WALK:
        for user, _ in graph.readers(pending.pop()):
            position = dataflow.position(user)
            if position is not None:
                found.add(position)
                continue
            fresh = [value for value in user.outputs if value and value not in seen]
            seen.update(fresh)
            pending += fresh
    return tuple(sorted(found))
