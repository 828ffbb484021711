"""Weights that several layers share, changed where they are stored.

Exporters write a transpose or reshape of its own for every use of a shared weight. A layer knows the value that it
reads; what a fix or a step changes has to be what they all come from. So it is with a value inside the body of a loop,
which a probe cannot replace: what the main graph hands in is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from .constants import Constants
from .folding import Array
from .graph import LINK, Graph, Node
from .stored import Stored

Move = Callable[[Array], Array]


def anchored(stored_at: Mapping[str, Stored], graph: Graph, constants: Constants) -> dict[str, Stored]:
    """``stored_at`` with shared weights at the value that all their uses come from, as far as that can be undone."""
    return {address: _anchored(stored, graph, constants) for address, stored in stored_at.items()}


def _anchored(stored: Stored, graph: Graph, constants: Constants) -> Stored:
    moves: list[tuple[Move, Move]] = []
    found, value = stored, stored.value
    enclosed = is_enclosed(value, graph)
    while (node := graph.producer.get(value)) is not None:
        move = _move(node, constants)
        if move is None:
            break
        moves.append(move)
        value = node.input(0)
        if len(graph.readers(value)) > 1 or (enclosed and not is_enclosed(value, graph)):
            found, enclosed = _through(stored, value, moves[::-1]), is_enclosed(value, graph)
    return found


def is_enclosed(value: str, graph: Graph) -> bool:
    """Whether the value belongs to the body of an If, Loop or Scan."""
    node = graph.producer.get(value)
    return node is not None and node.inner


def _move(node: Node, constants: Constants) -> tuple[Move, Move] | None:
    """How the node's input becomes its output, and back; None where it does more than arrange the values."""
    before, after = constants.spec(node.input(0)), constants.spec(node.outputs[0])
    if before is None or after is None:
        return None
    if node.op == LINK and len(node.inputs) == 1 and before.shape == after.shape:
        return _as_it_is, _as_it_is
    if node.op == "Transpose":
        order = node.integers("perm") or tuple(range(before.ndim))[::-1]
        return partial(np.transpose, axes=order), partial(np.transpose, axes=np.argsort(order).tolist())
    if node.op in ("Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten") and before.size == after.size:
        return partial(_shaped, after.shape), partial(_shaped, before.shape)
    return None


def _as_it_is(array: Array) -> Array:
    return array


def _shaped(shape: tuple[int, ...], array: Array) -> Array:
    return array.reshape(shape)


def _through(stored: Stored, value: str, moves: list[tuple[Move, Move]]) -> Stored:
    def forth(array: Array) -> Array:
        for move, _ in moves:
            array = move(array)
        return array

    def back(array: Array) -> Array:
        for _, undo in reversed(moves):
            array = undo(array)
        return array

    return replace(
        stored,
        value=value,
        to_torch=lambda array: stored.to_torch(forth(array)),
        insert=lambda values, original: back(stored.insert(values, forth(original))),
    )
