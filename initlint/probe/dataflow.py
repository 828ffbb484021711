"""Who writes and who reads a value of an ONNX graph, values captured by subgraphs included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cached_property

from onnx import AttributeProto, GraphProto, NodeProto


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies that ``node`` carries in its attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def captured(graph: GraphProto) -> set[str]:
    """Values of enclosing scopes that a subgraph reads."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {output for node in graph.node for output in node.output}
    read = {value.name for value in graph.output}
    for node in graph.node:
        read.update(node.input)
        for body in subgraphs(node):
            read |= captured(body)
    return {name for name in read - own if name}


def reads(node: NodeProto) -> list[str]:
    """Values that ``node`` depends on: its inputs, and what its subgraphs capture."""
    names = [name for name in node.input if name]
    for body in subgraphs(node):
        names += sorted(captured(body))
    return names


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """``nodes`` and those of every subgraph."""
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from all_nodes(body.node)


class Dataflow:
    """Producers and reachability in one main graph."""

    def __init__(self, nodes: Sequence[NodeProto]) -> None:
        self.nodes = nodes

    @cached_property
    def reads(self) -> list[list[str]]:
        return [reads(node) for node in self.nodes]

    @cached_property
    def producer(self) -> dict[str, int]:
        """Index of the node that writes a value."""
        return {output: index for index, node in enumerate(self.nodes) for output in node.output if output}

    @cached_property
    def consumers(self) -> dict[str, list[NodeProto]]:
        """Nodes that read a value, those inside subgraphs included."""
        found: dict[str, list[NodeProto]] = defaultdict(list)
        for node in all_nodes(self.nodes):
            for name in dict.fromkeys(node.input):
                found[name].append(node)
        return found

    def upstream(self, values: Iterable[str], until: Container[str] = ()) -> set[int]:
        """Indices of all nodes that ``values`` depend on; what lies behind a value of ``until`` is left out."""
        needed: set[int] = set()
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            index = None if value in until else self.producer.get(value)
            if index is not None and index not in needed:
                needed.add(index)
                waiting += self.reads[index]
        return needed

    def downstream(self, values: Iterable[str]) -> set[str]:
        """All values that depend on one of ``values``, these included (nodes must be in execution order)."""
        reached = set(values)
        for node, read in zip(self.nodes, self.reads, strict=True):
            if not reached.isdisjoint(read):
                reached.update(output for output in node.output if output)
        return reached
