"""Recurrences of an ONNX graph, one operation per direction, with PyTorch's names for their tensors."""

from __future__ import annotations

from collections.abc import Iterator

from ..kinds import Kind, Role
from ..model import View
from .graph import Node
from .reader import WeightReader
from .stored import GateOrder, Operation, Stored

_GATES: dict[str, tuple[Kind, tuple[str, ...], tuple[int, ...]]] = {
    "LSTM": (Kind.LSTM, ("i", "f", "g", "o"), (0, 2, 3, 1)),
    "GRU": (Kind.GRU, ("r", "z", "n"), (1, 0, 2)),
    "RNN": (Kind.RNN, (), (0,)),
}
"""PyTorch packs i,f,g,o and r,z,n; ONNX i,o,f,c and z,r,h."""

RECURRENCE = "initlint::Recurrence"
"""Pseudo operator of a recorded run: one layer and direction of torch.lstm, gru or rnn."""


def recurrences(reader: WeightReader, node: Node) -> Iterator[Operation]:
    """LSTM, GRU or RNN: weights (directions, gates * hidden, in), (..., hidden), biases (..., 2 * gates * hidden)."""
    kind, parts, order = _GATES[node.op]
    weight, recurrent = reader.weight(node.input(1)), reader.weight(node.input(2))
    if weight is None or recurrent is None or weight.ndim != 3 or recurrent.ndim != 3:
        return
    bias = reader.weight(node.input(3)) if node.input(3) else None
    hidden, fan_in = recurrent.shape[-1], weight.shape[-1]
    rows = (len(parts) or 1) * hidden
    if weight.shape[1] != rows or recurrent.shape[1] != rows:
        return
    outputs = tuple(value for value in node.outputs if value)
    for direction in range(weight.shape[0]):
        reverse = direction == 1 or node.text("direction", "forward") == "reverse"
        packing = _Packing(GateOrder(direction, order, hidden), parts, "_reverse" if reverse else "")
        has_bias = bias is not None and bias.shape[-1] == 2 * rows
        yield Operation(
            kind,
            node,
            (node.input(0),),
            outputs[0],
            -1,
            packing.weight(node.input(1), Role.WEIGHT, rows, fan_in, "weight_ih"),
            packing.bias(node.input(3), 0, rows) if has_bias else None,
            packing.weight(node.input(2), Role.RECURRENT_WEIGHT, rows, hidden, "weight_hh"),
            packing.bias(node.input(3), 1, rows) if has_bias else None,
            fan_in=fan_in,
            fan_out=hidden,
            segment="reverse" if reverse else "forward",
            outputs=outputs,
        )


def eager_recurrence(reader: WeightReader, node: Node) -> Iterator[Operation]:
    """One layer and direction of a recorded torch.lstm, gru or rnn: inputs x, w_ih, w_hh, b_ih, b_hh."""
    kind, parts = _EAGER[str(node.attribute("kind"))]
    weight, recurrent = reader.weight(node.input(1)), reader.weight(node.input(2))
    if weight is None or recurrent is None:
        return
    (rows, fan_in), hidden = weight.shape, recurrent.shape[-1]
    reverse = bool(node.attribute("reverse"))
    names = [f"{name}_l{node.attribute('layer')}{'_reverse' if reverse else ''}" for name in ("weight_ih", "weight_hh")]
    views = [View(1, rows, fan_in), View(1, rows, hidden)]
    roles = (Role.WEIGHT, Role.RECURRENT_WEIGHT)
    matrices = [
        Stored(node.input(1 + i), roles[i], (rows, views[i].fan_in), views[i], parts=parts, suffix=names[i])
        for i in range(2)
    ]
    biases = [
        Stored(
            node.input(3 + i), role, (rows,), View(1, rows, 1), parts=parts, suffix=names[i].replace("weight", "bias")
        )
        if node.input(3 + i)
        else None
        for i, role in enumerate((Role.BIAS, Role.RECURRENT_BIAS))
    ]
    yield Operation(
        kind,
        node,
        (node.input(0),),
        node.outputs[0],
        -1,
        matrices[0],
        biases[0],
        matrices[1],
        biases[1],
        fan_in=fan_in,
        fan_out=hidden,
        segment="reverse" if reverse else "forward",
        outputs=node.outputs,
    )


_EAGER = {kind.value: (kind, parts) for kind, parts, _ in _GATES.values()}


class _Packing:
    """Cuts one direction's tensors out of the stored ones."""

    def __init__(self, order: GateOrder, parts: tuple[str, ...], tail: str) -> None:
        self._order, self._parts, self._tail = order, parts, tail

    def weight(self, value: str, role: Role, rows: int, width: int, name: str) -> Stored:
        return Stored(
            value,
            role,
            (rows, width),
            View(1, rows, width),
            self._order.to_torch,
            self._order.insert,
            self._parts,
            f"{name}_l{{}}{self._tail}",
        )

    def bias(self, value: str, half: int, rows: int) -> Stored:
        return Stored(
            value,
            (Role.BIAS, Role.RECURRENT_BIAS)[half],
            (rows,),
            View(1, rows, 1),
            self._order.half_to_torch(half),
            self._order.half_insert(half),
            self._parts,
            f"{('bias_ih', 'bias_hh')[half]}_l{{}}{self._tail}",
        )
