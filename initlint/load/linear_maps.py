"""Linear maps of an ONNX graph: convolutions, matrix products with a constant, Einsum, fused attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isfinite, prod

import numpy as np

from ..kinds import Kind, Role
from ..model import NotChecked, View
from .folding import Array
from .graph import Node
from .naming import is_generated
from .reader import WeightReader
from .stored import Operation, Stored, StoredTransposedConv


def _conv(reader: WeightReader, node: Node) -> Iterator[Operation]:
    array = reader.weight(node.input(1))
    if array is None or array.ndim < 3 or not reader.is_live(node.input(0)):
        return
    groups = node.integer("group", 1)
    out, kernel = array.shape[0], prod(array.shape[2:])
    if groups < 1 or out % groups:
        return
    fan_in = array.shape[1] * kernel
    weight = Stored(node.input(1), Role.WEIGHT, array.shape, View(groups, out // groups, fan_in))
    bias = reader.vector(node.input(2), Role.BIAS, out)
    yield _with_bias(reader, node, node.input(0), Kind.CONV, weight, bias, 1, fan_in, out // groups * kernel)


def _conv_transpose(reader: WeightReader, node: Node) -> Iterator[Operation]:
    array = reader.weight(node.input(1))
    if array is None or array.ndim < 3 or not reader.is_live(node.input(0)):
        return
    groups = node.integer("group", 1)
    inputs, units, kernel = array.shape[0], array.shape[1], prod(array.shape[2:])
    strides = max(1, prod(node.integers("strides")))
    if groups < 1 or inputs % groups:
        return
    view = View(groups, units, inputs // groups * kernel)
    weight = StoredTransposedConv(node.input(1), Role.WEIGHT, array.shape, view)
    bias = reader.vector(node.input(2), Role.BIAS, units * groups)
    fan_in = max(1, round(inputs // groups * kernel / strides))
    yield _with_bias(reader, node, node.input(0), Kind.CONV_TRANSPOSE, weight, bias, 1, fan_in, units * kernel)


def _gemm(reader: WeightReader, node: Node) -> Iterator[Operation]:
    alpha = node.number("alpha", 1.0)
    left, right = node.input(0), node.input(1)
    if reader.is_live(left):
        yield from _linear(reader, node, left, right, bool(node.integer("transB", 0)), node.input(2), alpha)
    elif reader.is_live(right):
        yield from _linear(reader, node, right, left, not node.integer("transA", 0), node.input(2), alpha, axis=0)


def _matmul(reader: WeightReader, node: Node) -> Iterator[Operation]:
    left, right = node.input(0), node.input(1)
    if _is_distance(reader, node):
        points = next(value for value in (right, left) if not reader.is_live(value))
        roots = [root for root in reader.constants.roots(points) if not is_generated(root)] or [points]
        reader.not_checked += [NotChecked(root, "it holds points to which distances are taken") for root in roots]
        return
    transposed = bool(node.integer("transB", 0)) if node.op.endswith("FusedMatMul") else False
    alpha = node.number("alpha", 1.0) if node.op.endswith("FusedMatMul") else 1.0
    if reader.is_live(left) and not reader.is_live(right):
        yield from _linear(reader, node, left, right, transposed, "", alpha)
    elif reader.is_live(right) and not reader.is_live(left):
        yield from _linear(reader, node, right, left, True, "", alpha, axis=-2)


def _is_distance(reader: WeightReader, node: Node) -> bool:
    """sqrt(max(0, [x, |x|^2, 1] [-2c, 1, |c|^2]^T)), as exporters write the distances of x to points c."""
    live = [maker for value in node.inputs if reader.is_live(value) and (maker := reader.graph.producer.get(value))]
    if len(live) != 1 or live[0].op != "Concat":
        return False
    value = node.outputs[0]
    for operators in (("Clip", "Max", "Relu"), ("Sqrt",)):
        readers = reader.graph.readers(value)
        if len(readers) != 1 or readers[0][0].op not in operators:
            return False
        value = readers[0][0].outputs[0]
    return True


def _linear(
    reader: WeightReader, node: Node, source: str, value: str, out_first: bool, bias: str, alpha: float, axis: int = -1
) -> Iterator[Operation]:
    """A product with a constant matrix; ``out_first`` if it is stored as (out, in). Leading axes are groups."""
    array = reader.weight(value)
    if array is None or array.ndim < 1 or array.size == 0:
        return
    if alpha == 0 or not isfinite(alpha):
        reader.not_checked.append(NotChecked(value, f"{node.op} multiplies it by {alpha}"))
        return
    if expanded := array.ndim > 2 and _is_expanded(reader, value, array.shape):
        array = array[(0,) * (array.ndim - 2)]  # one matrix for all samples
    if array.ndim == 1:
        array = array.reshape(1, -1) if out_first else array.reshape(-1, 1)
    groups = prod(array.shape[:-2])
    out, fan_in = (array.shape[-2], array.shape[-1]) if out_first else (array.shape[-1], array.shape[-2])
    shape = (*array.shape[:-2], out, fan_in) if groups > 1 else (out, fan_in)

    def to_torch(a: Array) -> Array:
        a = a[(0,) * (a.ndim - 2)] if expanded else a.reshape(array.shape)
        a = a if out_first else np.swapaxes(a, -1, -2)
        return a.reshape(shape) if groups == 1 else a

    def insert(a: Array, original: Array) -> Array:
        a = a if out_first else np.swapaxes(a, -1, -2)
        return np.broadcast_to(a, original.shape) if expanded else a.reshape(original.shape)

    weight = Stored(value, Role.WEIGHT, shape, View(groups, out, fan_in), to_torch, insert, factor=alpha)
    vector = reader.vector(bias, Role.BIAS, out) if bias and _along_units(reader, bias, out, axis) else None
    if vector is not None:
        vector = replace(vector, factor=node.number("beta", 1.0) or 1.0)
    yield _with_bias(reader, node, source, Kind.LINEAR, weight, vector, axis, fan_in, out)


def _is_expanded(reader: WeightReader, value: str, shape: tuple[int, ...]) -> bool:
    """Whether a stored matrix was expanded to the leading axes of ``shape``."""
    specs = [reader.constants.spec(root) for root in reader.constants.roots(value)]
    if len(specs) != 1 or specs[0] is None or specs[0].size != prod(shape[-2:]) or specs[0].size == prod(shape):
        return False
    array = None if reader.constants.is_computed(value) else reader.constants.array(value)
    return array is not None and array.shape == shape and not any(array.strides[:-2])


def _along_units(reader: WeightReader, bias: str, units: int, axis: int) -> bool:
    """Gemm's C is broadcast to (rows, columns); behind a weight on the left it is (units, 1)."""
    spec = reader.constants.spec(bias)
    return axis != 0 or spec is None or spec.shape == (units, 1)


