"""Weighted operations of an ONNX graph: which node computes what with which stored tensor, in which layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np
from onnx import TensorProto

from ..model import Kind, NotChecked, Role, View
from .constants import Array, Constants, is_weight_dtype
from .graph import Graph, Node
from .norms import NormSite

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)

Layout = Callable[[Array], Array]


def _same(array: Array) -> Array:
    return array


@dataclass(frozen=True)
class Stored:
    """One tensor of a layer: the value that holds it and how its stored array becomes PyTorch's.

    ``canonical`` turns the PyTorch array into rows (groups * units, fan_in).
    """

    value: str
    role: Role
    shape: tuple[int, ...]
    view: View
    to_torch: Layout = _same
    from_torch: Layout = _same
    parts: tuple[str, ...] = ()
    suffix: str = ""
    """Name of the parameter in PyTorch where the role alone does not give it ("weight_ih_l0_reverse")."""
    fixed: bool = False
    """Not trained: running statistics."""

    def canonical(self, array: Array) -> Array:
        """Rows (groups * units, fan_in) of an array in PyTorch's order."""
        return array.reshape(self.view.groups * self.view.units, self.view.fan_in)


@dataclass(frozen=True)
class StoredTransposedConv(Stored):
    """A transposed convolution stores (in, out / groups, *kernel): units are the second axis."""

    def canonical(self, array: Array) -> Array:
        groups, units, fan_in = self.view.groups, self.view.units, self.view.fan_in
        split = array.reshape(groups, array.shape[0] // groups, units, -1)
        return split.transpose(0, 2, 1, 3).reshape(groups * units, fan_in)


@dataclass(frozen=True)
class Operation:
    """One weighted operation before it has a name."""

    kind: Kind
    node: Node
    inputs: tuple[str, ...]
    """Values that carry data into it."""
    output: str
    """Value after the bias."""
    unit_axis: int
    weight: Stored
    bias: Stored | None = None
    recurrent: Stored | None = None
    recurrent_bias: Stored | None = None
    others: tuple[Stored, ...] = ()
    fan_in: int | None = None
    fan_out: int | None = None
    absorbed: frozenset[int] = frozenset()
    segment: str = ""
    fused: str = ""
    """Name of a non-linearity that the operator applies itself."""
    is_attention: bool = False
    outputs: tuple[str, ...] = field(default=())
    """Every value it produces, ``output`` included."""


class Finder:
    """Finds the weighted operations of a graph; what it cannot judge lands in ``not_checked``."""

    def __init__(self, graph: Graph, constants: Constants, norms: list[NormSite]) -> None:
        self._graph = graph
        self._constants = constants
        self._norms = norms
        self.not_checked: list[NotChecked] = []

    def operations(self) -> list[Operation]:
        """In execution order."""
        found: list[Operation] = []
        absorbed = {index for site in self._norms for index in site.absorbed}
        for site in self._norms:
            found += self._norm(site)
        for node in self._graph.nodes:
            if node.index not in absorbed:
                handler = _HANDLERS.get(node.op)
                if handler is not None:
                    found += handler(self, node)
        used = {root for op in found for root in self._roots_of(op)}
        for node in self._graph.nodes:
            if node.op == "Gather" and node.index not in absorbed:
                found += self._table(node, used)
        return sorted(found, key=lambda op: op.node.index)

    def _roots_of(self, op: Operation) -> Iterator[str]:
        for stored in (op.weight, op.bias, op.recurrent, op.recurrent_bias, *op.others):
            if stored is not None:
                yield from self._constants.roots(stored.value)

    def _live(self, name: str) -> bool:
        return name in self._graph.live

    def _weight(self, name: str) -> Array | None:
        """The constant's array if it can be a weight: numbers, not indices."""
        if not name or not self._constants.known(name):
            return None
        array = self._constants.array(name)
        if array is None:
            for root in self._constants.roots(name):
                self.not_checked.append(NotChecked(root, f"initlint cannot work out how it becomes {name!r}"))
            return None
        return array if is_weight_dtype(array.dtype) else None

    def _vector(self, name: str, role: Role, size: int, suffix: str = "", fixed: bool = False) -> Stored | None:
        array = self._weight(name)
        if array is None or array.size != size or (role is Role.BIAS and self._is_filler(name)):
            return None
        shape = array.shape
        return Stored(
            name,
            role,
            (size,),
            View(1, size, 1),
            lambda a: a.reshape(-1),
            lambda a: a.reshape(shape),
            suffix=suffix,
            fixed=fixed,
        )

    def _is_filler(self, name: str) -> bool:
        """Zeros that an exporter computes where the module has no bias; where weights are computed too, biases count."""
        computed = all(root in self._graph.producer for root in self._constants.roots(name))
        return computed and bool(self._graph.initializers) and self._stores_weights

    @cached_property
    def _stores_weights(self) -> bool:
        return any(
            len(tensor.dims) > 1 and tensor.data_type in _FLOATS for tensor in self._graph.initializers.values()
        )

    # -- linear maps ---------------------------------------------------------------------------------------------

    def _conv(self, node: Node) -> Iterator[Operation]:
        array = self._weight(node.input(1))
        if array is None or array.ndim < 3 or not self._live(node.input(0)):
            return
        groups = int(node.attribute("group", 1))
        out, kernel = array.shape[0], prod(array.shape[2:])
        if out % max(groups, 1):
            return
        fan_in = array.shape[1] * kernel
        weight = Stored(node.input(1), Role.WEIGHT, array.shape, View(groups, out // groups, fan_in))
        bias = self._vector(node.input(2), Role.BIAS, out)
        yield self._with_bias(node, node.input(0), Kind.CONV, weight, bias, 1, fan_in, out // groups * kernel)

    def _conv_transpose(self, node: Node) -> Iterator[Operation]:
        array = self._weight(node.input(1))
        if array is None or array.ndim < 3 or not self._live(node.input(0)):
            return
        groups = int(node.attribute("group", 1))
        inputs, units, kernel = array.shape[0], array.shape[1], prod(array.shape[2:])
        strides = prod(node.attribute("strides") or [1] * (array.ndim - 2))
        if groups < 1 or inputs % groups:
            return
        view = View(groups, units, inputs // groups * kernel)
        weight = StoredTransposedConv(node.input(1), Role.WEIGHT, array.shape, view)
        bias = self._vector(node.input(2), Role.BIAS, units * groups)
        fan_in = max(1, round(inputs // groups * kernel / strides))
        yield self._with_bias(node, node.input(0), Kind.CONV_TRANSPOSE, weight, bias, 1, fan_in, units * kernel)

    def _gemm(self, node: Node) -> Iterator[Operation]:
        alpha = float(node.attribute("alpha", 1.0))
        left, right = node.input(0), node.input(1)
        if self._live(left):
            yield from self._linear(node, left, right, bool(node.attribute("transB", 0)), node.input(2), alpha)
        elif self._live(right):
            yield from self._linear(node, right, left, not node.attribute("transA", 0), node.input(2), alpha, axis=0)

    def _matmul(self, node: Node) -> Iterator[Operation]:
        left, right = node.input(0), node.input(1)
        transposed = bool(node.attribute("transB", 0)) if node.op.endswith("FusedMatMul") else False
        alpha = float(node.attribute("alpha", 1.0)) if node.op.endswith("FusedMatMul") else 1.0
        if self._live(left) and not self._live(right):
            yield from self._linear(node, left, right, transposed, "", alpha)
        elif self._live(right) and not self._live(left):
            yield from self._linear(node, right, left, True, "", alpha, axis=-2)

    def _linear(
        self, node: Node, source: str, value: str, out_first: bool, bias: str, alpha: float, axis: int = -1
    ) -> Iterator[Operation]:
        """A product with a constant matrix; ``out_first`` if it is stored as (out, in). Leading axes are groups."""
        array = self._weight(value)
        if array is None or array.ndim < 1 or array.size == 0:
            return
        if array.ndim == 1:
            array, column = array.reshape(1, -1) if out_first else array.reshape(-1, 1), True
        else:
            column = False
        stored_shape = self._constants.array(value).shape if column else array.shape  # type: ignore[union-attr]
        groups = prod(array.shape[:-2])
        out, fan_in = (array.shape[-2], array.shape[-1]) if out_first else (array.shape[-1], array.shape[-2])
        shape = (*array.shape[:-2], out, fan_in) if groups > 1 else (out, fan_in)

        def to_torch(a: Array) -> Array:
            a = a.reshape(array.shape)
            a = a if out_first else np.swapaxes(a, -1, -2)
            a = a.reshape(shape) if groups == 1 else a
            return a if alpha == 1.0 else a * np.float32(alpha)

        def from_torch(a: Array) -> Array:
            a = a if alpha == 1.0 else a / np.float32(alpha)
            a = a if out_first else np.swapaxes(a, -1, -2)
            return a.reshape(stored_shape)

        weight = Stored(value, Role.WEIGHT, shape, View(groups, out, fan_in), to_torch, from_torch)
        vector = self._vector(bias, Role.BIAS, out) if bias else None
        yield self._with_bias(node, source, Kind.LINEAR, weight, vector, axis, fan_in, out)

    def _einsum(self, node: Node) -> Iterator[Operation]:
        if len(node.inputs) != 2:
            return
        constant = [i for i, value in enumerate(node.inputs) if not self._live(value)]
        if len(constant) != 1:
            return
        which = constant[0]
        terms, output = _equation(node.text("equation", ""))
        array = self._weight(node.inputs[which])
        if array is None or len(terms) != 2 or len(terms[which]) != array.ndim or "." in terms[which]:
            if array is not None and array.ndim > 1:
                self.not_checked.append(NotChecked(node.inputs[which], f"Einsum {node.text('equation', '')!r}"))
            return
        mine, other = terms[which], terms[1 - which]
        batch = [c for c in mine if c in other and c in output]
        units = [c for c in mine if c not in other and c in output]
        summed = [c for c in mine if c not in output]
        sizes = dict(zip(mine, array.shape, strict=True))
        groups, out, fan_in = (prod(sizes[c] for c in part) for part in (batch, units, summed))
        order = [mine.index(c) for c in (*batch, *units, *summed)]
        shape = tuple(array.shape[i] for i in order) if groups > 1 else (out, fan_in)
        back = tuple(int(i) for i in np.argsort(order))
        permuted = tuple(array.shape[i] for i in order)
        weight = Stored(
            node.inputs[which],
            Role.WEIGHT,
            shape,
            View(groups, out, fan_in),
            lambda a: a.transpose(order).reshape(shape),
            lambda a: a.reshape(permuted).transpose(back),
        )
        axis = output.index(units[-1]) - len(output) if units else -1
        yield self._with_bias(node, node.inputs[1 - which], Kind.LINEAR, weight, None, axis, fan_in, out)

    def _quantized(self, node: Node) -> Iterator[Operation]:
        """QLinearConv and QLinearMatMul hold integer weights with a scale; the scale is applied here."""
        array = self._weight(node.input(3))
        scale = self._constants.array(node.input(4))
        if array is None or scale is None or not self._live(node.input(0)):
            return
        zero = self._constants.array(node.input(5))
        convolution = node.op == "QLinearConv"
        axis_shape = (-1, *[1] * (array.ndim - 1)) if convolution else (1, -1)

        def dequantize(a: Array) -> Array:
            s = scale.reshape(axis_shape) if scale.size > 1 else scale.reshape(())
            z = 0.0 if zero is None else zero.astype(np.float32).reshape(axis_shape if zero.size > 1 else ())
            return np.asarray((a.astype(np.float32) - z) * s)

        if convolution:
            groups, out = int(node.attribute("group", 1)), array.shape[0]
            fan_in = prod(array.shape[1:])
            weight = Stored(node.input(3), Role.WEIGHT, array.shape, View(groups, out // groups, fan_in), dequantize)
            fan_out = out // groups * prod(array.shape[2:])
            yield self._with_bias(node, node.input(0), Kind.CONV, weight, None, 1, fan_in, fan_out)
        elif array.ndim == 2:
            fan_in, out = array.shape
            weight = Stored(
                node.input(3), Role.WEIGHT, (out, fan_in), View(1, out, fan_in), lambda a: dequantize(a).swapaxes(0, 1)
            )
            yield self._with_bias(node, node.input(0), Kind.LINEAR, weight, None, -1, fan_in, out)

    def _attention(self, node: Node) -> Iterator[Operation]:
        """com.microsoft::Attention projects its input by a packed (in, 3 * width) matrix."""
        array = self._weight(node.input(1))
        if array is None or array.ndim != 2 or not self._live(node.input(0)):
            return
        fan_in, out = array.shape
        parts = ("q", "k", "v") if out % 3 == 0 and not node.attribute("qkv_hidden_sizes") else ()
        weight = Stored(
            node.input(1),
            Role.WEIGHT,
            (out, fan_in),
            View(1, out, fan_in),
            lambda a: a.swapaxes(0, 1),
            lambda a: a.swapaxes(0, 1),
            parts,
        )
        bias = self._vector(node.input(2), Role.BIAS, out)
        yield Operation(
            Kind.LINEAR,
            node,
            (node.input(0),),
            node.outputs[0],
            -1,
            weight,
            bias,
            fan_in=fan_in,
            fan_out=out // max(len(parts), 1),
            is_attention=True,
            outputs=node.outputs,
        )

    def _with_bias(
        self,
        node: Node,
        source: str,
        kind: Kind,
        weight: Stored,
        bias: Stored | None,
        axis: int,
        fan_in: int,
        fan_out: int,
    ) -> Operation:
        """Absorb the constant vector that a following Add brings, as exporters write a linear layer's bias."""
        output, absorbed = node.outputs[0], frozenset[int]()
        out = weight.view.groups * weight.view.units
        users = self._graph.readers(output)
        if bias is None and len(users) == 1 and output not in self._graph.outputs:
            adder, position = users[0]
            if adder.op in ("Add", "com.microsoft::BiasGelu", "com.microsoft::FastGelu") and len(adder.inputs) == 2:
                other = adder.inputs[1 - position]
                array = self._weight(other) if self._constants.known(other) else None
                if array is not None and array.size == out > 0 and _along(array.shape, axis, weight, kind):
                    bias = self._vector(other, Role.BIAS, out)
                    if adder.op == "Add":
                        output, absorbed = adder.outputs[0], frozenset({adder.index})
        fused = node.text("activation", "") if node.op.startswith("com.microsoft::Fused") else ""
        return Operation(
            kind,
            node,
            (source,),
            output,
            axis,
            weight,
            bias,
            fan_in=fan_in,
            fan_out=fan_out,
            absorbed=absorbed,
            fused=fused.lower(),
            outputs=(output,),
        )

    # -- recurrences, tables, norms ------------------------------------------------------------------------------

    def _recurrence(self, node: Node) -> Iterator[Operation]:
        kind, parts, order = _GATES[node.op]
        weight, recurrent = self._weight(node.input(1)), self._weight(node.input(2))
        if weight is None or recurrent is None or weight.ndim != 3 or recurrent.ndim != 3:
            return
        bias = self._weight(node.input(3)) if node.input(3) else None
        gates, hidden = len(parts) or 1, recurrent.shape[-1]
        rows = gates * hidden
        if weight.shape[1] != rows or recurrent.shape[1] != rows:
            return
        for direction in range(weight.shape[0]):
            reverse = direction == 1 or node.text("direction", "forward") == "reverse"
            tail = "_reverse" if reverse else ""
            cut = _GateOrder(direction, order, hidden)
            common = {"parts": parts, "to_torch": cut.to_torch}
            w = Stored(
                node.input(1),
                Role.WEIGHT,
                (rows, weight.shape[2]),
                View(1, rows, weight.shape[2]),
                suffix=f"weight_ih_l{{}}{tail}",
                **common,  # type: ignore[arg-type]
            )
            r = Stored(
                node.input(2),
                Role.RECURRENT_WEIGHT,
                (rows, hidden),
                View(1, rows, hidden),
                suffix=f"weight_hh_l{{}}{tail}",
                **common,  # type: ignore[arg-type]
            )
            halves: list[Stored | None] = [None, None]
            if bias is not None and bias.shape[-1] == 2 * rows:
                for half, name in enumerate(("bias_ih", "bias_hh")):
                    halves[half] = Stored(
                        node.input(3),
                        Role.BIAS if half == 0 else Role.RECURRENT_BIAS,
                        (rows,),
                        View(1, rows, 1),
                        cut.half(half, rows),
                        parts=parts,
                        suffix=f"{name}_l{{}}{tail}",
                    )
            yield Operation(
                kind,
                node,
                (node.input(0),),
                node.outputs[0] or next(v for v in node.outputs if v),
                -1,
                w,
                halves[0],
                r,
                halves[1],
                fan_in=weight.shape[2],
                fan_out=hidden,
                segment="reverse" if reverse else "forward",
                outputs=tuple(v for v in node.outputs if v),
            )

    def _table(self, node: Node, used: set[str]) -> Iterator[Operation]:
        """A float matrix looked up by rows: an embedding, positions included, unless a weight was cut out of it."""
        name = node.input(0)
        if not self._constants.known(name) or int(node.attribute("axis", 0)) != 0:
            return
        array = self._weight(name)
        if array is None or array.ndim != 2 or min(array.shape) < 1:
            return
        indices = self._constants.array(node.input(1))
        if indices is not None and (indices.ndim == 0 or set(self._constants.roots(node.outputs[0])) & used):
            return
        rows, width = array.shape
        weight = Stored(name, Role.TABLE, (rows, width), View(1, rows, width))
        source = (node.input(1),) if self._live(node.input(1)) else ()
        yield Operation(
            Kind.EMBEDDING, node, source, node.outputs[0], -1, weight, fan_out=width, outputs=(node.outputs[0],)
        )

    def _prelu(self, node: Node) -> Iterator[Operation]:
        array = self._weight(node.input(1))
        if array is None or not self._live(node.input(0)):
            return
        slope = self._vector(node.input(1), Role.SLOPE, array.size)
        if slope is not None:
            yield Operation(
                Kind.PRELU, node, (node.input(0),), node.outputs[0], 1, slope, outputs=(node.outputs[0],)
            )

    def _norm(self, site: NormSite) -> Iterator[Operation]:
        array = self._weight(site.gain) if site.gain else None
        if array is None:
            return
        size = array.size
        gain = self._vector(site.gain, Role.GAIN, size)
        shift = self._vector(site.shift, Role.SHIFT, size) if site.shift else None
        others = [
            stored
            for name, role, suffix in (
                (site.mean, Role.RUNNING_MEAN, "running_mean"),
                (site.variance, Role.RUNNING_VARIANCE, "running_var"),
            )
            if name and (stored := self._vector(name, role, size, suffix, fixed=True)) is not None
        ]
        last = site.kind in (Kind.LAYER_NORM, Kind.RMS_NORM)
        if gain is not None:
            yield Operation(
                site.kind,
                site.node,
                (site.source,),
                site.value,
                -1 if last else 1,
                gain,
                shift,
                others=tuple(others),
                absorbed=site.absorbed,
                outputs=(site.value,),
            )


@dataclass(frozen=True)
class _GateOrder:
    """ONNX packs gates per direction in its own order; PyTorch's order is the canonical one."""

    direction: int
    order: tuple[int, ...]
    """Position in ONNX of each PyTorch gate."""
    hidden: int

    def to_torch(self, array: Array) -> Array:
        one = array[self.direction]
        gates = one.reshape(-1, self.hidden, *one.shape[1:])
        return gates[list(self.order)].reshape(one.shape)

    def half(self, which: int, rows: int) -> Layout:
        def cut(array: Array) -> Array:
            one = array[self.direction].reshape(2, rows)[which]
            return one.reshape(-1, self.hidden)[list(self.order)].reshape(-1)

        return cut


_GATES: dict[str, tuple[Kind, tuple[str, ...], tuple[int, ...]]] = {
    "LSTM": (Kind.LSTM, ("i", "f", "g", "o"), (0, 2, 3, 1)),
    "GRU": (Kind.GRU, ("r", "z", "n"), (1, 0, 2)),
    "RNN": (Kind.RNN, (), (0,)),
}
"""PyTorch packs i,f,g,o and r,z,n; ONNX i,o,f,c and z,r,h."""


def _equation(text: str) -> tuple[list[str], str]:
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        letters = "".join(terms)
        right = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return terms, right


def _along(shape: tuple[int, ...], axis: int, weight: Stored, kind: Kind) -> bool:
    """Whether a constant of ``shape`` that is added varies along the units only."""
    long = [i for i, size in enumerate(shape) if size > 1]
    if not long:
        return weight.view.groups * weight.view.units == 1 and len(shape) <= 1
    if weight.view.groups > 1 and kind is Kind.LINEAR:
        return False
    if kind is not Kind.LINEAR:  # (C, 1, 1) or (1, C, 1, 1)
        spatial = len(weight.shape) - 2
        return len(long) == 1 and len(shape) - 1 - long[0] == spatial
    position = long[0] - len(shape)
    return len(long) == 1 and (position == axis or (axis == 0 and position == -2))


_HANDLERS: dict[str, Callable[[Finder, Node], Iterator[Operation]]] = {
    "Conv": Finder._conv,
    "com.microsoft::FusedConv": Finder._conv,
    "ConvTranspose": Finder._conv_transpose,
    "Gemm": Finder._gemm,
    "com.microsoft::FusedGemm": Finder._gemm,
    "MatMul": Finder._matmul,
    "com.microsoft::FusedMatMul": Finder._matmul,
    "Einsum": Finder._einsum,
    "QLinearConv": Finder._quantized,
    "QLinearMatMul": Finder._quantized,
    "com.microsoft::Attention": Finder._attention,
    "LSTM": Finder._recurrence,
    "GRU": Finder._recurrence,
    "RNN": Finder._recurrence,
    "PRelu": Finder._prelu,
}
