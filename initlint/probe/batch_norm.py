"""Batch normalisation as primitives on batch statistics.

onnxruntime's own kernel is never run: below opset 14 it has no training mode, and in training mode it writes running
statistics into tensors that its constant-sharing pass may have merged with others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx import NodeProto, helper

from .emit import Emitter
from .reductions import Reductions

EPSILON = 1e-5
"""The operator's default."""


@dataclass(frozen=True, slots=True)
class Norm:
    """One batch normalisation of the probe graph: output = centred input * ``factor`` + ``shift``."""

    name: str
    input: str
    output: str
    factor: str
    shift: str


def is_batch_norm(node: NodeProto) -> bool:
    return bool(node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx"))


def write(node: NodeProto, reductions: Reductions) -> Norm:
    """Write the primitives that stand for ``node`` (Ioffe & Szegedy 2015, algorithm 1).

    The input is seen as (samples, channels, positions), whatever its rank.
    """
    emit = reductions.emit
    value, gain, shift = node.input[:3]
    centred, square = reductions.centred_by_channel(value)
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), EPSILON)
    column = emit.ints(1, -1, 1)
    deviation = emit.op("Sqrt", emit.op("Add", square, emit.floats(epsilon)))
    factor = emit.op("Div", emit.op("Reshape", gain, column), deviation)
    offset = emit.op("Reshape", shift, column)
    normalised = emit.op("Add", emit.op("Mul", centred, factor), offset)
    emit.op("Reshape", normalised, emit.op("Shape", value), output=node.output[0])
    for position, output in enumerate(node.output[1:], 1):
        if output:  # running or saved mean and variance: nothing that a signal depends on
            emit.op("Identity", node.input[3 if position % 2 else 4], output=output)
    return Norm(node.name or node.output[0], value, node.output[0], factor, offset)


def in_inference_mode(nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """``nodes`` with every batch norm reduced to its shape: enough for a run that asks for shapes only."""
    return [_identity(node) if is_batch_norm(node) else node for node in nodes]


def _identity(node: NodeProto) -> NodeProto:
    return NodeProto(op_type="Identity", input=[node.input[0]], output=[node.output[0]], name=node.name)


def without_batch_norm(nodes: list[NodeProto], prefix: str, opset: int) -> list[NodeProto]:
    """``nodes`` of a subgraph with every batch norm written as primitives, constants included."""
    if not any(is_batch_norm(node) for node in nodes):
        return nodes
    emit = Emitter(prefix, opset)
    reductions = Reductions(emit)
    body: list[NodeProto] = []
    for node in nodes:
        if is_batch_norm(node):
            write(node, reductions)
            body += emit.take()
        else:
            body.append(node)
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in emit.constants]
    return constants + body
