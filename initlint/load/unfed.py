"""Weights whose maps no input reaches: of learnt queries, of a cell that makes one step from a state of zeros."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Model, NotChecked, Role
from .graph import Node
from .trace import Recording

_MAPS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"})
_MOVES = frozenset({"Reshape", "Transpose", "Cast", "Expand", "Slice"})


def unfed(recording: Recording, slots: frozenset[int] = frozenset({0, 1, 2})) -> set[str]:
    """Parameters that only ever multiply something no input reaches, and are at one of ``slots`` there."""
    readers: dict[str, list[tuple[Node, int]]] = {}
    for node in recording.nodes:
        for slot, value in enumerate(node.inputs):
            readers.setdefault(value, []).append((node, slot))
    found = set()
    for value, name in recording.stored.items():
        pending, maps = [value], list[tuple[Node, int]]()
        while pending:
            for node, slot in readers.get(pending.pop(), ()):
                if node.op in _MOVES:
                    pending.extend(node.outputs)
                else:
                    maps.append((node, slot))
        if maps and all(_is_unfed(node, recording) and slot in slots for node, slot in maps):
            found.add(name)
    return found


def _is_unfed(node: Node, recording: Recording) -> bool:
    return node.op in _MAPS and not recording.live.intersection(node.inputs)


def without_layer(model: Model, recording: Recording) -> Iterator[NotChecked]:
    """Of matrices of which no layer was made for that reason; what stands in the place of their data is none."""
    idle = unfed(recording, frozenset({1}))
    for tensor in model.tensors:
        if tensor.role is Role.OTHER and tensor.trainable and len(tensor.shape) > 1 and tensor.address in idle:
            reason = "all that it multiplies is the same whatever the inputs are, so that no layer is made of it"
            yield NotChecked(tensor.address, reason)
