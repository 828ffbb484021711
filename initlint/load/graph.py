"""The dataflow of an ONNX model as one flat list of nodes, subgraphs of If, Loop and Scan included."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

LINK = "initlint::Link"
"""Pseudo operator: hands a value into or out of a subgraph."""

SUBGRAPH_OPS = frozenset({"If", "Loop", "Scan", "SequenceMap"})


_ATTRIBUTE_TYPES = frozenset(AttributeProto.AttributeType.values()) - {AttributeProto.UNDEFINED}


@dataclass(eq=False)
class Node:
    """One operation. ``op`` is the operator's name, with its domain in front where that is not ONNX's own."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    proto: NodeProto | None
    index: int
    inner: bool
    """Inside a subgraph: its values cannot be outputs of a probe graph."""
    scope: str = ""
    """Qualified name of the PyTorch module that the exporter says it came from, or empty."""
    varies: bool = False
    """Hands a loop's state or slice to its body: another value in every round, even if the first one is constant."""
    chooses: bool = False
    """Makes a mask: its result depends on data but is none."""

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        if self.proto is None:
            return {}
        return {a.name: helper.get_attribute_value(a) for a in self.proto.attribute if a.type in _ATTRIBUTE_TYPES}

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute; the default where it holds something else."""
        value = self.attribute(name, default)
        return value if isinstance(value, int) else default

    def number(self, name: str, default: float) -> float:
        """A number attribute; the default where it holds something else."""
        value = self.attribute(name, default)
        return float(value) if isinstance(value, int | float) else default

    def integers(self, name: str) -> tuple[int, ...]:
        """An attribute that lists integers; empty where it is absent or holds something else."""
        value = self.attribute(name, ())
        return tuple(value) if isinstance(value, list) and all(isinstance(each, int) for each in value) else ()

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.attribute(name, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def input(self, position: int) -> str:
        """Name of the input there, empty where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else ""


@dataclass(eq=False)
class Graph:
    """Nodes in topological order with the maps that walks need."""

    nodes: list[Node]
    inputs: tuple[ValueInfoProto, ...]
    outputs: tuple[str, ...]
    initializers: dict[str, TensorProto]
    opset: int
    domains: Mapping[str, int]
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of values where they are told, 0 for a size that is not."""
    producer: dict[str, Node] = field(default_factory=dict)
    users: dict[str, list[tuple[Node, int]]] = field(default_factory=dict)
    learnt: frozenset[str] = frozenset()
    """Constants that are taken for inputs (see ``learnt``)."""

    def __post_init__(self) -> None:
        for node in self.nodes:
            for value in node.outputs:
                if value:
                    self.producer[value] = node
            for position, value in enumerate(node.inputs):
                if value:
                    self.users.setdefault(value, []).append((node, position))

    def readers(self, value: str) -> list[tuple[Node, int]]:
        """Nodes that read the data of ``value`` (not just its shape or type), with the input's position."""
        return [
            (node, slot)
            for node, slot in self.users.get(value, [])
            if node.op not in _DATALESS and not (slot > 0 and node.op in RESHAPES)
        ]

    def take_for_inputs(self, values: frozenset[str]) -> None:
        """From now on these constants, and all that is made of them, are as live as inputs."""
        self.learnt = values
        for known in ("live", "constants"):
            self.__dict__.pop(known, None)

    @cached_property
    def fed(self) -> frozenset[str]:
        """Values that carry data of the inputs; shapes of inputs and noise do not count."""
        return self._reached({value.name for value in self.inputs})

    @cached_property
    def live(self) -> frozenset[str]:
        """Values that carry data, of inputs or of what is taken for one."""
        return self.fed | self._reached(set(self.learnt)) if self.learnt else self.fed

    def _reached(self, live: set[str]) -> frozenset[str]:
        for node in self.nodes:
            if node.op in _DATALESS or node.op in _SHAPED or node.op in DRAWN:
                continue
            if node.varies or any(value in live for value in carried(node)):
                live.update(value for value in node.outputs if value)
        return frozenset(live)

    @cached_property
    def constants(self) -> frozenset[str]:
        """Values that depend on no input, except that a constant's shape may be adapted to that of one.

        What is stored is one of them even if it is taken for an input: it has values."""
        constant = set(self.initializers)
        for node in self.nodes:
            if node.op in _RANDOM or node.op in SUBGRAPH_OPS or node.varies or node.chooses:
                continue
            if all(not value or value in constant for value in carried(node)):
                constant.update(value for value in node.outputs if value)
        return frozenset(constant) - (self.live - self.initializers.keys()) if self.learnt else frozenset(constant)


