"""Weights whose maps no input reaches: of learnt queries, of a cell that makes one step from a state of zeros."""

from __future__ import annotations

from collections.abc import Container, Iterator

from ..kinds import Role
from ..model import Model, NotChecked
from .graph import Node
from .trace import Recording

_MAPS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"})
_MOVES = frozenset({"Reshape", "Transpose", "Cast", "Expand", "Slice"})

_LEFT = "that only whether they are finite, differ and can learn was looked at"


def unfed(recording: Recording, slots: frozenset[int] = frozenset({0, 1, 2}), learnt: Container[str] = ()) -> set[str]:
    """Parameters that only ever multiply something no input reaches, and are at one of ``slots`` there.

    Nor may it hold one of the parameters ``learnt``: the factors of a product of two are there for each other.
    """
    moving = {value for value, name in recording.stored.items() if name in learnt}
    for node in recording.nodes if moving else ():
        if not moving.isdisjoint(node.inputs):
            moving.update(node.outputs)
    carried = {value: [value] for value in recording.stored}
    """Value -> what is stored and was only moved on the way to it."""
    idle: dict[str, bool] = {}
    for node in recording.nodes:
        for slot, value in enumerate(node.inputs):
            for start in carried.get(value, ()):
                if node.op in _MOVES:
                    for moved in node.outputs:
                        carried[moved] = [*carried.get(moved, ()), start]
                elif idle.get(start, True):
                    others = (each for each in node.inputs if each != value)
                    idle[start] = slot in slots and _is_unfed(node, recording) and moving.isdisjoint(others)
    return {name for value, name in recording.stored.items() if idle.get(value, False)}


def _is_unfed(node: Node, recording: Recording) -> bool:
    return node.op in _MAPS and not recording.live.intersection(node.inputs)


def without_layer(model: Model, recording: Recording, mixed: Container[str]) -> Iterator[NotChecked]:
    """Matrices of which no layer was made for that reason, what stands in the place of their data being none; and all
    parameters, where there is no layer at all, as in a cell that is written out element by element. What is ``mixed``
    into a layer's weight has one."""
    values = sum(tensor.size for tensor in model.tensors if tensor.trainable)
    if not model.layers and values:
        yield NotChecked("all parameters", f"none of these {values:,} values is the weight of a layer, so {_LEFT}")
    idle = unfed(recording, frozenset({1}))
    for tensor in model.tensors:
        free = tensor.role is Role.OTHER and tensor.trainable and tensor.address not in mixed
        if free and len(tensor.shape) > 1 and tensor.address in idle:
            reason = "all that it multiplies is the same whatever the inputs are, so that no layer is made of it"
            yield NotChecked(tensor.address, reason)
