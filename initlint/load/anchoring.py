"""Weights that several layers share, changed where they are stored.

Exporters write a transpose or reshape of its own for every use of a shared weight. A layer knows the value that it
reads; what a fix or a step changes has to be what they all come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from .constants import Constants
from .folding import Array
from .graph import Graph, Node
from .stored import Stored

Move = Callable[[Array], Array]


def anchored(stored_at: Mapping[str, Stored], graph: Graph, constants: Constants) -> dict[str, Stored]:
    """``stored_at`` with shared weights at the value that all their uses come from, as far as that can be undone."""
    return {address: _anchored(stored, graph, constants) for address, stored in stored_at.items()}


def _anchored(stored: Stored, graph: Graph, constants: Constants) -> Stored:
    moves: list[tuple[Move, Move]] = []
    found, value = stored, stored.value
    while (node := graph.producer.get(value)) is not None:
        move = _move(node, constants)
        if move is None:
            break
        moves.append(move)
        value = node.input(0)
        if len(graph.readers(value)) > 1:
            found = _through(stored, value, moves[::-1])
    return found


def _move(node: Node, constants: Constants) -> tuple[Move, Move] | None:
    """How the node's input becomes its output, and back; None where it does more than arrange the values."""
    before, after = constants.spec(node.input(0)), constants.spec(node.outputs[0])
    if before is None or after is None:
        return None
    if node.op == "Transpose":
        order = node.integers("perm") or tuple(range(before.ndim))[::-1]
        return partial(np.transpose, axes=order), partial(np.transpose, axes=np.argsort(order).tolist())
    if node.op in ("Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten") and before.size == after.size:
        return partial(_shaped, after.shape), partial(_shaped, before.shape)
    return None


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