def _einsum(reader: WeightReader, node: Node) -> Iterator[Operation]:
    """A linear map where one of two operands is constant: shared and kept letters are groups, its own are units."""
    equation = node.text("equation", "")
    terms, output = _equation(equation)
    constant = [i for i, value in enumerate(node.inputs) if not reader.is_live(value)]
    if len(constant) == len(node.inputs):
        return
    for which in constant:
        array = reader.weight(node.inputs[which])
        if array is None or array.ndim < 2:
            continue
        others = [term for i, term in enumerate(terms) if i != which]
        letters = _Letters.of(terms[which], others, output) if len(terms) == len(node.inputs) else None
        if len(constant) > 1 or letters is None or len(terms[which]) != array.ndim:
            reason = f"initlint does not know Einsum {equation!r} as a linear map"
            reader.not_checked.append(NotChecked(node.inputs[which], reason))
            continue
        summing = [i for i, term in enumerate(terms) if i != which and set(letters.summed) <= set(term)]
        source = node.inputs[summing[0]] if summing else node.inputs[which - 1]
        yield _einsum_map(reader, node, array, terms[which], letters, output, node.inputs[which], source)


@dataclass(frozen=True)
class _Letters:
    """The axes of a weight in an Einsum."""

    groups: str
    units: str
    summed: str

    @classmethod
    def of(cls, mine: str, others: list[str], output: str) -> _Letters | None:
        """None where the weight is not a linear map of what it is multiplied with.

        A summed letter that two other operands carry mixes experts ("bteh,ehd,bte->btd"): each of them is a group.
        So is each matrix of a stack that one input is sent through ("btd,edh->bteh").
        """
        count = {letter: sum(letter in term for term in others) for letter in mine}
        groups = "".join(c for c in mine if count[c] and (c in output or count[c] > 1))
        units = "".join(c for c in mine if not count[c] and c in output)
        summed = "".join(c for c in mine if count[c] == 1 and c not in output)
        if len(units) > 1 and mine.startswith(units[0]):
            groups, units = units[0] + groups, units[1:]
        if not mine.isalpha() or len(set(mine)) < len(mine) or len(groups + units + summed) < len(mine) or not summed:
            return None
        return cls(groups, units, summed)


