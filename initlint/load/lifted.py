"""Weights inside the bodies of If, Loop and Scan, moved to the main graph.

A body reads what lies around it, so that makes no difference to the model; but only a main graph takes other values for
its weights, and only there an operator's tangents reach them. They keep the names that ``graph`` gives them.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, ModelProto, TensorProto

from . import wiring
from .graph import bodies_of, inside
from .protos import keep, tensor_of

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


def lift(proto: ModelProto) -> None:
    """Rewrite ``proto``: float tensors leave its bodies; single numbers, axes and shapes stay with their operators."""
    if not any(bodies_of(node) for node in proto.graph.node):
        return
    taken = {name for graph in wiring.graphs(proto.graph) for name in _names(graph)}
    found: list[TensorProto] = []
    _visit(proto.graph, "", {}, found, taken)
    proto.graph.initializer.extend(found)


def _names(graph: GraphProto) -> set[str]:
    written = {value for node in graph.node for value in (*node.input, *node.output)}
    stored = {tensor.name for tensor in graph.initializer}
    return written | stored | {value.name for value in (*graph.input, *graph.output)}


def _visit(graph: GraphProto, prefix: str, outer: Mapping[str, str], found: list[TensorProto], taken: set[str]) -> None:
    """``outer`` are the new names of lifted values that the graph sees."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {value for node in graph.node for value in node.output}
    names = {old: new for old, new in outer.items() if old not in own}
    if prefix:
        names |= _lifted(graph, prefix, found, taken)
    for position, node in enumerate(graph.node):
        for slot, value in enumerate(node.input):
            if value in names:
                node.input[slot] = names[value]
        for label, body in bodies_of(node):
            _visit(body, inside(prefix, node, position, label), names, found, taken)
    if prefix:
        _drop(graph, names)


def _lifted(graph: GraphProto, prefix: str, found: list[TensorProto], taken: set[str]) -> dict[str, str]:
    """New names of the graph's own weights, copies of which join ``found``."""
    results = {value.name for value in graph.output} | {value.name for value in graph.input}
    names: dict[str, str] = {}
    stored = ((tensor.name, tensor) for tensor in graph.initializer)
    for name, tensor in (*stored, *((node.output[0], tensor_of(node)) for node in graph.node if node.output)):
        new = f"{prefix}{name}"
        if tensor is None or tensor.data_type not in _FLOATS or not tensor.dims or name in results or new in taken:
            continue
        names[name] = new
        taken.add(new)
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name = new
        found.append(copy)
    return names


def _drop(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Take away what was lifted; the graph's own names alone, for nobody else's are written in it."""
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    nodes = [node for node in graph.node if node.op_type != "Constant" or node.output[0] not in names]
    if len(kept) < len(graph.initializer):
        keep(graph.initializer, kept)
    if len(nodes) < len(graph.node):
        keep(graph.node, nodes)
