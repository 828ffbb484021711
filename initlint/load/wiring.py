"""Whether a graph hangs together: every value has one origin, and nothing waits for itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from onnx import GraphProto, NodeProto

from .protos import keep
from .refusals import brief, damaged


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and every subgraph in it."""
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(bodies(current.node))


def bodies(nodes: Iterable[NodeProto]) -> Iterator[GraphProto]:
    """The subgraphs that nodes hold in their attributes."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def check(graph: GraphProto, name: str) -> None:
    """Raise TargetError for a cycle or a value with no origin or two; nodes in the wrong order are put right."""
    for missing in _free(graph, name):
        raise damaged(f"{name}: value {brief(missing)} is read, but nothing produces it")


def _free(graph: GraphProto, name: str) -> dict[str, None]:
    """Names that the graph takes from outside; at most 31 levels of recursion, since protobuf reads no more."""
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    given |= {sparse.values.name for sparse in graph.sparse_initializer}
    made = Counter(output for node in graph.node for output in node.output if output)
    for output, count in made.items():
        if count > 1 or output in given:
            raise damaged(f"{name}: value {brief(output)} has two origins")
    needs = [_needs(node, name) for node in graph.node]
    _put_in_order(graph, needs, set(made), name)
    read = [value for need in needs for value in need] + [value.name for value in graph.output]
    return {value: None for value in read if value not in given and value not in made}


def _needs(node: NodeProto, name: str) -> list[str]:
    needs = [value for value in node.input if value]
    for body in bodies([node]):
        needs.extend(_free(body, name))
    return needs


def _put_in_order(graph: GraphProto, needs: list[list[str]], made: set[str], name: str) -> None:
    waits = [{value for value in need if value in made} for need in needs]
    seen: set[str] = set()
    for node, wait in zip(graph.node, waits, strict=True):
        if not wait <= seen:
            break
        seen.update(node.output)
    else:
        return
    order = _sorted(graph, waits, name)
    keep(graph.node, [graph.node[position] for position in order])


def _sorted(graph: GraphProto, waits: list[set[str]], name: str) -> list[int]:
    """Positions in topological order (Kahn 1962), as near to the file's order as can be."""
    readers: dict[str, list[int]] = {}
    for position, wait in enumerate(waits):
        for value in wait:
            readers.setdefault(value, []).append(position)
    missing = [len(wait) for wait in waits]
    ready = [position for position in reversed(range(len(waits))) if not missing[position]]
    order: list[int] = []
    while ready:
        position = ready.pop()
        order.append(position)
        for value in graph.node[position].output:
            for reader in readers.get(value, ()):
                missing[reader] -= 1
                if not missing[reader]:
                    ready.append(reader)
    if len(order) < len(waits):
        stuck = next(node for position, node in enumerate(graph.node) if missing[position])
        label = stuck.name or (stuck.output[0] if stuck.output else stuck.op_type)
        raise damaged(f"{name}: operation {brief(label)} is part of a cycle, or waits for one")
    return order
