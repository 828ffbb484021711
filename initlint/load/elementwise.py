"""Recognising non-linearities by what they compute, not by how an exporter spells them.

From a value the region of element-wise operations with scalar constants is followed until all its branches have met
again (x * sigmoid(x) leaves and meets); then the region is evaluated on a grid and compared with ``activations``. GELU
as Erf and five other nodes, hard-swish as Clip and Mul, ReLU as Max: all are the function they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import activations
from .constants import Constants
from .graph import Graph, Node

Array = NDArray[np.float64]

MAX_REGION = 24
"""Nodes; the longest spelling seen (tanh-GELU with Pow, in both exporters) has 9."""

_FIRST_TRY = 8
"""Most non-linearities are a few nodes: they are looked for in a small neighbourhood first."""

MAX_USES = 16
"""Non-linearities that are looked for behind one value: a conditioning vector has one per block."""

_GRID = np.linspace(-8.0, 8.0, 129)
_TOLERANCE = 2e-4
"""GELU and its tanh approximation differ by 4.7e-4 (Hendrycks & Gimpel 2016); float32 constants by 1e-6."""


@dataclass(frozen=True)
class Region:
    """A non-linearity found in the graph: from value ``start`` to value ``end``."""

    name: str
    start: str
    end: str
    nodes: frozenset[int]


def _erf(x: Array) -> Array:
    from math import erf

    return np.vectorize(erf)(x)  # type: ignore[no-any-return]


def _sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -700, 700)))


Evaluator = Callable[[Node, list[Array]], Array]


def _elu(alpha: float) -> Callable[[Array], Array]:
    return lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


_UNARY: dict[str, Evaluator] = {
    "Relu": lambda n, v: np.maximum(v[0], 0),
    "LeakyRelu": lambda n, v: np.where(v[0] > 0, v[0], n.attribute("alpha", 0.01) * v[0]),
    "ThresholdedRelu": lambda n, v: np.where(v[0] > n.attribute("alpha", 1.0), v[0], 0),
    "Elu": lambda n, v: _elu(n.attribute("alpha", 1.0))(v[0]),
    "Celu": lambda n, v: np.maximum(v[0], 0) + np.minimum(0, n.attribute("alpha", 1.0) * np.expm1(v[0])),
    "Selu": lambda n, v: n.attribute("gamma", 1.0507009873554805) * _elu(n.attribute("alpha", 1.67326324235))(v[0]),
    "HardSigmoid": lambda n, v: np.clip(n.attribute("alpha", 0.2) * v[0] + n.attribute("beta", 0.5), 0, 1),
    "HardSwish": lambda n, v: v[0] * np.clip(v[0] / 6 + 0.5, 0, 1),
    "Mish": lambda n, v: v[0] * np.tanh(np.logaddexp(v[0], 0)),
    "Gelu": lambda n, v: _gelu(v[0], n.text("approximate", "none") == "tanh"),
    "com.microsoft::Gelu": lambda n, v: _gelu(v[0], False),
    "com.microsoft::FastGelu": lambda n, v: _gelu(v[0], True),
    "com.microsoft::QuickGelu": lambda n, v: v[0] * _sigmoid(n.attribute("alpha", 1.702) * v[0]),
    "Swish": lambda n, v: v[0] * _sigmoid(n.attribute("alpha", 1.0) * v[0]),
    "Sigmoid": lambda n, v: _sigmoid(v[0]),
    "Tanh": lambda n, v: np.tanh(v[0]),
    "Erf": lambda n, v: _erf(v[0]),
    "Softplus": lambda n, v: np.logaddexp(v[0], 0),
    "Softsign": lambda n, v: v[0] / (1 + np.abs(v[0])),
    "Exp": lambda n, v: np.exp(v[0]),
    "Log": lambda n, v: np.log(v[0]),
    "Sqrt": lambda n, v: np.sqrt(v[0]),
    "Reciprocal": lambda n, v: 1 / v[0],
    "Abs": lambda n, v: np.abs(v[0]),
    "Sign": lambda n, v: np.sign(v[0]),
    "Sin": lambda n, v: np.sin(v[0]),
    "Cos": lambda n, v: np.cos(v[0]),
    "Clip": lambda n, v: np.clip(
        v[0],
        v[1] if len(v) > 1 else n.attribute("min", -np.inf),
        v[2] if len(v) > 2 else n.attribute("max", np.inf),
    ),
    "Not": lambda n, v: 1.0 - v[0],
}

_NARY: dict[str, Evaluator] = {
    "Max": lambda n, v: np.max(np.broadcast_arrays(*v), axis=0),
    "Min": lambda n, v: np.min(np.broadcast_arrays(*v), axis=0),
    "Pow": lambda n, v: np.power(v[0], v[1]),
    "Where": lambda n, v: np.where(v[0] != 0, v[1], v[2]),
    "Greater": lambda n, v: (v[0] > v[1]).astype(float),
    "GreaterOrEqual": lambda n, v: (v[0] >= v[1]).astype(float),
    "Less": lambda n, v: (v[0] < v[1]).astype(float),
    "LessOrEqual": lambda n, v: (v[0] <= v[1]).astype(float),
}

_AFFINE: dict[str, Evaluator] = {
    "Add": lambda n, v: v[0] + v[1],
    "Sub": lambda n, v: v[0] - v[1],
    "Mul": lambda n, v: v[0] * v[1],
    "Div": lambda n, v: v[0] / v[1],
    "Neg": lambda n, v: -v[0],
    "Identity": lambda n, v: v[0],
    "Cast": lambda n, v: v[0],
    "CastLike": lambda n, v: v[0],
}

_ALL = {**_UNARY, **_NARY, **_AFFINE}


def _gelu(x: Array, tanh: bool) -> Array:
    if tanh:
        return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + _erf(x / np.sqrt(2))))


class Regions:
    """All non-linearities of a graph, found once; ``taken`` nodes (decomposed norms) are left alone."""

    def __init__(self, graph: Graph, constants: Constants, taken: frozenset[int]) -> None:
        self._graph = graph
        self._constants = constants
        self._taken = set(taken)
        self.starting: dict[str, list[Region]] = {}
        """By the value they read; a value may be read by the same non-linearity in several places."""
        self.ending: dict[str, Region] = {}
        starts = [value.name for value in graph.inputs]
        starts += [value for node in graph.nodes for value in node.outputs if value in graph.live]
        nameless = [start for start in starts if not self._claim(start, nameless_too=False)]
        for start in nameless:  # relu(2 x) is a factor and a ReLU rather than something unknown
            self._claim(start, nameless_too=True)

    def _claim(self, start: str, nameless_too: bool) -> bool:
        """Whether the matter is settled: all regions that start there were found, or there is none."""
        for _ in range(MAX_USES):
            region = self._found(start)
            if region is None:
                return True
            if not nameless_too and region.name == "elementwise" and not self._forks(region):
                return False
            self.starting.setdefault(start, []).append(region)
            self.ending[region.end] = region
            self._taken |= region.nodes
        return True

    def _forks(self, region: Region) -> bool:
        """x * sigmoid(1.5 x): the pieces after the fork mean nothing by themselves."""
        users = {user.index for user, _ in self._graph.readers(region.start)}
        return len(users & region.nodes) > 1

    def _found(self, start: str) -> Region | None:
        """The longest closed region with a known function (ReLU and Min are ReLU6), else the smallest unknown one."""
        order = self._grown(start, _FIRST_TRY)
        region = self._choose(start, order)
        if len(order) == _FIRST_TRY and (region is None or region.name == "elementwise"):  # there may be more
            region = self._choose(start, self._grown(start, MAX_REGION))
        return region

    def _grown(self, start: str, limit: int) -> list[Node]:
        """The element-wise nodes behind ``start``, the nearest ones first found, in their order in the graph."""
        members: dict[str, Node | None] = {start: None}
        order: list[Node] = []
        frontier = [start]
        while frontier and len(order) < limit:
            for user in self._elementwise_users(frontier.pop(0), members)[: limit - len(order)]:
                members[user.outputs[0]] = user
                order.append(user)
                frontier.append(user.outputs[0])
        order.sort(key=lambda node: node.index)
        return order

    @staticmethod
    def _is_square(node: Node) -> bool:
        return node.op == "Mul" and node.input(0) == node.input(1)

    def _elementwise_users(self, value: str, members: dict[str, Node | None]) -> list[Node]:
        users = []
        for user, _ in self._graph.readers(value):
            if user.op not in _ALL or user.index in self._taken or user.outputs[0] in members:
                continue
            if all(not v or v in members or self._constants.scalar(v) is not None for v in self._data_inputs(user)):
                users.append(user)
        return users

    @staticmethod
    def _data_inputs(node: Node) -> tuple[str, ...]:
        return node.inputs[:1] if node.op == "CastLike" else node.inputs

    def _choose(self, start: str, order: list[Node]) -> Region | None:
        if not any(node.op in _UNARY or node.op in _NARY or self._is_square(node) for node in order):
            return None
        values: dict[str, Any] = {start: _GRID}
        best: Region | None = None
        for end_node in order:
            end = end_node.outputs[0]
            values[end] = self.evaluate(end_node, values)
            if values[end] is None or _is_affine(values[end]):
                continue
            needed = self._needed(start, end, order)
            if not self._closed(start, end, needed):
                continue
            region = Region(_named(values[end], needed), start, end, frozenset(node.index for node in needed))
            if best is None or region.name != "elementwise" or self._reunites(best, region):
                best = region
        return best

    def _reunites(self, inner: Region, outer: Region) -> bool:
        """What ``inner`` made of the start meets the start again in ``outer``: x + sin(x)^2 is no sine."""
        outside = outer.nodes - inner.nodes
        return inner.nodes < outer.nodes and any(user.index in outside for user, _ in self._graph.readers(inner.start))

    @staticmethod
    def _needed(start: str, end: str, order: list[Node]) -> list[Node]:
        producers = {node.outputs[0]: node for node in order}
        needed: dict[int, Node] = {}
        pending = [end]
        while pending:
            node = producers.get(pending.pop())
            if node is not None and node.index not in needed:
                needed[node.index] = node
                pending.extend(value for value in node.inputs if value != start)
        return list(needed.values())

    def _closed(self, start: str, end: str, needed: list[Node]) -> bool:
        """Nobody outside reads an intermediate value, and nothing reunites the end with the start's other branches."""
        inside = {node.index for node in needed}
        for node in needed:
            value = node.outputs[0]
            if value == end:
                continue
            if value in self._graph.outputs:
                return False
            if any(user.index not in inside for user, _ in self._graph.readers(value)):
                return False
        return not any(
            start in user.inputs and end in user.inputs and user.op in _ALL for user, _ in self._graph.readers(end)
        )

    def evaluate(self, node: Node, values: dict[str, Any], shape: tuple[int, ...] = _GRID.shape) -> Any:
        """The output of ``node`` on a grid; None where it, or what it reads, cannot be computed."""
        operands = []
        for value in self._data_inputs(node):
            if value and value not in values:
                operands.append(np.asarray(self._constants.scalar(value), dtype=float))
            elif value:
                operands.append(values[value])
        if any(operand is None for operand in operands):
            return None
        try:
            with np.errstate(all="ignore"):
                return np.broadcast_to(_ALL[node.op](node, operands), shape).astype(float)
        except (IndexError, TypeError, ValueError):
            return None


