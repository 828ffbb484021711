"""Tangents through If, Loop and Scan: bodies that carry them beside the values, round by round.

A difference across a whole body would step over the kinks in it: a weight of zeros in front of a ReLU would seem to
have a gradient. So a body is written once more with the tangents of its values behind them; the states of a loop, and
what it reads and writes slice by slice, are joined by their tangents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from .differentiation import Differentiation, Rule

_SCANS_WITHOUT_BATCH = 9
"""The opset from which on Scan has no batch axis of its own."""


def _branched(to: Differentiation, node: NodeProto) -> list[str] | None:
    slots = [slot for slot, output in enumerate(node.output) if to.is_float(output)]
    bodies = {}
    for attribute in node.attribute:
        nodes, tangents = _written(to, attribute.g, {}, [attribute.g.output[slot] for slot in slots])
        bodies[attribute.name] = _body(nodes, (), tangents, attribute.g)
    found = _placed(to, len(node.output), slots)
    _add(to, "If", node.input, [name for name in found if name], **bodies)
    return found


def _looped(to: Differentiation, node: NodeProto) -> list[str] | None:
    """Behind the count and the condition come the states, then their tangents; then what is collected of these."""
    body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
    count = len(body.input) - 2
    values, results, scans = body.input[2:], body.output[1 : 1 + count], body.output[1 + count :]
    states = _moving(to, values, node.input[2:])
    collected = _moving(to, scans, node.output[count:])
    seeds = {values[slot].name: to.emit.name("state") for slot in states}
    ends = [results[slot] for slot in states] + [scans[slot] for slot in collected]
    nodes, tangents = _written(to, body, seeds, ends)
    inputs = [*body.input, *_renamed([values[slot] for slot in states], seeds)]
    outputs = [*body.output[: 1 + count], *tangents]
    starts = [to.tangent(node.input[2 + slot]) for slot in states]
    finals = [to.emit.name("state") for _ in range(count)]
    found = _placed(to, len(node.output), [*states, *(count + slot for slot in collected)])
    made = [name for name in found if name]
    _add(to, "Loop", [*node.input, *starts], [*finals, *made], body=_body(nodes, inputs, outputs, body))
    return found


def _scanned(to: Differentiation, node: NodeProto) -> list[str] | None:
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if to.opset < _SCANS_WITHOUT_BATCH:
        return None
    body, slices = given["body"], given["num_scan_inputs"]
    count = len(body.input) - slices
    states = _moving(to, body.input[:count], node.input[:count])
    read = _moving(to, body.input[count:], node.input[count:])
    written = _moving(to, body.output[count:], node.output[count:])
    sources = [*states, *(count + slot for slot in read)]
    moved = [body.input[slot] for slot in sources]
    seeds = {value.name: to.emit.name("slice") for value in moved}
    ends = [body.output[slot] for slot in (*states, *(count + slot for slot in written))]
    nodes, tangents = _written(to, body, seeds, ends)
    inputs = _interleaved(body.input, _renamed(moved, seeds), count, len(states))
    fed = _interleaved(node.input, [to.tangent(node.input[slot]) for slot in sources], count, len(states))
    found = _placed(to, len(node.output), [*states, *(count + slot for slot in written)])
    orders: dict[str, Any] = {"num_scan_inputs": slices + len(read)}
    for name in ("scan_input_axes", "scan_input_directions"):
        if name in given:
            orders[name] = [*given[name], *(given[name][slot] for slot in read)]
    for name in ("scan_output_axes", "scan_output_directions"):
        if name in given and written:
            orders[name] = [given[name][slot] for slot in written]
    outputs = [*body.output[:count], *tangents]
    finals = [to.emit.name("state") for _ in range(count)]
    made = [name for name in found if name]
    _add(to, "Scan", fed, [*finals, *made], body=_body(nodes, inputs, outputs, body), **orders)
    return found


def _interleaved(values: Sequence[Any], tangents: Sequence[Any], count: int, moving: int) -> list[Any]:
    """States, their tangents, slices, their tangents; ``count`` states of which ``moving`` have tangents."""
    return [*values[:count], *tangents[:moving], *values[count:], *tangents[moving:]]


BODY_RULES: dict[str, Rule] = {"If": _branched, "Loop": _looped, "Scan": _scanned}


def _moving(to: Differentiation, inner: Iterable[ValueInfoProto], outer: Sequence[str]) -> list[int]:
    """Positions of those that hold floats, by what the body says of them or, if it does not, the graph around it."""
    found = []
    for slot, (value, name) in enumerate(zip(inner, outer, strict=False)):
        kind = value.type.tensor_type.elem_type
        known = kind != TensorProto.UNDEFINED
        if value.type.WhichOneof("value") in (None, "tensor_type") and (
            kind == TensorProto.FLOAT if known else to.is_float(name)
        ):
            found.append(slot)
    return found


def _placed(to: Differentiation, count: int, slots: Iterable[int]) -> list[str]:
    """Names for the tangents of these outputs of a node, nothing for the others."""
    found = [""] * count
    for slot in slots:
        found[slot] = to.emit.name("result")
    return found


def _written(
    to: Differentiation, body: GraphProto, seeds: Mapping[str, str], ends: Sequence[ValueInfoProto]
) -> tuple[list[NodeProto], list[ValueInfoProto]]:
    """The body's nodes with tangents behind them, where ``seeds`` have some; and the tangents of ``ends``."""
    around = to.emit.take()
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own |= {output for node in body.node for output in node.output}
    seen = {name: tangent for name, tangent in to.of.items() if name not in own}
    known = {name: fact for name, fact in to.known.items() if name not in own}
    inner = Differentiation(to.emit, to.opset, known, to.rules, {**seen, **seeds})
    nodes: list[NodeProto] = []
    for node in body.node:
        nodes.append(node)
        inner.through(node)
        nodes += to.emit.take()
    names = {value.name: to.emit.name("end") for value in ends}
    for value, name in names.items():
        to.emit.op("Identity", inner.tangent(value), output=name)
    nodes += to.emit.take()
    to.emit.nodes = around
    return nodes, _renamed(ends, names)


def _renamed(values: Iterable[ValueInfoProto], names: Mapping[str, str]) -> list[ValueInfoProto]:
    found = []
    for value in values:
        copy = ValueInfoProto()
        copy.CopyFrom(value)
        copy.name = names[value.name]
        found.append(copy)
    return found


def _body(
    nodes: Sequence[NodeProto], inputs: Iterable[ValueInfoProto], outputs: Iterable[ValueInfoProto], old: GraphProto
) -> GraphProto:
    return helper.make_graph(nodes, old.name or "body", list(inputs), list(outputs), list(old.initializer))


def _add(to: Differentiation, kind: str, inputs: Sequence[str], outputs: Sequence[str], **given: Any) -> None:
    to.emit.nodes.append(helper.make_node(kind, inputs, outputs, name=to.emit.name(kind), **given))
