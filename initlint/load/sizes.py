"""Sizes of values as far as a graph tells them: what a reshape or a slice that computes its operands comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from .constants import Constants
from .graph import Graph, Node

Numbers = NDArray[np.float64]
"""Integers, NaN where one is not known beforehand."""

Sizes = tuple[int, ...]
"""The shape of a value; 0 where a size is not known."""

_ARITHMETIC: dict[str, Callable[[Numbers, Numbers], Numbers]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": lambda one, other: np.trunc(one / other),
    "Mod": np.mod,
}
KEEPING = frozenset(
    {
        "Identity", "Cast", "CastLike", "Dropout", "Clip", "Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal",
        "Erf", "Sign", "Relu", "LeakyRelu", "ThresholdedRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu",
        "Swish", "Mish", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Sin", "Cos", "Softplus", "Softsign",
        "Round", "Floor", "Ceil", "Not", "IsNaN", "IsInf", "Softmax", "LogSoftmax", "Hardmax",
        "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "BatchNormalization",
        "InstanceNormalization", "GroupNormalization", "LpNormalization", "MeanVarianceNormalization", "LRN",
        "CumSum", "Trilu", "ScatterND", "ScatterElements", "QuantizeLinear", "DequantizeLinear",
        "RotaryEmbedding", "com.microsoft::RotaryEmbedding", "com.microsoft::Gelu", "com.microsoft::FastGelu",
        "com.microsoft::BiasGelu", "com.microsoft::QuickGelu", "com.microsoft::SkipLayerNormalization",
        "com.microsoft::SkipSimplifiedLayerNormalization",
    }
)  # fmt: skip
"""Operators whose result has their first input's shape."""
BROADCASTING = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Sum", "Mean", "Where", "Equal", "Greater", "Less",
        "GreaterOrEqual", "LessOrEqual", "And", "Or", "Xor",
    }
)  # fmt: skip
_KEEPING_AXES = frozenset(
    {
        "Slice", "Split", "Pad", "Concat", "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool",
        "GlobalMaxPool", "Resize", "Tile", "DepthToSpace", "SpaceToDepth", "Attention",
        "com.microsoft::MultiHeadAttention", "com.microsoft::GroupQueryAttention",
    }
)  # fmt: skip
"""Operators whose result has as many axes as their first input."""
_UNCHANGED = frozenset({"Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape"})
_OF_INTEGERS = _UNCHANGED | _ARITHMETIC.keys() | {"Concat", "Gather", "Slice"}
_LONGEST = 64
"""Integers of one value; no tensor that NumPy holds has more axes."""
_ALONG: tuple[Numbers, ...] = (np.empty(0), np.empty(0), np.zeros(1), np.ones(1))
"""Of a slice of a list: start and end, which have to be given, axis and step."""


class SizeReader:
    """Sizes of the values of one graph; nodes are shown to it in order."""

    def __init__(self, graph: Graph, constants: Constants) -> None:
        self._graph, self._constants = graph, constants
        self.known: dict[str, Sizes] = dict(graph.sizes)
        self._numbers: dict[str, Numbers] = {}

    def of(self, value: str) -> Sizes | None:
        """None where not even the number of axes is known."""
        if value not in self.known and (spec := self._constants.spec(value)) is not None:
            return tuple(spec.shape)
        return self.known.get(value)

    def see(self, node: Node) -> None:
        """Note what can be told of the results of ``node``."""
        numbers = self._computed(node)
        if numbers is not None and numbers.size <= _LONGEST and len(node.outputs) == 1:
            self._numbers[node.outputs[0]] = numbers
        if all(value in self.known for value in node.outputs if value):
            return
        sizes = self._result(node)
        if sizes is not None:
            for value in node.outputs if node.op == "Split" else node.outputs[:1]:
                self.known.setdefault(value, sizes)

    def _result(self, node: Node) -> Sizes | None:
        first = self.of(node.input(0))
        if node.op == "Reshape":
            return self.target(node)
        if node.op in ("Gemm", "Flatten"):
            return (0, 0)
        if node.op in BROADCASTING:
            return _broadcast([self.of(value) for value in node.inputs if value])
        if node.op == "Einsum":
            return _of_equation(node, [self.of(value) for value in node.inputs])
        if first is None:
            return None
        if node.op in KEEPING:
            return first
        if node.op in ("MatMul", "com.microsoft::FusedMatMul"):
            return _of_product(node, first, self.of(node.input(1)))
        if node.op in ("Transpose", "Unsqueeze", "Squeeze"):
            return self._moved(node, first)
        if node.op == "Gather":
            indices = self.of(node.input(1))
            axis = node.integer("axis", 0)
            return None if indices is None else (*first[:axis], *indices, *first[axis:][1:])
        reduces = node.op.startswith("Reduce") and node.integer("keepdims", 1)
        return (0,) * len(first) if reduces or node.op in _KEEPING_AXES else None

    def _moved(self, node: Node, sizes: Sizes) -> Sizes | None:
        if node.op == "Transpose":
            order = node.integers("perm") or tuple(range(len(sizes)))[::-1]
            return tuple(sizes[axis] for axis in order) if sorted(order) == list(range(len(sizes))) else None
        axes = self.axes(node)
        if not axes or (not sizes and node.op == "Squeeze"):
            return None
        if node.op == "Squeeze":
            gone = {axis % len(sizes) for axis in axes}
            return tuple(size for axis, size in enumerate(sizes) if axis not in gone)
        result = list(sizes)
        for axis in sorted(axis % (len(sizes) + len(axes)) for axis in axes):
            result.insert(axis, 1)
        return tuple(result)

    def axes(self, node: Node) -> tuple[int, ...]:
        """Of Squeeze and Unsqueeze: an attribute in older files."""
        return node.integers("axes") or self._constants.ints(node.input(1)) or ()

    def target(self, node: Node) -> Sizes | None:
        """The shape that a Reshape gives."""
        if node.outputs[0] in self.known:
            return self.known[node.outputs[0]]
        numbers = self.numbers(node.input(1))
        if numbers is None or numbers.ndim != 1:
            return None
        before = self.of(node.input(0)) or ()
        wanted = [0 if np.isnan(number) else int(number) for number in numbers]
        copies = not node.integer("allowzero", 0)
        for axis, number in enumerate(numbers):
            if number == 0 and copies and axis < len(before):
                wanted[axis] = before[axis]
        rest = [size for size in wanted if size != -1]
        if len(rest) < len(wanted):
            whole = prod(before) if before and all(before) and all(rest) else 0
            wanted[wanted.index(-1)] = whole // prod(rest) if whole else 0
        return tuple(wanted) if min(wanted, default=0) >= 0 else None

    def numbers(self, value: str) -> Numbers | None:
        """The integers that ``value`` holds; None where nothing is known of them."""
        fixed = self._constants.ints(value) if value and self._constants.known(value) else None
        if fixed is None:
            return self._numbers.get(value)
        spec = self._constants.spec(value)
        return np.array(fixed, np.float64).reshape(spec.shape if spec is not None else -1)

    def _computed(self, node: Node) -> Numbers | None:
        """The integers that come out of ``node``, if they are made of shapes."""
        if node.op == "Shape":
            sizes = self.of(node.input(0))
            end = node.attribute("end")
            cut = None if sizes is None else sizes[node.integer("start", 0) : end if isinstance(end, int) else None]
            return None if cut is None else np.array([size or np.nan for size in cut], np.float64)
        if node.op not in _OF_INTEGERS or not self._graph.live.isdisjoint(node.outputs):
            return None
        given = [self.numbers(value) for value in node.inputs]
        if not given or given[0] is None:
            return None
        if node.op in _UNCHANGED:
            return given[0].reshape(-1) if node.op in ("Unsqueeze", "Reshape") else np.squeeze(given[0])
        known = [each for each in given if each is not None]
        if len(known) < sum(value != "" for value in node.inputs):
            return None
        if node.op == "Concat":
            return np.concatenate([each.reshape(-1) for each in known])
        if node.op in _ARITHMETIC and len(known) == 2:
            return _reckoned(node.op, *known)
        return _picked(node, given)


