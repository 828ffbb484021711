"""Which nodes all of the signal passes on its way from the inputs to an output."""

from __future__ import annotations

from collections.abc import Iterable

from .graph import Graph, Node, carried


class Dominators:
    """Which nodes every path from the main inputs to an output passes (Cooper, Harvey & Kennedy 2001, on a DAG)."""

    def __init__(self, graph: Graph, inputs: Iterable[str]) -> None:
        self._parent: dict[int, int] = {-1: -1}
        self._jump: dict[int, int] = {-1: -1}
        self._depth: dict[int, int] = {-1: 0}
        reached = dict.fromkeys(inputs, -1)
        for node in graph.nodes:
            if node.op in ("Shape", "Size"):
                continue
            above = {reached[value] for value in carried(node) if value in reached}
            if not above:
                continue
            meet = above.pop()
            for other in above:
                meet = self._meet(meet, other)
            self._hang(node.index, meet)
            reached.update((value, node.index) for value in node.outputs if value)
        self._on_path: set[int] = set()
        for value in graph.outputs:
            current = reached.get(value, -1)
            while current != -1 and current not in self._on_path:
                self._on_path.add(current)
                current = self._parent[current]

    def _hang(self, node: int, parent: int) -> None:
        """Jump pointers (Myers 1983) make every walk up logarithmic."""
        self._parent[node], self._depth[node] = parent, self._depth[parent] + 1
        near, far = self._jump[parent], self._jump[self._jump[parent]]
        even = self._depth[parent] - self._depth[near] == self._depth[near] - self._depth[far]
        self._jump[node] = far if even else parent

    def _meet(self, a: int, b: int) -> int:
        depth, jump, parent = self._depth, self._jump, self._parent
        if depth[a] < depth[b]:
            a, b = b, a
        while depth[a] > depth[b]:
            a = jump[a] if depth[jump[a]] >= depth[b] else parent[a]
        while a != b:
            leap = jump[a] != jump[b]
            a, b = (jump[a], jump[b]) if leap else (parent[a], parent[b])
        return a

    def dominates_output(self, node: Node) -> bool:
        return node.index in self._on_path
