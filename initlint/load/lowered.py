"""Fused and quantised operators written out as the plain ones they stand for, before anything else looks at a graph.

onnxruntime's optimiser fuses a bias into a GELU, a residual sum and a bias into a norm, three tables into one operator;
its quantiser replaces maps by integer ones with scales. What an untrained model is made of is the same, so each gets
the form in which exporters write it. A product that was quantised becomes that of its dequantised operands; rounding
activations back and forth is left out, as training through it does (straight-through, Bengio et al. 2013).

An operator that lacks an input, or has attributes that do not fit, stays as it is: the runtime will say so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from . import quantised, wiring
from .protos import keep
from .writing import MICROSOFT, PER_AXIS, Rule, Writer, attributes_of, input_of

_RANGES = 11
"""The opset of Range."""


def write_out(proto: ModelProto) -> None:
    """Rewrite ``proto``, whose nodes are in order."""
    opset = next((each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")), 1)
    every = list(wiring.graphs(proto.graph))
    if not any(_rule(node) is not None for graph in every for node in graph.node):
        return
    names = {name for graph in every for node in graph.node for name in (*node.input, *node.output)}
    writer = Writer(opset, names | {tensor.name for graph in every for tensor in graph.initializer})
    for graph in every:
        _rewrite(graph, writer)


def _rule(node: NodeProto) -> Rule | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return _RULES.get((domain, node.op_type))


def _rewrite(graph: GraphProto, writer: Writer) -> None:
    nodes = list(graph.node)
    writer.nodes, writer.constants, writer.gone, writer.unrounded = [], [], set(), {}
    writer.stored = {tensor.name: tensor for tensor in graph.initializer}
    writer.outputs = frozenset(value.name for value in graph.output)
    writer.makers = {output: node for node in nodes for output in node.output}
    writer.users = {}
    for node in nodes:
        inner = (value for body in wiring.bodies([node]) for value in _read_inside(body))
        for value in dict.fromkeys((*node.input, *inner)):
            writer.users.setdefault(value, []).append(node)
    changed = False
    for node in nodes:
        rule = _rule(node)
        if id(node) in writer.gone:
            continue
        if rule is not None and rule(writer, node):
            changed = True
        else:
            writer.nodes.append(node)
    if not changed:
        return
    keep(graph.node, writer.nodes)
    graph.initializer.extend(writer.constants)


def _read_inside(body: GraphProto) -> Iterable[str]:
    for graph in wiring.graphs(body):
        for node in graph.node:
            yield from node.input
        yield from (value.name for value in graph.output)


# -- fused operators --------------------------------------------------------------------------------------------------


def _biased_gelu(to: Writer, node: NodeProto) -> bool:
    if not input_of(node, 1):
        return False
    total = to.op("Add", node.input[:2], like=node)
    kind = "FastGelu" if node.op_type == "FastGelu" else "Gelu"
    to.op(kind, [total], node.output[0], like=node, domain=MICROSOFT)
    return True


def _biased_skip_norm(to: Writer, node: NodeProto) -> bool:
    """The bias belongs to the map that made one of the two summands."""
    place = 3 if "Simplified" in node.op_type else 4
    bias = input_of(node, place)
    if not bias:
        return False
    made = [to.makers.get(value) for value in node.input[:2]]
    slot = 1 if made[1] is not None and made[1].op_type == "MatMul" and not _is(made[0], "MatMul") else 0
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[slot] = to.op("Add", [node.input[slot], bias], like=made[slot])
    del copy.input[place:]
    to.nodes.append(copy)
    return True


def _is(node: NodeProto | None, kind: str) -> bool:
    return node is not None and node.op_type == kind


def _embeddings(to: Writer, node: NodeProto) -> bool:
    """Tables of words, positions and segments, their sum, and a norm."""
    ids, segments, words, positions, table, gain, shift, mask, places = (input_of(node, slot) for slot in range(9))
    counts, total = ([*node.output, "", "", ""])[1:3]
    if not (ids and words and positions and gain and shift) or to.opset < _RANGES or (counts and not mask):
        return False
    if not places:
        sizes = to.op("Gather", [to.op("Shape", [ids]), to.constant(np.int64(1))])
        places = to.op("Range", [to.constant(np.int64(0)), sizes, to.constant(np.int64(1))])
    summed = to.op("Add", [to.op("Gather", [words, ids], like=node), to.op("Gather", [positions, places], like=node)])
    if segments and table:
        summed = to.op("Add", [summed, to.op("Gather", [table, segments], like=node)])
    if total:
        to.op("Identity", [summed], total)
    to.op("LayerNormalization", [summed, gain, shift], node.output[0], like=node, axis=-1, **attributes_of(node))
    if counts and to.opset >= PER_AXIS:
        to.op("ReduceSum", [mask, to.ints(1)], counts, keepdims=0)
    elif counts:
        to.op("ReduceSum", [mask], counts, axes=[1], keepdims=0)
    return True


# -- layouts ----------------------------------------------------------------------------------------------------------


def _batch_first(to: Writer, node: NodeProto) -> bool:
    """Recurrences with ``layout=1``, for which onnxruntime has no kernel."""
    given = attributes_of(node, "layout")
    if not any(each.name == "layout" and each.i == 1 for each in node.attribute):
        return False
    inputs = list(node.input)
    for slot in (0, 5, 6):
        if slot < len(inputs) and inputs[slot]:
            inputs[slot] = to.op("Transpose", [inputs[slot]], perm=[1, 0, 2])
    outputs = [to.name(node.op_type) if output else "" for output in node.output]
    made = helper.make_node(node.op_type, inputs, outputs, name=node.name, **given)
    made.metadata_props.extend(node.metadata_props)
    to.nodes.append(made)
    for slot, (inner, output) in enumerate(zip(outputs, node.output, strict=True)):
        if output:
            to.op("Transpose", [inner], output, perm=[2, 0, 1, 3] if slot == 0 else [1, 0, 2])
    return True


def _split(to: Writer, node: NodeProto) -> bool:
    """A list of pieces of told sizes, of which each is asked for by its number."""
    sizes = _numbers(to, input_of(node, 1))
    users = to.users.get(node.output[0], [])
    numbers = [_numbers(to, input_of(user, 1)) if user.op_type == "SequenceAt" else None for user in users]
    given = attributes_of(node)
    if sizes is None or sizes.ndim != 1 or given.get("keepdims", 1) != 1 or node.output[0] in to.outputs:
        return False
    chosen = [number.item() for number in numbers if number is not None and number.size == 1]
    if len(chosen) < len(users) or any(not -len(sizes) <= number < len(sizes) for number in chosen):
        return False
    pieces = [to.name("piece") for _ in sizes]
    axis = given.get("axis", 0)
    if to.opset >= PER_AXIS:
        made = helper.make_node("Split", [node.input[0], to.ints(*sizes.tolist())], pieces, axis=axis)
    else:
        made = helper.make_node("Split", [node.input[0]], pieces, axis=axis, split=sizes.tolist())
    to.nodes.append(made)
    for user, number in zip(users, chosen, strict=True):
        del user.input[:]
        user.input.append(pieces[number])
        user.op_type = "Identity"
    return True


def _numbers(to: Writer, value: str) -> Any:
    """The values of a Constant node; None for everything else."""
    maker = to.makers.get(value)
    if maker is None or maker.op_type != "Constant":
        return None
    for attribute in maker.attribute:
        if attribute.name == "value" and attribute.t.data_type == TensorProto.INT64:
            return numpy_helper.to_array(attribute.t)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(helper.get_attribute_value(attribute), np.int64)
    return None


_RULES: dict[tuple[str, str], Rule] = {
    **quantised.RULES,
    (MICROSOFT, "BiasGelu"): _biased_gelu,
    (MICROSOFT, "FastGelu"): _biased_gelu,
    (MICROSOFT, "SkipLayerNormalization"): _biased_skip_norm,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _biased_skip_norm,
    (MICROSOFT, "EmbedLayerNormalization"): _embeddings,
    **dict.fromkeys((("", "LSTM"), ("", "GRU"), ("", "RNN")), _batch_first),
    ("", "SplitToSequence"): _split,
}
