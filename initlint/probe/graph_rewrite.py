"""The probe's own version of a graph: float32 throughout, no dropout, seeded noise, weights handed over as inputs.

Weights become graph inputs: onnxruntime then reads the arrays in place, where initializers would be held three times
(message, serialised message, session), and another probe with edited weights needs no new session.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from ..load.protos import tensor_of
from . import optionals, payload
from .dataflow import all_nodes, subgraphs

FED_BYTES = 1024
"""Initializers from this size on are handed over as inputs. Smaller ones may be shapes, axes or scales, which kernels
want to know when the session is built; no model has axes or scales of a thousand bytes."""

RANDOM_OPS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)

_TYPE_ATTRIBUTES = frozenset(
    {"to", "dtype", "output_datatype", "output_dtype", "stash_type", "softmax_precision", "precision"}
)
"""Integer attributes that name an element type (Cast, RandomNormal, EyeLike, HannWindow, DequantizeLinear,
LayerNormalization, Attention, QuantizeLinear)."""


@dataclass
class ProbeGraph:
    """A rewritten main graph, open for what the probe adds."""

    nodes: list[NodeProto]
    small: dict[str, TensorProto]
    """Initializers that stay in the graph."""
    fed: dict[str, TensorProto]
    """Initializers that are handed over as inputs; the payload is where it was."""
    inputs: dict[str, ValueInfoProto]
    outputs: dict[str, ValueInfoProto]
    opset: int
    imports: dict[str, int]
    prefix: str
    """No name of the graph starts with it."""
    random: bool
    """Results differ from run to run of one session: onnxruntime's generators keep counting."""
    drops: bool = False
    """Training drops out some values, which nothing here does."""
    known: frozenset[str] = field(default=frozenset())
    """All values of the main graph."""


def rewrite(proto: ModelProto, folder: Path | None) -> ProbeGraph:
    """The probe graph of ``proto``, which stays as it is; raises ValueError or OSError for unreadable tensors."""
    graph = proto.graph
    prefix = _free_prefix(graph)
    imports = {entry.domain or "": entry.version for entry in proto.opset_import}
    imports[""] = imports.pop("ai.onnx", imports.get("", 1))
    small: dict[str, TensorProto] = {}
    fed: dict[str, TensorProto] = {}
    for tensor in graph.initializer:
        _sort_in(tensor, tensor.name, small, fed, folder)
    nodes: list[NodeProto] = []
    for node in graph.node:
        if (held := tensor_of(node)) is not None:
            _sort_in(held, node.output[0], small, fed, folder)
        else:
            nodes += _rewritten(node, folder, prefix, imports[""])
    _name_once(nodes)
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: _converted_value(value) for value in graph.input if value.name not in stored}
    optionals.unwrap(nodes, inputs)
    written = {output for node in nodes for output in node.output}
    return ProbeGraph(
        nodes=nodes,
        small=small,
        fed=fed,
        inputs=inputs,
        outputs={value.name: _converted_value(value) for value in graph.output},
        opset=imports[""],
        imports=imports,
        prefix=prefix,
        random=any(node.op_type in RANDOM_OPS for node in all_nodes(nodes)),
        drops=any(_drops(node, small) for node in all_nodes(graph.node) if node.op_type == "Dropout"),
        known=frozenset(written | set(inputs) | set(small) | set(fed)),
    )


def _name_once(nodes: list[NodeProto]) -> None:
    """Names of nodes are optional, but onnxruntime refuses a graph that has one twice."""
    seen: set[str] = set()
    for node in nodes:
        if node.name in seen:
            node.name = ""
        seen.add(node.name)


def _sort_in(
    tensor: TensorProto, name: str, small: dict[str, TensorProto], fed: dict[str, TensorProto], folder: Path | None
) -> None:
    feedable = tensor.data_type in payload.FLOATS or tensor.data_type in (TensorProto.INT8, TensorProto.UINT8)
    itemsize = 1 if tensor.data_type in (TensorProto.INT8, TensorProto.UINT8) else 4
    size = itemsize
    for dim in tensor.dims:
        size *= dim
    if feedable and size >= FED_BYTES:
        fed[name] = tensor
        return
    kept = payload.converted(tensor, folder)
    if kept.name != name:
        named = TensorProto()
        named.CopyFrom(kept)
        named.name = name
        kept = named
    small[name] = kept


def _free_prefix(graph: GraphProto) -> str:
    taken = {name for node in all_nodes(graph.node) for name in (*node.input, *node.output)}
    taken |= {value.name for value in (*graph.input, *graph.output)}
    taken |= {tensor.name for tensor in graph.initializer}
    for node in all_nodes(graph.node):
        for body in subgraphs(node):
            taken |= {value.name for value in (*body.input, *body.output)}
            taken |= {tensor.name for tensor in body.initializer}
    prefix, count = "initlint:", 0
    while any(name.startswith(prefix) for name in taken):
        count += 1
        prefix = f"initlint{count}:"
    return prefix


def _rewritten(node: NodeProto, folder: Path | None, prefix: str, opset: int) -> list[NodeProto]:
    """The nodes that stand for ``node``."""
    if node.op_type == "Dropout" and node.domain in ("", "ai.onnx"):
        return _without_dropout(node, prefix, opset)
    copy = NodeProto(op_type=node.op_type, domain="" if node.domain == "ai.onnx" else node.domain, name=node.name)
    copy.input.extend(node.input)
    copy.output.extend(node.output)
    for attribute in node.attribute:
        copy.attribute.append(_converted_attribute(attribute, folder, prefix, opset))
    if node.op_type in RANDOM_OPS:
        _seed(copy)
    return [copy]