def carried(node: Node) -> tuple[str, ...]:
    """The inputs whose data reach the output; the rest give a shape or a type."""
    if node.chooses:
        return ()
    return node.inputs[:1] if node.op in RESHAPES else node.inputs


RESHAPES = frozenset({"Reshape", "Unsqueeze", "Squeeze", "CastLike"})
"""Operators that keep all values of their first input, whatever the second one says."""

COMPARISONS = frozenset({"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"})

_DATALESS = frozenset({"Shape", "Size"})
DRAWN = frozenset({"RandomNormal", "RandomUniform"})
"""Operators that draw a tensor of a given shape: some exporters' way to write an initialised weight."""

_SHAPED = frozenset({"RandomNormalLike", "RandomUniformLike"})
"""Operators that draw a tensor of the shape of their input, of which they know nothing else."""

_RANDOM = _SHAPED | {"Bernoulli", "Multinomial"}


def build(proto: ModelProto) -> Graph:
    """Flatten ``proto`` (its functions inlined)."""
    domains = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    builder = _Builder()
    builder.add_graph(proto.graph, "", {})
    given = {tensor.name for tensor in proto.graph.initializer}
    given |= {sparse.values.name for sparse in proto.graph.sparse_initializer}
    return Graph(
        nodes=builder.nodes,
        inputs=tuple(value for value in proto.graph.input if value.name not in given),
        outputs=tuple(value.name for value in proto.graph.output),
        initializers=builder.initializers,
        opset=domains.get("ai.onnx", 1),
        domains=domains,
        sizes={value.name: sizes for value in _described(proto.graph) if (sizes := _sizes(value)) is not None},
    )


def _described(graph: GraphProto) -> Iterator[ValueInfoProto]:
    yield from graph.value_info
    yield from graph.input


def _sizes(value: ValueInfoProto) -> tuple[int, ...] | None:
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(max(0, dim.dim_value) for dim in value.type.tensor_type.shape.dim)


