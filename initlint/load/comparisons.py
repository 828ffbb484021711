"""Comparisons and draws in an eager run: masks, which choose among data, and spikes or signs, which are data.

Which of the two a result is shows where it ends. What nothing but a comparison hands to a weighted map is data to that
map. Anything else stays a mask: it neither feeds what it is added to nor makes a path around it, so that a padding mask
does not make the embedding of the same tokens look bypassed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from .graph import Node
from .steps import PREVIOUS, Step, Translation

_MAPS = frozenset(
    {
        "Gemm", "MatMul", "Einsum", "Conv", "ConvTranspose", "initlint::Recurrence", "PRelu", "LayerNormalization",
        "BatchNormalization", "GroupNormalization", "RMSNormalization", "InstanceNormalization",
    }
)  # fmt: skip
"""Operators that make a layer of a parameter. A table is none: positions that count a mask's ones are no data."""


def _compared(op: str) -> Translation:
    return lambda a, k: [Step(op, a[:2])]


def _not_equal(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    return [Step("Equal", a[:2]), Step("Not", (PREVIOUS,))]


def _alone(op: str) -> Translation:
    return lambda a, k: [Step(op, a[:1])]


def _bitwise(op: str, count: int) -> Translation:
    """Of truth values it is the logical operator."""

    def translate(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
        logical = isinstance(a[0], torch.Tensor) and a[0].dtype is torch.bool
        return [Step(op if logical else f"Bitwise{op}", a[:count])]

    return translate


COMPARISONS: dict[str, Translation] = {
    "eq": _compared("Equal"),
    "ne": _not_equal,
    "lt": _compared("Less"),
    "le": _compared("LessOrEqual"),
    "gt": _compared("Greater"),
    "ge": _compared("GreaterOrEqual"),
    "logical_not": _alone("Not"),
    "logical_and": _compared("And"),
    "logical_or": _compared("Or"),
    "logical_xor": _compared("Xor"),
    "bitwise_not": _bitwise("Not", 1),
    "bitwise_and": _bitwise("And", 2),
    "bitwise_or": _bitwise("Or", 2),
    "bitwise_xor": _bitwise("Xor", 2),
    "isnan": _alone("IsNaN"),
    "isinf": _alone("IsInf"),
    "isfinite": _alone("initlint::IsFinite"),
    "any": _alone("ReduceMax"),
    "all": _alone("ReduceMin"),
}
"""By the operator's name, as in ``aten.TABLE``."""


def _drawn(a: Sequence[Any], k: dict[str, Any]) -> list[Step]:
    return [Step("initlint::Draw", [each for each in (*a[:2], *k.values()) if isinstance(each, torch.Tensor)])]


DRAWS: dict[str, Translation] = dict.fromkeys(("bernoulli", "multinomial", "normal", "poisson"), _drawn)
"""Operators that draw from a distribution which data may set; as codes of a network they are data, else masks."""


class Masks:
    """The values of one run that depend on the inputs by comparisons only, until a weighted map reads them."""

    def __init__(self, live: set[str]) -> None:
        self._live = live
        self._trained: set[str] = set()
        """Values that are made of parameters and of no input."""
        self._makers: dict[str, Node] = {}

    def __contains__(self, value: str) -> bool:
        return value in self._makers and value not in self._live

    def add_parameter(self, value: str) -> None:
        self._trained.add(value)

    def see(self, node: Node, compares: bool = False) -> None:
        """``node`` was recorded: note whether its results are live, masks or neither."""
        masks = [value for value in node.inputs if value in self] if self._makers else []
        live = not self._live.isdisjoint(node.inputs)
        if masks and not live and self._feeds_a_map(node):
            self._promote(masks)
            live = True
        if (live or masks) and (compares or not live):
            self._makers.update(dict.fromkeys(node.outputs, node))
            node.chooses = True
        elif live:
            self._live.update(node.outputs)
        elif not self._trained.isdisjoint(node.inputs):
            self._trained.update(node.outputs)

    def _feeds_a_map(self, node: Node) -> bool:
        return node.op in _MAPS and not self._trained.isdisjoint(node.inputs)

    def _promote(self, values: Iterable[str]) -> None:
        """They are data, and so is all that they were made of."""
        pending = list(values)
        while pending:
            value = pending.pop()
            if value in self:
                node = self._makers[value]
                node.chooses = False
                self._live.update(node.outputs)
                pending.extend(node.inputs)