def _drops(node: NodeProto, small: dict[str, TensorProto]) -> bool:
    """Whether a Dropout has a ratio above 0: an attribute, from opset 12 on an input; 0.5 where it is not known."""
    if (held := small.get(node.input[1]) if len(node.input) > 1 else None) is not None:
        return bool(numpy_helper.to_array(held).any())
    return all(attribute.f > 0.0 for attribute in node.attribute if attribute.name == "ratio")


def _without_dropout(node: NodeProto, prefix: str, opset: int) -> list[NodeProto]:
    nodes = [helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name)]
    if len(node.output) > 1 and node.output[1]:
        mask_type = TensorProto.BOOL if opset >= 10 else TensorProto.FLOAT
        shape = f"{prefix}shape of {node.output[1]}"
        ones = helper.make_tensor("", mask_type, [1], [1])
        nodes.append(helper.make_node("Shape", [node.input[0]], [shape]))
        nodes.append(helper.make_node("ConstantOfShape", [shape], [node.output[1]], value=ones))
    return nodes


def _seed(node: NodeProto) -> None:
    """A fixed seed per node, different between nodes: equal noise in two places would correlate them."""
    kept = [attribute for attribute in node.attribute if attribute.name != "seed"]
    del node.attribute[:]
    node.attribute.extend(kept)
    number = sum(node.output[0].encode()) % 65521 + 1
    node.attribute.append(helper.make_attribute("seed", float(number)))


def _converted_attribute(attribute: AttributeProto, folder: Path | None, prefix: str, opset: int) -> AttributeProto:
    kind = attribute.type
    copy = AttributeProto(name=attribute.name, type=kind)
    if kind == AttributeProto.TENSOR:
        copy.t.CopyFrom(payload.converted(attribute.t, folder))
    elif kind == AttributeProto.TENSORS:
        copy.tensors.extend(payload.converted(tensor, folder) for tensor in attribute.tensors)
    elif kind == AttributeProto.GRAPH:
        copy.g.CopyFrom(_converted_graph(attribute.g, folder, prefix, opset))
    elif kind == AttributeProto.GRAPHS:
        copy.graphs.extend(_converted_graph(body, folder, prefix, opset) for body in attribute.graphs)
    else:
        copy.CopyFrom(attribute)
        copy.doc_string = ""
    if kind == AttributeProto.INT and attribute.name in _TYPE_ATTRIBUTES:
        copy.i = payload.probe_type(attribute.i)
    if kind == AttributeProto.TYPE_PROTO:
        _convert_type(copy.tp)
    return copy


def _converted_graph(graph: GraphProto, folder: Path | None, prefix: str, opset: int) -> GraphProto:
    """A subgraph in float32. Its batch norms and dropouts are rewritten by the same rules as the main graph's."""
    from .batch_norm import without_batch_norm

    nodes = [new for node in graph.node for new in _rewritten(node, folder, prefix, opset)]
    _name_once(nodes)
    return GraphProto(
        name=graph.name,
        node=without_batch_norm(nodes, f"{prefix}{graph.name}:", opset),
        initializer=[payload.converted(tensor, folder) for tensor in graph.initializer],
        sparse_initializer=graph.sparse_initializer,
        input=[_converted_value(value) for value in graph.input],
        output=[_converted_value(value) for value in graph.output],
    )


def _converted_value(value: ValueInfoProto) -> ValueInfoProto:
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    _convert_type(copy.type)
    return copy


def _convert_type(kind: TypeProto) -> None:
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        kind.tensor_type.elem_type = payload.probe_type(kind.tensor_type.elem_type)
    elif which == "sequence_type":
        _convert_type(kind.sequence_type.elem_type)
    elif which == "optional_type":
        _convert_type(kind.optional_type.elem_type)
    elif which == "map_type":
        _convert_type(kind.map_type.value_type)


def replace_values(graph: ProbeGraph, overrides: Iterable[str]) -> ProbeGraph:
    """``graph`` with the values of these names handed over as inputs, whoever computed them before."""
    names = set(overrides)
    nodes = [_disconnected(node, names, graph.prefix) for node in graph.nodes]
    return ProbeGraph(
        nodes=nodes,
        small={name: tensor for name, tensor in graph.small.items() if name not in names},
        fed={name: tensor for name, tensor in graph.fed.items() if name not in names},
        inputs=graph.inputs,
        outputs=graph.outputs,
        opset=graph.opset,
        imports=graph.imports,
        prefix=graph.prefix,
        random=graph.random,
        known=graph.known,
    )


def _disconnected(node: NodeProto, names: set[str], prefix: str) -> NodeProto:
    if names.isdisjoint(node.output):
        return node
    copy = NodeProto()
    copy.CopyFrom(node)
    for position, output in enumerate(node.output):
        if output in names:
            copy.output[position] = f"{prefix}replaced {output}"
    return copy


def serialise(graph: ProbeGraph, nodes: list[NodeProto], inputs: list[ValueInfoProto], outputs: list[str]) -> bytes:
    """The model that onnxruntime gets: ``nodes`` instead of the graph's own, ``outputs`` of unstated type."""
    used = {name for node in all_nodes(nodes) for name in node.input}
    for node in all_nodes(nodes):
        for body in subgraphs(node):
            used |= {value.name for value in body.output}
    proto = GraphProto(
        name="probe",
        node=nodes,
        initializer=[tensor for name, tensor in graph.small.items() if name in used or name in outputs],
        input=inputs,
        output=[helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in graph.imports.items()]
    return bytes(helper.make_model(proto, opset_imports=imports, ir_version=_IR_VERSION).SerializeToString())


_IR_VERSION = 10
"""Initializers need not be inputs (4), and int4 exists (10); onnxruntime refuses files newer than itself."""