def _broadcast(given: Sequence[Sizes | None]) -> Sizes | None:
    """What an axis is beside 1 or what is not known; beside another size it is not known what that means."""
    known = [sizes for sizes in given if sizes is not None]
    if not known or len(known) < len(given):
        return None
    rank = max(map(len, known))
    columns = zip(*((1,) * (rank - len(sizes)) + sizes for sizes in known), strict=True)
    distinct = [set(column) - {1} for column in columns]
    larger = [sizes - {0} for sizes in distinct]
    return tuple(
        max(large) if len(large) == 1 else int(not sizes) for sizes, large in zip(distinct, larger, strict=True)
    )


def _of_product(node: Node, first: Sizes, other: Sizes | None) -> Sizes | None:
    if other is None or len(first) < 2 or len(other) < 2:
        return None
    if any(node.integer(name, 0) for name in ("transBatchA", "transBatchB")):
        return None
    batch = _broadcast([first[:-2], other[:-2]])
    rows, columns = first[-1 if node.integer("transA", 0) else -2], other[-2 if node.integer("transB", 0) else -1]
    return None if batch is None else (*batch, rows, columns)


def _of_equation(node: Node, given: Sequence[Sizes | None]) -> Sizes | None:
    terms, output = terms_of(node)
    if len(terms) != len(given) or "..." in node.text("equation", ""):
        return None
    told = {letter: 0 for term in terms for letter in term}
    for term, sizes in zip(terms, given, strict=True):
        if sizes is not None and len(sizes) == len(term):
            told.update((letter, size) for letter, size in zip(term, sizes, strict=True) if size)
    return tuple(told.get(letter, 0) for letter in output)


def terms_of(node: Node) -> tuple[list[str], str]:
    """Of an Einsum; an ellipsis in front is left out, elsewhere nothing is told."""
    terms, arrow, output = node.text("equation", "").replace(" ", "").partition("->")
    sides = [side.removeprefix("...") for side in (*terms.split(","), output)]
    return ([], "") if not arrow or any("." in side for side in sides) else (sides[:-1], sides[-1])


def _reckoned(op: str, one: Numbers, other: Numbers) -> Numbers | None:
    if one.shape != other.shape and 1 not in (one.size, other.size):
        return None
    with np.errstate(all="ignore"):
        result = _ARITHMETIC[op](one, other)
    return np.where(np.isfinite(result), result, np.nan)


def _picked(node: Node, given: Sequence[Numbers | None]) -> Numbers | None:
    """Entries of a list of integers; ``given`` has None where an input is left out."""
    first, *places = given
    if first is None or first.ndim != 1 or any(each is not None and np.isnan(each).any() for each in places):
        return None
    if node.op == "Gather" and len(places) == 1 and places[0] is not None:
        wanted = places[0].astype(int)
        return np.asarray(first[wanted]) if np.all((-len(first) <= wanted) & (wanted < len(first))) else None
    if node.op == "Slice" and len(places) >= 2:
        places += [None] * (4 - len(places))
        start, end, axis, step = (fallback if p is None else p for p, fallback in zip(places, _ALONG, strict=True))
        if all(each.size == 1 for each in (start, end, axis, step)) and axis.item() in (0, -1) and step.item() == 1:
            return first[int(start.item()) : int(end.item())]
    return None
