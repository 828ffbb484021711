"""Which matrix products belong to an attention: what is multiplied there are queries, keys and values, not weights."""

from __future__ import annotations

from collections.abc import Iterable

from .dataflow import ATTENTIONS, PRODUCTS_OF_MATRICES
from .graph import LINK, Graph, Node

_WALK = 64
"""Nodes between a product and its softmax: scales, masks, shifts of relative positions; real ones have ten."""

_MOVES = frozenset({"Identity", "Cast", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Slice",
                    "Split", "Dropout", "Pad", "Gather", "GatherElements", "GatherND", "Concat", LINK})  # fmt: skip
_BETWEEN = _MOVES | {"Add", "Sub", "Sum", "Mul", "Div", "Where", "Clip", "Tanh", "Max", "Min"}
"""What logits go through, being scaled, masked, capped and added to others, and what they give on the way to values."""


class Attended:
    """Looks at the products of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def at(self, product: Node) -> bool:
        """It makes an attention's logits, or weights its values."""
        return self._weights_values(product) or self._makes_logits(product)

    def _weights_values(self, product: Node) -> bool:
        return any(self._is_softmaxed(value) for value in product.inputs)

    def _is_softmaxed(self, value: str) -> bool:
        for _ in range(_WALK):
            node = self._graph.producer.get(value)
            if node is None or node.op == "Softmax":
                return node is not None
            if node.op not in _MOVES:
                return False
            value = node.input(0)
        return False

    def _makes_logits(self, product: Node) -> bool:
        """Its result goes through a softmax into another product, or is added to the logits of a fused attention."""
        pending, seen = list(product.outputs), set(product.outputs)
        softmaxed: set[str] = set()
        while pending and len(seen) < _WALK:
            value = pending.pop()
            for user, slot in self._graph.readers(value):
                if user.op in ATTENTIONS and slot == ATTENTIONS[user.op]:
                    return True
                if user.op in PRODUCTS_OF_MATRICES and value in softmaxed:
                    return True
                if user.op != "Softmax" and user.op not in _BETWEEN:
                    continue
                if user.op == "Softmax" or value in softmaxed:
                    softmaxed.update(user.outputs)
                fresh = [out for out in user.outputs if out and out not in seen]
                seen.update(fresh)
                pending += fresh
        return False

    def made_by(self, layers: Iterable[Node]) -> frozenset[str]:
        """Constants that come out of an attention, all of whose logits are made by ``layers``: of a text tower, say."""
        behind = {value for node in layers for value in node.outputs}
        made: set[str] = set()
        if not behind:
            return frozenset()
        for node in self._graph.nodes:
            if not self._graph.fed.isdisjoint(node.inputs):
                continue
            attends = node.op in ATTENTIONS or (node.op in PRODUCTS_OF_MATRICES and self._weights_values(node))
            if (attends and not behind.isdisjoint(node.inputs)) or not made.isdisjoint(node.inputs):
                made.update(node.outputs)
            if not behind.isdisjoint(node.inputs):
                behind.update(node.outputs)
        return frozenset(made)