class _Builder:
    """Renames values of subgraphs so that one flat name space holds all."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.initializers: dict[str, TensorProto] = {}

    def add_graph(self, graph: GraphProto, prefix: str, outer: Mapping[str, str]) -> dict[str, str]:
        names = dict(outer)

        def own(name: str) -> str:
            names[name] = f"{prefix}{name}"
            return names[name]

        for tensor in graph.initializer:
            self.initializers[own(tensor.name)] = tensor
        for value in graph.input:
            own(value.name)
        for position, node in enumerate(graph.node):
            inputs = tuple(names.get(value, f"{prefix}{value}") if value else "" for value in node.input)
            bodies = bodies_of(node)
            outputs = tuple(own(value) if value else "" for value in node.output)
            if bodies:
                self._add_bodies(node, position, inputs, outputs, prefix, names, bodies)
            else:
                self._append(node, inputs, outputs, bool(prefix))
        return names

    def _append(self, node: NodeProto, inputs: tuple[str, ...], outputs: tuple[str, ...], inner: bool) -> None:
        if not outputs:
            return
        domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}::"
        self.nodes.append(
            Node(
                f"{domain}{node.op_type}",
                node.name,
                inputs,
                outputs,
                node,
                len(self.nodes),
                inner,
                module_scope(node),
            )
        )

    def _link(self, inputs: tuple[str, ...], output: str, name: str, varies: bool = False) -> None:
        self.nodes.append(Node(LINK, name, inputs, (output,), None, len(self.nodes), True, varies=varies))

    def _add_bodies(
        self,
        node: NodeProto,
        position: int,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        prefix: str,
        names: Mapping[str, str],
        bodies: list[tuple[str, GraphProto]],
    ) -> None:
        results: list[list[str]] = [[] for _ in outputs]
        for label, body in bodies:
            within = inside(prefix, node, position, label)
            kept = _kept(node, body)
            for formal, actual in _handed_in(node.op_type, body, inputs):
                self._link((actual,), f"{within}{formal}", node.name, varies=formal not in kept)
            inner_names = self.add_graph(body, within, names)
            for slot, value in _handed_out(node.op_type, body, len(outputs)):
                results[slot].append(inner_names.get(value, f"{within}{value}"))
        for output, values in zip(outputs, results, strict=True):
            if output:
                self._link(tuple(values), output, node.name)


def bodies_of(node: NodeProto) -> list[tuple[str, GraphProto]]:
    """The subgraphs of an operator that runs them, by the attribute's name."""
    return [(a.name, a.g) for a in node.attribute if a.HasField("g")] if node.op_type in SUBGRAPH_OPS else []


def inside(prefix: str, node: NodeProto, position: int, label: str) -> str:
    """What the names of values in a body start with; ``prefix`` is that of the graph around it."""
    return f"{prefix}{node.name or node.op_type}_{position}/{label}/"


def _handed_in(op: str, body: GraphProto, inputs: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(body input, outer value) pairs. Loop hands trip count and condition first; Scan's initial states come first."""
    if op == "If":
        return
    for formal, actual in zip(body.input, inputs, strict=False):
        if actual:
            yield formal.name, actual


def _kept(node: NodeProto, body: GraphProto) -> frozenset[str]:
    """Inputs of a loop's body that every round hands on as they came: what TensorFlow's loops do with their weights."""
    if node.op_type not in ("Loop", "Scan"):
        return frozenset()
    made = {each.output[0]: each.input[0] for each in body.node if each.op_type == "Identity" and each.input}
    first = 1 if node.op_type == "Loop" else 0  # rounds are counted in front
    scanned = next((attribute.i for attribute in node.attribute if attribute.name == "num_scan_inputs"), 0)
    kept = []
    for formal, result in zip(body.input[first : max(0, len(body.input) - scanned)], body.output, strict=False):
        origin = result.name
        while origin in made:
            origin = made[origin]
        if origin == formal.name:
            kept.append(origin)
    return frozenset(kept)


def _handed_out(op: str, body: GraphProto, count: int) -> Iterator[tuple[int, str]]:
    skip = 1 if op == "Loop" else 0  # the first output of a loop's body is its condition
    for slot, value in enumerate(body.output[skip:]):
        if slot < count:
            yield slot, value.name


def module_scope(node: NodeProto) -> str:
    """The PyTorch module a node came from: the newer exporter's metadata, else the older one's node names."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes" and len(entry.value) < 4096:
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                return ""
            if isinstance(scopes, list) and len(scopes) >= 2 and isinstance(scopes[-2], str):
                return scopes[-2]
    if node.name.startswith("/"):
        return _join_scopes(node.name.split("/")[1:-1])
    return ""


def _join_scopes(parts: list[str]) -> str:
    """["layer1", "layer1.0", "conv1"] -> "layer1.0.conv1": a called container repeats its name in its children."""
    joined: list[str] = []
    for part in parts:
        if joined and part.startswith(f"{joined[-1]}."):
            joined[-1] = part
        elif part:
            joined.append(part)
    return ".".join(joined)
