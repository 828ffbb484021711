"""Weights whose maps no input reaches: of learnt queries, of a cell that makes one step from a state of zeros."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Model, NotChecked, Role
from .graph import Node
from .trace import Recording

_MAPS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"})
_MOVES = frozenset({"Reshape", "Transpose", "Cast", "Slice"})


def unfed(recording: Recording) -> set[str]:
    """Parameters that only ever multiply something no input reaches, as a cell's recurrent weight an initial zero."""
    readers: dict[str, list[Node]] = {}
    for node in recording.nodes:
        for value in node.inputs:
            readers.setdefault(value, []).append(node)
    found = set()
    for value, name in recording.stored.items():
        pending, maps = [value], list[Node]()
        while pending:
            for node in readers.get(pending.pop(), ()):
                if node.op in _MOVES:
                    pending.extend(node.outputs)
                else:
                    maps.append(node)
        if maps and all(n.op in _MAPS and not recording.live.intersection(n.inputs) for n in maps):
            found.add(name)
    return found


def without_layer(model: Model, recording: Recording) -> Iterator[NotChecked]:
    """Of matrices of which no layer was made for that reason."""
    idle = unfed(recording)
    for tensor in model.tensors:
        if tensor.role is Role.OTHER and tensor.trainable and len(tensor.shape) > 1 and tensor.address in idle:
            reason = "all that it multiplies is the same whatever the inputs are, so that no layer is made of it"
            yield NotChecked(tensor.address, reason)
