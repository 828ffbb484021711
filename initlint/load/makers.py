"""What a computed weight is made of: the parameters and buffers behind it, those first that all of it is scaled by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import numpy as np

from ..kinds import Role
from ..maker import STORED, Maker
from ..model import Tensor, View
from .constants import Constants
from .folding import is_float
from .graph import Graph, Node
from .naming import is_generated
from .stored import Stored

_FACTORS = frozenset({"Mul", "MatMul", "Gemm"})
_FIRST = frozenset({"Div", "Neg"})
"""Operators that grow with their first input."""
_SUMS = frozenset({"Add", "Sub", "Sum"})


class Makers:
    """Finds them, and hands out addresses to those that no tensor of the model stands for."""

    def __init__(self, graph: Graph, constants: Constants, stored_at: Mapping[str, Stored]) -> None:
        self._graph, self._constants = graph, constants
        self._address_of = {stored.value: address for address, stored in stored_at.items()}
        self.leaves: dict[str, Tensor] = {}
        self.stored: dict[str, Stored] = {}
        self.of: dict[str, tuple[Maker, ...]] = {}
        for address, each in stored_at.items():
            if constants.is_computed(each.value) and (found := tuple(self._leaves(each.value))):
                self.of[address] = found

    def _leaves(self, value: str) -> Iterator[Maker]:
        (factors, _), (linear, bent) = self._reached(value, sums=False), self._reached(value, sums=True)
        named = [root for root in self._constants.roots(value) if self._is_named(root)]
        for root in sorted(named, key=lambda each: each not in factors - bent):
            address = self._address_of.get(root) or self._leaf(root)
            scales = root in linear - bent and not self._constants.is_fixed(root)
            yield Maker(address, root in factors - bent, scales)

    def _is_named(self, root: str) -> bool:
        spec = self._constants.spec(root)
        named = not is_generated(root) and root not in self._graph.producer
        return named and spec is not None and bool(spec.size) and is_float(spec.dtype)

    def _leaf(self, root: str) -> str:
        address = f"{root}{STORED}"
        if address not in self.leaves:
            spec = self._constants.spec(root)
            assert spec is not None
            view = View(1, prod(spec.shape), 1)
            self.stored[address] = Stored(root, Role.OTHER, spec.shape, view, np.atleast_1d)
            self.leaves[address] = Tensor(address, spec.shape, spec.dtype.name, Role.OTHER, view)
        return address

    def _reached(self, value: str, sums: bool) -> tuple[set[str], set[str]]:
        """(stored values that ``value`` is proportional to, up to ``sums`` with others; those that it is not)."""
        waiting, seen = [value], {value}
        reached: set[str] = set()
        bent: set[str] = set()
        while waiting:
            value = waiting.pop()
            node = self._graph.producer.get(value)
            if node is None:
                reached.add(value)
                continue
            inputs = self._passed(node, sums)
            bent.update(*(self._constants.roots(each) for each in node.inputs if each and each not in inputs))
            waiting += [each for each in inputs if each and each not in seen]
            seen.update(inputs)
        return reached, bent

    def _passed(self, node: Node, sums: bool) -> list[str]:
        """Those of its inputs that the node's output is proportional to."""
        if node.op == "Gemm" and node.input(2):
            return list(node.inputs) if sums else []
        if node.op in _FACTORS or (sums and node.op in _SUMS):
            return list(node.inputs)
        return [node.input(0)] if node.op in _FIRST or self._constants.is_arranged(node.outputs[0]) else []
