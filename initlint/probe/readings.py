"""How the forward reads what no gradient comes back to: by a softmax over one value, as a number, or row by row."""

from __future__ import annotations

from collections.abc import Iterator

from ..load.graph import Node
from ..load.trace import Recording

_SOFTMAXES = frozenset({"Softmax", "LogSoftmax"})
_PRODUCTS = frozenset({"MatMul", "Einsum", "Gemm", "Conv", "ConvTranspose"})
_AS_NUMBER = "aten::_local_scalar_dense"
"""``Tensor.item()``, ``float(tensor)`` and the like."""


def in_softmaxes_of_one(recording: Recording) -> set[str]:
    """Names of what is stored and goes into a softmax over an axis of one value, which gives 1 whatever that is.

    Not where that is but the length of an input: of attention over one key, or of inputs that have such an axis.
    """
    makers = {output: node for node in recording.nodes for output in node.outputs}
    short = any(1 in recording.sizes.get(each, ()) for each in recording.inputs)
    found: set[str] = set()
    for node in recording.nodes:
        if node.op in _SOFTMAXES and node.inputs and node.outputs and node.inputs[0] in recording.live:
            shape, axis = recording.sizes.get(node.outputs[0], ()), node.integer("axis", -1)
            if not -len(shape) <= axis < len(shape) or shape[axis] != 1:
                continue
            behind = list(_upstream(node, makers))
            nearest = next((each for each in behind if each.op in _PRODUCTS), None)
            attends = nearest is not None and sum(each in recording.live for each in nearest.inputs) > 1
            if not short and not attends:
                read = {value for each in (node, *behind) for value in each.inputs}
                found |= {recording.stored[value] for value in read if value in recording.stored}
    return found


def read_as_numbers(recording: Recording) -> set[str]:
    """Names of what is stored and read, or what is made of it, as a plain number."""
    makers = {output: node for node in recording.nodes for output in node.outputs}
    found: set[str] = set()
    for node in recording.nodes:
        if node.op == _AS_NUMBER and recording.live.isdisjoint(node.inputs):
            read = {value for each in (node, *_upstream(node, makers)) for value in each.inputs}
            found |= {recording.stored[value] for value in read if value in recording.stored}
    return found


def _upstream(node: Node, makers: dict[str, Node]) -> Iterator[Node]:
    """All that ``node`` is made by, the nearest first."""
    pending, seen = list(node.inputs), set(node.inputs)
    while pending:
        maker = makers.get(pending.pop(0))
        if maker is not None:
            yield maker
            fresh = [value for value in maker.inputs if value not in seen]
            seen.update(fresh)
            pending += fresh


def looked_up(recording: Recording) -> set[str]:
    """Parameters that go into tables of which the data choose rows: others may read what this batch did not."""
    carried = {value: {name} for value, name in recording.stored.items()}
    found: set[str] = set()
    for node in recording.nodes:
        names = set().union(*(carried.get(value, ()) for value in node.inputs[:1]))
        if node.op in _LOOKING_UP and recording.live.intersection(node.inputs[1:]):
            found |= names
        elif recording.live.isdisjoint(node.inputs):
            names = names.union(*(carried.get(value, ()) for value in node.inputs[1:]))
            for value in node.outputs if names else ():
                carried[value] = names
    return found


_LOOKING_UP = frozenset({"Gather", "GatherElements", "GatherND"})
