"""Derivatives of ONNX operators, forward mode: what a small change of an operator's inputs does to its outputs.

Tangents are written into the graph beside the values. They keep a magnitude of their own, so that nothing is lost to
rounding where a difference of two whole runs would be: a tangent is exactly zero if, and only if, the derivative in
its direction is (Griewank & Walther 2008, chapter 3). Slopes at kinks are PyTorch's: that of ReLU at 0 is 0.

Operators without a rule are differenced on the spot, with a step that fits the sizes of their own inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import GraphProto, NodeProto, TensorProto, helper

from .dataflow import reads, subgraphs
from .emit import Emitter
from .payload import FLOATS
from .shapes import Known

STEP = 2.0**-9
"""Of an input's largest value, where an operator is differenced: rounding, 2^-24, and curvature then cost 1e-3 each."""

_CONSTANT = frozenset(
    {"Shape", "Size", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor", "ArgMax"}
    | {"ArgMin", "NonZero", "IsNaN", "IsInf", "Sign", "Floor", "Ceil", "Round", "OneHot", "Range", "ConstantOfShape"}
    | {"EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "QuantizeLinear", "Unique"}
)
"""Piecewise constant: no change of the inputs, if small enough, changes the outputs."""


@dataclass
class Differentiation:
    """Writes tangents behind the nodes of one graph, in execution order."""

    emit: Emitter
    opset: int
    known: Mapping[str, Known]
    rules: Mapping[str, Rule]
    """By operator of the standard domain (``tangent_rules.RULES``)."""
    of: dict[str, str] = field(default_factory=dict)
    """By value: its tangent. A value that is missing does not change."""

    def through(self, node: NodeProto) -> None:
        """Write the tangents of the node's outputs, where its inputs have some."""
        if node.op_type in _CONSTANT or not any(name in self.of for name in reads(node)):
            return
        rule = self.rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        tangents = rule(self, node) if rule is not None else None
        if tangents is None:
            tangents = _differenced(self, node)
        self.of.update(
            (output, tangent)
            for output, tangent in zip(node.output, tangents, strict=False)
            if output and tangent and self.is_float(output)
        )

    def is_float(self, value: str) -> bool:
        fact = self.known.get(value)
        return fact is None or fact.elem_type in FLOATS or fact.elem_type == TensorProto.UNDEFINED

    def zeros(self, value: str) -> str:
        return self.emit.zeros_like(value)

    def tangent(self, value: str) -> str:
        """The tangent of ``value``, written out as zeros where it does not change."""
        return self.of.get(value) or self.zeros(value)

    def again(self, node: NodeProto, inputs: Sequence[str], without: str = "") -> list[str]:
        """``node`` once more, on other inputs, without the attribute of that name."""
        copy = NodeProto(op_type=node.op_type, domain=node.domain, name=self.emit.name(node.op_type))
        copy.input.extend(inputs)
        copy.output.extend(self.emit.name(output) if output else "" for output in node.output)
        copy.attribute.extend(attribute for attribute in node.attribute if attribute.name != without)
        self.emit.nodes.append(copy)
        return list(copy.output)

    def spread(self, tangent: str, source: str, output: str) -> str:
        """A tangent in the shape of ``output``, of which the operand ``source`` may have fewer entries."""
        one, other = self.known.get(source), self.known.get(output)
        if one is not None and other is not None and one.static is not None and one.static == other.static:
            return tangent
        return self.emit.expand_like(tangent, output)

    def total(self, terms: Sequence[str]) -> str:
        total = terms[0]
        for term in terms[1:]:
            total = self.emit.op("Add", total, term)
        return total

    def reduce_sum(self, value: str, axis: int) -> str:
        if self.opset >= 13:
            return self.emit.op("ReduceSum", value, self.emit.ints(axis), keepdims=1)
        return self.emit.op("ReduceSum", value, axes=[axis], keepdims=1)

    def where(self, condition: str, tangent: str) -> str:
        return self.emit.where(condition, tangent, self.emit.floats(0.0))

    def scaled(self, tangent: str, factor: float) -> str:
        return tangent if factor == 1.0 else self.emit.op("Mul", tangent, self.emit.floats(factor))


Rule = Callable[["Differentiation", NodeProto], list[str] | None]
"""The tangents of a node's outputs; None where it has to be differenced after all."""


def _differenced(to: Differentiation, node: NodeProto) -> list[str]:
    """(f(x + e dx) - f(x)) / e, with e such that no input moves by more than STEP of its largest value."""
    emit = to.emit
    changing = [name for name in dict.fromkeys(reads(node)) if name in to.of]
    speeds = []
    for name in changing:
        size, speed = (emit.reduce_all("ReduceMax", emit.op("Abs", each)) for each in (name, to.of[name]))
        still = emit.equal(size, emit.floats(0.0))
        speeds.append(emit.op("Div", speed, emit.where(still, emit.floats(1.0), size)))
    fastest = speeds[0] if len(speeds) == 1 else emit.op("Max", *speeds)
    stands = emit.equal(fastest, emit.floats(0.0))
    step = emit.op("Div", emit.floats(STEP), emit.where(stands, emit.floats(1.0), fastest))
    moved = {name: emit.op("Add", name, emit.op("Mul", to.of[name], step)) for name in changing}
    copy = _renamed(node, moved)
    del copy.output[:]
    copy.output.extend(emit.name(output) if output else "" for output in node.output)
    copy.name = emit.name(node.op_type)
    emit.nodes.append(copy)
    return [
        emit.op("Div", emit.op("Sub", after, before), step) if before and to.is_float(before) else ""
        for before, after in zip(node.output, copy.output, strict=True)
    ]


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """``node`` reading other values, inside its subgraphs too."""
    copy = NodeProto()
    copy.CopyFrom(node)
    for position, name in enumerate(copy.input):
        copy.input[position] = names.get(name, name)
    for body in subgraphs(copy):
        _rename_in(body, names)
    return copy


def _rename_in(body: GraphProto, names: Mapping[str, str]) -> None:
    own = {value.name for value in body.input} | {output for node in body.node for output in node.output}
    visible = {name: new for name, new in names.items() if name not in own}
    nodes = [_renamed(node, visible) for node in body.node]
    for output in body.output:
        if output.name in visible:
            nodes.append(helper.make_node("Identity", [visible[output.name]], [f"{visible[output.name]} out"]))
            output.name = f"{visible[output.name]} out"
    del body.node[:]
    body.node.extend(nodes)