_JUMPS = frozenset({"Sign", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where"})


def _named(values: Array, nodes: list[Node]) -> str:
    """As ``name_of``; tanh(1000 x) jumps between two points of the grid only."""
    name = name_of(values)
    return "elementwise" if name == "sign" and not any(node.op in _JUMPS for node in nodes) else name


def _is_affine(values: Array) -> bool:
    if not np.isfinite(values).all():
        return False
    second = np.diff(values, 2)
    return bool(np.abs(second).max() <= 1e-6 * max(1.0, np.abs(values).max()))


def name_of(values: Array) -> str:
    """The activation whose values on the grid these are, "elementwise" where nobody has named it."""
    if not np.isfinite(values).all():
        return "exp" if np.allclose(values, np.exp(_GRID), rtol=1e-3, equal_nan=True) else "elementwise"
    for name, reference in _references().items():
        if np.abs(values - reference).max() <= _TOLERANCE:
            return name
    return _parametric(values)


_reference_cache: dict[str, Array] = {}


def _references() -> dict[str, Array]:
    if not _reference_cache:
        skip = {"identity", "prelu", "softmax", "log-softmax", "elementwise", "leaky-relu"}
        for name, activation in activations.TABLE.items():
            if name not in skip:
                _reference_cache[name] = np.array([activation(float(z)) for z in _GRID])
    return _reference_cache


def _parametric(values: Array) -> str:
    """Families with a free number: leaky ReLU by its slope, ELU by its alpha, hard-sigmoid by its steepness."""
    positive, negative = _GRID > 0, _GRID < 0
    if np.abs(values[positive] - _GRID[positive]).max() <= _TOLERANCE:
        slopes = values[negative] / _GRID[negative]
        if np.ptp(slopes) <= _TOLERANCE:
            return "leaky-relu"
        alphas = values[negative] / np.expm1(_GRID[negative])
        if np.ptp(alphas) <= 1e-2:
            return "elu"
        return "elementwise"
    if values.min() >= -_TOLERANCE and values.max() <= 1 + _TOLERANCE:
        inner = (values > 0.01) & (values < 0.99)
        if (
            inner.sum() > 3
            and np.abs(np.diff(values[inner], 2)).max() <= _TOLERANCE
            and values[0] < 0.01
            and values[-1] > 0.99
        ):
            return "hard-sigmoid"
    return "elementwise"
