"""``ajar`` in a graph: non-linearities that are flat somewhere get a little slope, unless no batch reaches it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from onnx import NodeProto, helper

from .dataflow import reads
from .differentiation import Differentiation
from .reach import EXPONENTIAL, FEWEST, GELU, OUT_OF_REACH, RECTIFIER, SIGMOID, SLOPE, TANH, UNDERFLOW, USUAL, Edges

Bound = str | float
"""The name of a number, or a number."""


def _edges(low: float, high: float) -> Callable[[NodeProto], tuple[Bound, Bound]]:
    return lambda node: (low, high)


def _clip(node: NodeProto) -> tuple[Bound, Bound]:
    inputs = [*node.input[1:3], "", ""]
    found = _attributes(node)
    return inputs[0] or found.get("min", -math.inf), inputs[1] or found.get("max", math.inf)


def _hard_sigmoid(node: NodeProto) -> Edges:
    found = _attributes(node)
    slope, middle = found.get("alpha", 0.2), found.get("beta", 0.5)
    return (-middle / slope, (1.0 - middle) / slope) if slope > 0 else (-math.inf, math.inf)


def _threshold(node: NodeProto) -> Edges:
    return _attributes(node).get("alpha", 1.0), math.inf


def _attributes(node: NodeProto) -> dict[str, float]:
    found = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


FLAT: dict[str, Callable[[NodeProto], tuple[Bound, Bound]]] = {
    "Relu": _edges(*RECTIFIER),
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _edges(-3.0, math.inf),
    "Sigmoid": _edges(*SIGMOID),
    "Tanh": _edges(*TANH),
    "Softmax": _edges(-math.inf, UNDERFLOW),
    "Gelu": _edges(*GELU),
    "ThresholdedRelu": _threshold,
    **dict.fromkeys(("Softplus", "Selu", "Elu", "Celu", "Swish", "Mish"), _edges(*EXPONENTIAL)),
}
"""Operators that are flat, or nearly so, somewhere, and between which numbers they are not."""

_COMPARISONS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"})
_OF_MASKS = frozenset({"Not", "And", "Or", "Xor", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Expand", "Sub"})
"""What turns masks into masks."""


@dataclass
class Opener:
    """Opens the nodes of one graph; ``live`` are its values that change with its inputs, those given at first.

    The spread of what goes in only ``grows`` where some parameter learns.
    """

    to: Differentiation
    live: set[str]
    grows: bool = True
    masks: set[str] = field(default_factory=set)
    """What comparisons of live numbers made; ``selections`` has more of that."""

    def written(self, node: NodeProto) -> list[tuple[NodeProto, bool]]:
        """What stands for ``node``, and whether it is to be differentiated."""
        live = not self.live.isdisjoint(reads(node))
        if live:
            self.live.update(node.output)
        compares = live and node.op_type in _COMPARISONS and self.to.is_float(node.input[0])
        if compares or (node.op_type in _OF_MASKS and not self.masks.isdisjoint(node.input)):
            self.masks.update(node.output)
        operands = [each for each in self._operands(node) if each in self.to.of] if live else []
        return self._with_operands(node, operands) if operands else self._opened(node)

    def _opened(self, node: NodeProto) -> list[tuple[NodeProto, bool]]:
        if node.op_type not in FLAT or not self.to.is_float(node.input[0]):
            return [(node, True)]
        emit, value, output = self.to.emit, node.input[0], node.output[0]
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.output[0] = emit.name(output)
        share = self._open_share(node, copy.output[0])
        finite = self._finite(value)
        told = [(each, False) for each in emit.take()]
        kept = emit.where(finite, value, emit.floats(0.0))
        little = emit.op("Mul", emit.op("Mul", share, kept), emit.floats(SLOPE))
        emit.op("Add", copy.output[0], little, output=output)
        return [(copy, True), *told, *((each, True) for each in emit.take())]

    def _operands(self, node: NodeProto) -> list[str]:
        """What it chooses among by values that may change."""
        first, others = node.input[0] if node.input else "", node.input[1:]
        if node.op_type in ("Max", "Min", "Abs", "ReduceMax", "ReduceMin"):
            return [first, *others] if node.op_type in ("Max", "Min") else [first]
        if node.op_type == "Where" and first in self.masks:
            return list(others)
        if node.op_type == "Clip":
            return [each for each in others if each]
        if node.op_type == "Mul" and not self.masks.isdisjoint(node.input):
            return [each for each in node.input if each not in self.masks]
        return []

    def _with_operands(self, node: NodeProto, operands: Sequence[str]) -> list[tuple[NodeProto, bool]]:
        """All operands get a little slope where what was chosen varies, or, multiplied by a mask, what was not."""
        emit, output = self.to.emit, node.output[0]
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.output[0] = emit.name(output)
        share = emit.floats(1.0) if node.op_type == "Mul" else self._varies(copy.output[0], output)
        varies = [(each, False) for each in emit.take()]
        written = [*self._opened(copy), *varies]
        total = copy.output[0]
        for number, operand in enumerate(map(partial(self._reduced, node), operands), 1):
            finite = self._finite(operand)
            kept = emit.where(finite, operand, emit.floats(0.0))
            written += [(each, True) for each in emit.take()]
            stopped = emit.op("Identity", kept)
            written += [(each, False) for each in emit.take()]
            little = emit.op("Mul", emit.op("Mul", share, emit.op("Sub", kept, stopped)), emit.floats(SLOPE))
            total = emit.op("Add", total, little, output=output if number == len(operands) else "")
            written += [(each, True) for each in emit.take()]
        return written

    def _reduced(self, node: NodeProto, operand: str) -> str:
        """``operand`` in the shape of the output, where an extreme is taken over some axes."""
        if not node.op_type.startswith("Reduce"):
            return operand
        mean = helper.make_node("ReduceMean", [operand, *node.input[1:]], [self.to.emit.name("mean")])
        mean.attribute.extend(node.attribute)
        self.to.emit.nodes.append(mean)
        return str(mean.output[0])

    def _open_share(self, node: NodeProto, result: str) -> str:
        """1 where a little slope is wanted, 0 elsewhere."""
        emit, value = self.to.emit, node.input[0]
        share = self._varies(value)
        if node.op_type == "Softmax":  # elsewhere it has a slope, and what gets no gradient does so by symmetry
            ends = (emit.equal(result, emit.floats(end)) for end in (0.0, 1.0))
            share = emit.op("Mul", share, emit.to_float(emit.op("Or", *ends)))
        seen = self._gaps(node) if node.op_type == "Softmax" else value
        count = self._count(value) if value in self.live else math.inf
        if not seen or (count is not None and count < FEWEST):
            return share
        out = self._out_of_reach(seen, node)
        if count is None:
            enough = emit.op("Greater", emit.to_float(emit.op("Size", value)), emit.floats(FEWEST - 1))
            out = emit.op("And", out, enough)
        return emit.op("Mul", share, emit.to_float(emit.op("Not", out)))

    def _out_of_reach(self, seen: str, node: NodeProto) -> str:
        """Whether even the nearest value lies too far from where there is a slope; see ``reach``."""
        emit = self.to.emit
        low, high = (each if isinstance(each, str) else emit.floats(each) for each in FLAT[node.op_type](node))
        above = emit.op("Sub", emit.reduce_all("ReduceMin", seen), high)
        below = emit.op("Sub", low, emit.reduce_all("ReduceMax", seen))
        distance = emit.op("Max", above, below)
        off = emit.op("Sub", seen, emit.reduce_all("ReduceMean", seen))
        spread = emit.op("Sqrt", emit.reduce_all("ReduceMean", emit.op("Mul", off, off)))
        usual = emit.floats(USUAL)
        still = emit.equal(spread, emit.floats(0.0))
        wide = emit.op("Max", spread, usual) if self.grows else emit.where(still, usual, spread)
        limit = emit.op("Mul", wide, emit.floats(OUT_OF_REACH))
        return emit.op("Not", emit.op("Less", distance, limit))

    def _gaps(self, node: NodeProto) -> str:
        """How far the largest logit is above the next one; empty where it is not known whether there are two."""
        fact = self.to.known.get(node.input[0])
        default = -1 if self.to.opset >= 13 else 1
        axis = next((int(each.i) for each in node.attribute if each.name == "axis"), default)
        size = fact.shape[axis] if fact is not None and fact.shape and -len(fact.shape) <= axis < len(fact.shape) else 0
        if not size or size < 2 or self.to.opset < 11:
            return ""
        emit = self.to.emit
        top, places = emit.name("top"), emit.name("places")
        emit.nodes.append(helper.make_node("TopK", [node.input[0], emit.ints(2)], [top, places], axis=axis))
        first, second = (emit.op("Gather", top, emit.ints(number), axis=axis) for number in (0, 1))
        return emit.op("Sub", first, second)

    def _count(self, value: str) -> float | None:
        """How many entries it has, if the file tells its shape."""
        fact = self.to.known.get(value)
        return math.prod(fact.static) if fact is not None and fact.static is not None else None

    def _varies(self, value: str, known: str = "") -> str:
        """1 where an entry differs between samples; of a single sample, where it is not zero.

        Its shape is told of ``known``, where that is another value.
        """
        emit, fact = self.to.emit, self.to.known.get(known or value)
        if fact is None or not fact.shape or fact.shape[0] in (None, 1):
            return emit.to_float(emit.op("Not", emit.equal(value, emit.floats(0.0))))
        first = emit.op("Gather", value, emit.ints(0), axis=0)
        differs = emit.to_float(emit.op("Not", emit.equal(value, first)))
        return emit.reduce("ReduceMax", differs, (0,))

    def _finite(self, value: str) -> str:
        """What is masked is at minus infinity."""
        emit = self.to.emit
        return emit.op("Less", emit.op("Abs", value), emit.floats(float("inf")))
