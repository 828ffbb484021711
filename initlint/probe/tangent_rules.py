"""Derivatives of ONNX operators. Slopes at kinks are PyTorch's: that of ReLU at 0 is 0."""

from __future__ import annotations

import math
from collections.abc import Callable

from onnx import AttributeProto, NodeProto, TensorProto

from .differentiation import Differentiation, Rule
from .tangent_bodies import BODY_RULES

_PLAIN = frozenset(
    {"Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "GatherElements"}
    | {"GatherND", "Expand", "Tile", "Split", "ReduceMean", "ReduceSum", "AveragePool", "GlobalAveragePool", "Neg"}
    | {"DepthToSpace", "SpaceToDepth", "Resize", "Upsample", "Trilu", "CumSum", "Cast", "ReverseSequence"}
    | {"SplitToSequence", "SequenceAt", "ConcatFromSequence"}
)
"""Linear in their first input; the others are positions, shapes and the like."""


def _attribute(node: NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            return float(attribute.f if attribute.type == AttributeProto.FLOAT else attribute.i)
    return default


# -- linear operators ------------------------------------------------------------------------------------------------


def _plain(to: Differentiation, node: NodeProto) -> list[str] | None:
    if node.input[0] not in to.of:
        return None
    return to.again(node, [to.of[node.input[0]], *node.input[1:]])


def _pad(to: Differentiation, node: NodeProto) -> list[str] | None:
    if node.input[0] not in to.of:
        return None
    others = ["" if position == 1 else name for position, name in enumerate(node.input[1:])]
    return to.again(node, [to.of[node.input[0]], *others], without="value")


def _joined(to: Differentiation, node: NodeProto) -> list[str]:
    return to.again(node, [to.tangent(name) for name in node.input])


def _scattered(to: Differentiation, node: NodeProto) -> list[str] | None:
    if any(attribute.name == "reduction" and attribute.s not in (b"none", b"add") for attribute in node.attribute):
        return None
    data, indices, updates = node.input[:3]
    return to.again(node, [to.tangent(data), indices, to.tangent(updates)])


def _sum(to: Differentiation, node: NodeProto) -> list[str]:
    if all(name in to.of for name in node.input):
        return to.again(node, [to.of[name] for name in node.input])
    terms = []
    for position, name in enumerate(node.input):
        if name in to.of:
            signed = to.emit.op("Neg", to.of[name]) if node.op_type == "Sub" and position else to.of[name]
            terms.append(to.spread(signed, name, node.output[0]))
    return [to.scaled(to.total(terms), 1.0 / len(node.input) if node.op_type == "Mean" else 1.0)]


def _where(to: Differentiation, node: NodeProto) -> list[str]:
    condition, *branches = node.input
    chosen = [to.of.get(name) or to.emit.floats(0.0) for name in branches]
    return [to.emit.expand_like(to.emit.where(condition, *chosen), node.output[0])]


def _multilinear(to: Differentiation, node: NodeProto) -> list[str]:
    """Products of two or more operands, each in turn replaced by its tangent."""
    terms = []
    for position, name in enumerate(node.input):
        if name in to.of:
            terms += to.again(node, [*node.input[:position], to.of[name], *node.input[position + 1 :]])
    return [to.total(terms)]


def _with_bias(to: Differentiation, node: NodeProto) -> list[str] | None:
    """Conv, ConvTranspose and Gemm: a product of the first two operands, plus a third one."""
    first, second, *rest = node.input
    nothing = [to.emit.floats(0.0)] if node.op_type == "Gemm" and to.opset < 11 else []  # which demands a third one
    terms = []
    if first in to.of:
        terms += to.again(node, [to.of[first], second, *nothing])
    if second in to.of:
        terms += to.again(node, [first, to.of[second], *nothing])
    if rest and rest[0] in to.of:
        bias = to.scaled(to.of[rest[0]], _attribute(node, "beta", 1.0))
        if node.op_type != "Gemm":
            rank = to.known[node.output[0]].shape if node.output[0] in to.known else None
            if rank is None:
                return None
            bias = to.emit.op("Reshape", bias, to.emit.ints(1, -1, *(1 for _ in rank[2:])))
        terms.append(to.emit.expand_like(bias, node.output[0]))
    return [to.total(terms)]


def _divided(to: Differentiation, node: NodeProto) -> list[str]:
    above, below = node.input
    terms = []
    if above in to.of:
        terms.append(to.emit.op("Div", to.of[above], below))
    if below in to.of:
        share = to.emit.op("Div", to.of[below], below)
        terms.append(to.emit.op("Neg", to.emit.op("Mul", node.output[0], share)))
    return [to.total(terms)]


# -- non-linear ones -------------------------------------------------------------------------------------------------


def _sloped(slope: Callable[[Differentiation, NodeProto], str]) -> Rule:
    """A function of each entry, by its slope."""

    def rule(to: Differentiation, node: NodeProto) -> list[str] | None:
        if node.input[0] not in to.of or any(name in to.of for name in node.input[1:]):
            return None
        return [to.emit.op("Mul", slope(to, node), to.of[node.input[0]])]

    return rule


def _sigmoid(to: Differentiation, node: NodeProto) -> str:
    rest = to.emit.op("Sub", to.emit.floats(1.0), node.output[0])
    return to.emit.op("Mul", node.output[0], rest)


def _tanh(to: Differentiation, node: NodeProto) -> str:
    square = to.emit.op("Mul", node.output[0], node.output[0])
    return to.emit.op("Sub", to.emit.floats(1.0), square)


def _erf(to: Differentiation, node: NodeProto) -> str:
    square = to.emit.op("Mul", node.input[0], node.input[0])
    return to.scaled(to.emit.op("Exp", to.emit.op("Neg", square)), 2.0 / math.sqrt(math.pi))


def _square_root(to: Differentiation, node: NodeProto) -> str:
    return to.emit.op("Div", to.emit.floats(0.5), node.output[0])


def _reciprocal(to: Differentiation, node: NodeProto) -> str:
    return to.emit.op("Neg", to.emit.op("Mul", node.output[0], node.output[0]))


def _power(to: Differentiation, node: NodeProto) -> str:
    base, exponent = node.input
    fact = to.known.get(exponent)
    one = to.emit.floats(1.0)
    if fact is not None and fact.elem_type not in (TensorProto.FLOAT, TensorProto.UNDEFINED):
        one = to.emit.op("Cast", one, to=fact.elem_type)
    less = to.emit.op("Sub", exponent, one)
    factor = to.emit.to_float(exponent)
    return to.emit.op("Mul", to.emit.op("Pow", base, less), factor)


def _cosine(to: Differentiation, node: NodeProto) -> str:
    return to.emit.op("Neg", to.emit.op("Sin", node.input[0]))


def _relu(to: Differentiation, node: NodeProto) -> list[str] | None:
    on = to.emit.op("Greater", node.input[0], to.emit.floats(0.0))
    return [to.where(on, to.of[node.input[0]])]


def _leaky(to: Differentiation, node: NodeProto) -> list[str] | None:
    """LeakyRelu, and PRelu with its slopes."""
    value, *slopes = node.input
    on = to.emit.op("Greater", value, to.emit.floats(0.0))
    slope = slopes[0] if slopes else to.emit.floats(_attribute(node, "alpha", 0.01))
    terms = []
    if value in to.of:
        terms.append(to.emit.where(on, to.of[value], to.emit.op("Mul", slope, to.of[value])))
    if slopes and slopes[0] in to.of:
        changed = to.emit.op("Mul", value, to.of[slopes[0]])
        terms.append(to.emit.where(on, to.emit.floats(0.0), changed))
    return [to.total(terms)]


def _clip(to: Differentiation, node: NodeProto) -> list[str] | None:
    """PyTorch's slope at a bound is 0 where there are two, as in ReLU6 and hardtanh, and 1 where a clamp has one."""
    value = node.input[0]
    if to.opset < 11:
        given = {attribute.name: to.emit.floats(attribute.f) for attribute in node.attribute}
        low, high = given.get("min", ""), given.get("max", "")
    else:
        low, high = ([*node.input[1:], "", ""])[:2]
    if value not in to.of or low in to.of or high in to.of:
        return None
    if not (low and high):
        return [to.where(to.emit.equal(node.output[0], value), to.of[value])]
    inside = to.emit.op("And", to.emit.op("Greater", value, low), to.emit.op("Less", value, high))
    return [to.where(inside, to.of[value])]


def _extreme(to: Differentiation, node: NodeProto) -> list[str] | None:
    """Max and Min of two: ties are shared."""
    if len(node.input) != 2:
        return None
    one, other = node.input
    over = to.emit.op("Greater" if node.op_type == "Max" else "Less", one, other)
    tie = to.emit.equal(one, other)
    mine, theirs = (to.of.get(name) or to.emit.floats(0.0) for name in (one, other))
    half = to.scaled(to.emit.op("Add", mine, theirs), 0.5)
    result = to.emit.where(tie, half, to.emit.where(over, mine, theirs))
    return [to.emit.expand_like(result, node.output[0])]


def _top(to: Differentiation, node: NodeProto) -> list[str] | None:
    """What was chosen stays chosen: equal entries, as a gate of zeros has them, are not chosen among anew."""
    if to.opset < 11 or len(node.output) < 2 or not node.output[1]:
        return None
    axis = int(_attribute(node, "axis", -1.0))
    return [to.emit.op("GatherElements", to.of[node.input[0]], node.output[1], axis=axis)]


def _softmax(to: Differentiation, node: NodeProto) -> list[str] | None:
    fact = to.known.get(node.input[0])
    rank = len(fact.shape) if fact is not None and fact.shape is not None else 0
    axis = int(_attribute(node, "axis", -1.0 if to.opset >= 13 else 1.0))
    if to.opset < 13 and axis not in (-1, rank - 1):
        return None
    change = to.of[node.input[0]]
    share = node.output[0] if node.op_type == "Softmax" else to.emit.op("Exp", node.output[0])
    mean = to.reduce_sum(to.emit.op("Mul", share, change), axis)
    centred = to.emit.op("Sub", change, mean)
    return [to.emit.op("Mul", share, centred) if node.op_type == "Softmax" else centred]


def _sum_square(to: Differentiation, node: NodeProto) -> list[str]:
    value = node.input[0]
    product = to.scaled(to.emit.op("Mul", value, to.of[value]), 2.0)
    keep = int(_attribute(node, "keepdims", 1.0))
    if len(node.input) > 1:
        return [to.emit.op("ReduceSum", product, node.input[1], keepdims=keep)]
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    if axes is None:
        return [to.emit.op("ReduceSum", product, keepdims=keep)]
    if to.opset >= 13:
        return [to.emit.op("ReduceSum", product, to.emit.ints(*axes), keepdims=keep)]
    return [to.emit.op("ReduceSum", product, axes=axes, keepdims=keep)]


def _layer_norm(to: Differentiation, node: NodeProto) -> list[str] | None:
    """With x^ = (x - mean) / deviation: dx^ = (dx - mean dx - x^ mean(x^ dx)) / deviation."""
    value, gain, *shift = node.input
    fact = to.known.get(value)
    if fact is None or fact.shape is None or any(node.output[1:]):
        return None
    rank = len(fact.shape)
    axes = tuple(range(int(_attribute(node, "axis", -1.0)) % rank, rank))
    emit = to.emit
    centred = emit.op("Sub", value, emit.reduce("ReduceMean", value, axes))
    variance = emit.reduce("ReduceMean", emit.op("Mul", centred, centred), axes)
    deviation = emit.op("Sqrt", emit.op("Add", variance, emit.floats(_attribute(node, "epsilon", 1e-5))))
    normed = emit.op("Div", centred, deviation)
    terms = []
    if value in to.of:
        change = emit.op("Sub", to.of[value], emit.reduce("ReduceMean", to.of[value], axes))
        along = emit.reduce("ReduceMean", emit.op("Mul", normed, change), axes)
        across = emit.op("Sub", change, emit.op("Mul", normed, along))
        terms.append(emit.op("Mul", emit.op("Div", across, deviation), gain))
    if gain in to.of:
        terms.append(emit.op("Mul", normed, to.of[gain]))
    if shift and shift[0] in to.of:
        terms.append(emit.expand_like(to.of[shift[0]], value))
    return [to.total(terms), *("" for _ in node.output[1:])]


RULES: dict[str, Rule] = {
    **BODY_RULES,
    **dict.fromkeys(_PLAIN, _plain),
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean"), _sum),
    **dict.fromkeys(("MatMul", "Mul", "Einsum"), _multilinear),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), _with_bias),
    **dict.fromkeys(("ScatterElements", "ScatterND"), _scattered),
    **dict.fromkeys(("LeakyRelu", "PRelu"), _leaky),
    **dict.fromkeys(("Max", "Min"), _extreme),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(("Concat", "SequenceConstruct"), _joined),
    "Pad": _pad,
    "Where": _where,
    "Div": _divided,
    "TopK": _top,
    "Relu": _relu,
    "Clip": _clip,
    "ReduceSumSquare": _sum_square,
    "LayerNormalization": _layer_norm,
    "Sigmoid": _sloped(_sigmoid),
    "Tanh": _sloped(_tanh),
    "Erf": _sloped(_erf),
    "Sqrt": _sloped(_square_root),
    "Reciprocal": _sloped(_reciprocal),
    "Pow": _sloped(_power),
    "Cos": _sloped(_cosine),
    "Sin": _sloped(lambda to, node: to.emit.op("Cos", node.input[0])),
    "Exp": _sloped(lambda to, node: node.output[0]),
    "Log": _sloped(lambda to, node: to.emit.op("Reciprocal", node.input[0])),
    "Abs": _sloped(lambda to, node: to.emit.sign(node.input[0])),
    "Softplus": _sloped(lambda to, node: to.emit.op("Sigmoid", node.input[0])),
}
