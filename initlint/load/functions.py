"""Local functions are written out before anything else looks at a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import FunctionProto, ModelProto, NodeProto

from ..errors import FailureKind, TargetError
from . import wiring
from .refusals import brief, damaged, first_line

MAX_NODES = 500_000
"""After inlining. The largest public graphs have some 30,000 nodes; beyond this a file is an attack."""

MAX_DEPTH = 100
"""Calls within calls; onnx's checker has the same limit."""

_Key = tuple[str, str, str]


def inlined(proto: ModelProto, name: str) -> ModelProto:
    """``proto`` without local functions; raises TargetError where they recurse or multiply."""
    total = _Expansion(proto, name).total()
    if total > MAX_NODES:
        size = f"{total} operations" if total < 10**12 else "more than 10^12 operations"
        raise TargetError(
            FailureKind.UNSUPPORTED,
            f"{name} amounts to {size}, beyond the limit of {MAX_NODES}; check a smaller configuration of the model.",
        )
    if not proto.functions:
        return proto
    from onnx import inliner

    try:
        return inliner.inline_local_functions(proto)
    except (RuntimeError, ValueError, MemoryError) as error:  # onnx's C++ errors
        raise TargetError(
            FailureKind.UNSUPPORTED,
            f"{name}: its local functions cannot be inlined ({first_line(error)}); export without local functions.",
        ) from None


class _Expansion:
    """Counts nodes after inlining on the call graph: doubling functions must not be expanded to be counted."""

    def __init__(self, proto: ModelProto, name: str) -> None:
        self._proto, self._name = proto, name
        self._functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
        self._sizes: dict[_Key, int] = {}
        self._depths: dict[_Key, int] = {}

    def total(self) -> int:
        for key in self._callees_first():
            nodes = list(_all_nodes(self._functions[key].node))
            self._sizes[key] = self._count(nodes)
            self._depths[key] = 1 + max((self._depths.get(_key(node), 0) for node in nodes), default=0)
            if self._depths[key] > MAX_DEPTH:
                raise TargetError(
                    FailureKind.UNSUPPORTED,
                    f"{self._name}: local functions call each other more than {MAX_DEPTH} deep; export without them.",
                )
        return self._count(_all_nodes(self._proto.graph.node))

    def _count(self, nodes: Iterable[NodeProto]) -> int:
        return sum(self._sizes.get(_key(node), 1) for node in nodes)

    def _callees_first(self) -> Iterator[_Key]:
        done: set[_Key] = set()
        for start in self._functions:
            trail: dict[_Key, Iterator[_Key]] = {start: self._calls(self._functions[start])}
            while trail:
                current = next(reversed(trail))
                callee = next((key for key in trail[current] if key not in done), None)
                if callee is None:
                    trail.popitem()
                    if current not in done:
                        done.add(current)
                        yield current
                elif callee in trail:
                    raise damaged(f"{self._name}: local function {brief(callee[1])} calls itself")
                else:
                    trail[callee] = self._calls(self._functions[callee])

    def _calls(self, function: FunctionProto) -> Iterator[_Key]:
        return (key for node in _all_nodes(function.node) if (key := _key(node)) in self._functions)


def _key(node: NodeProto) -> _Key:
    return (node.domain, node.op_type, node.overload)


def _all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes and those of their subgraphs."""
    nodes = list(nodes)
    yield from nodes
    for body in wiring.bodies(nodes):
        for graph in wiring.graphs(body):
            yield from graph.node