def _einsum_map(
    reader: WeightReader,
    node: Node,
    array: Array,
    mine: str,
    letters: _Letters,
    output: str,
    value: str,
    source: str,
) -> Operation:
    sizes = dict(zip(mine, array.shape, strict=True))
    groups, out, fan_in = (prod(sizes[c] for c in part) for part in (letters.groups, letters.units, letters.summed))
    order = [mine.index(c) for c in letters.groups + letters.units + letters.summed]
    permuted = tuple(array.shape[i] for i in order)
    shape = permuted if groups > 1 else (out, fan_in)
    back = tuple(int(i) for i in np.argsort(order))
    weight = Stored(
        value,
        Role.WEIGHT,
        shape,
        View(groups, out, fan_in),
        lambda a: a.transpose(order).reshape(shape),
        lambda a, original: a.reshape(permuted).transpose(back),
    )
    axis = output.index(letters.units[-1]) - len(output) if letters.units else -1
    return _with_bias(reader, node, source, Kind.LINEAR, weight, None, axis, fan_in, out)


def _quantized(reader: WeightReader, node: Node) -> Iterator[Operation]:
    """QLinearConv and QLinearMatMul hold integer weights with a scale; the scale is applied here."""
    array = reader.weight(node.input(3))
    scale = reader.constants.array(node.input(4))
    if array is None or scale is None or not reader.is_live(node.input(0)):
        return
    zero = reader.constants.array(node.input(5))
    convolution = node.op == "QLinearConv"
    axis_shape = (-1, *[1] * (array.ndim - 1)) if convolution else (1, -1)

    def dequantize(a: Array) -> Array:
        s = scale.reshape(axis_shape) if scale.size > 1 else scale.reshape(())
        z = 0.0 if zero is None else zero.astype(np.float32).reshape(axis_shape if zero.size > 1 else ())
        return np.asarray((a.astype(np.float32) - z) * s)

    if convolution:
        groups, out = node.integer("group", 1), array.shape[0]
        fan_in = prod(array.shape[1:])
        weight = Stored(node.input(3), Role.WEIGHT, array.shape, View(groups, out // groups, fan_in), dequantize)
        fan_out = out // groups * prod(array.shape[2:])
        yield _with_bias(reader, node, node.input(0), Kind.CONV, weight, None, 1, fan_in, fan_out)
    elif array.ndim == 2:
        fan_in, out = array.shape
        weight = Stored(
            node.input(3), Role.WEIGHT, (out, fan_in), View(1, out, fan_in), lambda a: dequantize(a).swapaxes(0, 1)
        )
        yield _with_bias(reader, node, node.input(0), Kind.LINEAR, weight, None, -1, fan_in, out)


def _attention(reader: WeightReader, node: Node) -> Iterator[Operation]:
    """com.microsoft::Attention projects its input by a packed (in, 3 * width) matrix."""
    array = reader.weight(node.input(1))
    if array is None or array.ndim != 2 or not reader.is_live(node.input(0)):
        return
    fan_in, out = array.shape
    parts = ("q", "k", "v") if out % 3 == 0 and not node.integers("qkv_hidden_sizes") else ()
    weight = Stored(
        node.input(1),
        Role.WEIGHT,
        (out, fan_in),
        View(1, out, fan_in),
        lambda a: a.swapaxes(0, 1),
        lambda a, original: a.swapaxes(0, 1),
        parts,
    )
    bias = reader.vector(node.input(2), Role.BIAS, out)
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
    reader: WeightReader,
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
    users, moves = _next_readers(reader, output)
    if bias is None and len(users) == 1 and output not in reader.graph.outputs:
        adder, position = users[0]
        if adder.op in ("Add", "com.microsoft::BiasGelu", "com.microsoft::FastGelu") and len(adder.inputs) == 2:
            other = adder.inputs[1 - position]
            array = reader.weight(other) if reader.constants.known(other) else None
            if array is not None and array.size == out > 0 and _along(array.shape, axis, weight, kind):
                bias = reader.vector(other, Role.BIAS, out)
                if adder.op == "Add":
                    output, absorbed = adder.outputs[0], frozenset({adder.index, *moves})
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


def _next_readers(reader: WeightReader, value: str) -> tuple[list[tuple[Node, int]], tuple[int, ...]]:
    """Who reads a product: an eager run puts its leading axes back by a view in between."""
    users = reader.graph.readers(value)
    if len(users) == 1 and users[0][0].op == "Reshape" and value not in reader.graph.outputs:
        behind = reader.graph.readers(users[0][0].outputs[0])
        if len(behind) == 1 and behind[0][0].op == "Add":
            return behind, (users[0][0].index,)
    return users, ()


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


HANDLERS: dict[str, Callable[[WeightReader, Node], Iterator[Operation]]] = {
    "Conv": _conv,
    "com.microsoft::FusedConv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "com.microsoft::FusedGemm": _gemm,
    "MatMul": _matmul,
    "com.microsoft::FusedMatMul": _matmul,
    "Einsum": _einsum,
    "QLinearConv": _quantized,
    "QLinearMatMul": _quantized,
    "com.microsoft::Attention": _attention,
}
