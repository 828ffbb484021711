"""Quantised operators written out as those of their dequantised operands.

Rounding activations back and forth is left out, as training through it does (straight-through, Bengio et al. 2013).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from .writing import MICROSOFT, PER_AXIS, Rule, Writer, attributes_of, input_of


def _dequantized(to: Writer, value: str, scale: str, zero: str, axis: int | None = None) -> str:
    if (source := _unrounded(to, value, scale, zero)) is not None:
        return source
    given: dict[str, Any] = {} if axis is None or to.opset < PER_AXIS else {"axis": axis}
    return to.op("DequantizeLinear", [value, scale, zero] if zero else [value, scale], **given)


def _rounded(to: Writer, value: str, scale: str, zero: str, output: str) -> None:
    to.op("QuantizeLinear", [value, scale, zero] if zero else [value, scale], output)


def _quantized_conv(to: Writer, node: NodeProto) -> bool:
    if len(node.input) < 8:
        return False
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.input[:8]
    inputs = [_dequantized(to, x, x_scale, x_zero), _dequantized(to, w, w_scale, w_zero, axis=0)]
    if bias := input_of(node, 8):
        inputs.append(_dequantized(to, bias, to.op("Mul", [x_scale, w_scale]), "", axis=0))
    _rounded(to, to.op("Conv", inputs, like=node, **attributes_of(node)), y_scale, y_zero, node.output[0])
    return True


def _quantized_product(to: Writer, node: NodeProto) -> bool:
    """MatMul, Add and Mul of two quantised operands."""
    if len(node.input) < 7:
        return False
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale = node.input[:7]
    kind = node.op_type.removeprefix("QLinear")
    operands = [_dequantized(to, a, a_scale, a_zero), _dequantized(to, b, b_scale, b_zero, axis=-1)]
    _rounded(to, to.op(kind, operands, like=node), y_scale, input_of(node, 7), node.output[0])
    return True


def _quantized_gemm(to: Writer, node: NodeProto) -> bool:
    if len(node.input) < 6:
        return False
    a, a_scale, a_zero, b, b_scale, b_zero = node.input[:6]
    given = attributes_of(node)
    operands = [_dequantized(to, a, a_scale, a_zero)]
    operands.append(_dequantized(to, b, b_scale, b_zero, axis=0 if given.get("transB") else 1))
    if bias := input_of(node, 6):
        operands.append(_dequantized(to, bias, to.op("Mul", [a_scale, b_scale]), "", axis=0))
    if input_of(node, 7):
        _rounded(to, to.op("Gemm", operands, like=node, **given), node.input[7], input_of(node, 8), node.output[0])
    else:
        to.op("Gemm", operands, node.output[0], like=node, **given)
    return True


def _quantized_function(to: Writer, node: NodeProto) -> bool:
    if len(node.input) < 4:
        return False
    x, scale, zero, y_scale = node.input[:4]
    kind, given = node.op_type.removeprefix("QLinear"), attributes_of(node, "channels_last", "opset")
    if any(each.name == "channels_last" and each.i for each in node.attribute):
        return False
    made = to.op(kind, [_dequantized(to, x, scale, zero)], like=node, **given)
    _rounded(to, made, y_scale, input_of(node, 4), node.output[0])
    return True


def _quantized_concat(to: Writer, node: NodeProto) -> bool:
    scale, zero, *rest = node.input
    if not rest or len(rest) % 3:
        return False
    parts = [_dequantized(to, *rest[start : start + 3]) for start in range(0, len(rest), 3)]
    _rounded(to, to.op("Concat", parts, **attributes_of(node)), scale, zero, node.output[0])
    return True


def _unrounded(to: Writer, value: str, scale: str, zero: str) -> str | None:
    """What was quantised into ``value``, without rounding; None where it comes from elsewhere.

    onnxruntime's quantiser leaves a ReLU out where the smallest integer stands for zero, which cuts off the same. Rows
    of a quantised table are those of the dequantised one.
    """
    maker = to.makers.get(value)
    if maker is None or len(maker.input) < 2:
        return None
    if value not in to.unrounded and maker.op_type == "QuantizeLinear":
        source = str(maker.input[0])
        to.unrounded[value] = to.op("Relu", [source]) if _starts_at_zero(to, maker) else source
    elif value not in to.unrounded and maker.op_type == "Gather" and _are_numbers(to, maker.input[0], scale, zero):
        table = to.op("DequantizeLinear", [maker.input[0], *filter(None, (scale, zero))])
        to.unrounded[value] = to.op("Gather", [table, maker.input[1]], like=maker, **attributes_of(maker))
    return to.unrounded.get(value)


def _are_numbers(to: Writer, table: str, *scales: str) -> bool:
    """Whether a stored table has one stored scale and zero point."""
    return table in to.stored and all(name in to.stored and prod(to.stored[name].dims) == 1 for name in scales if name)


def _starts_at_zero(to: Writer, quantize: NodeProto) -> bool:
    """Whether nothing below zero can be told; without a zero point the type is uint8 and zero is 0."""
    zero = to.stored.get(input_of(quantize, 2))
    if zero is None or zero.data_location == TensorProto.EXTERNAL or zero.data_type not in _SMALLEST:
        return not input_of(quantize, 2)
    return bool(np.all(numpy_helper.to_array(zero) == _SMALLEST[zero.data_type]))


_SMALLEST: dict[int, int] = {
    TensorProto.UINT8: 0,
    TensorProto.INT8: -(2**7),
    TensorProto.UINT16: 0,
    TensorProto.INT16: -(2**15),
}


def _dequantize(to: Writer, node: NodeProto) -> bool:
    """Of what was only just quantised."""
    source = _unrounded(to, node.input[0], node.input[1], input_of(node, 2)) if len(node.input) > 1 else None
    if source is None:
        return False
    to.op("Identity", [source], node.output[0])
    return True


def _float_by_integer(to: Writer, node: NodeProto) -> bool:
    """com.microsoft::DynamicQuantizeMatMul and MatMulIntegerToFloat."""
    if node.op_type == "DynamicQuantizeMatMul":
        left, right, right_scale = input_of(node, 0), input_of(node, 1), input_of(node, 2)
        right_zero, bias = input_of(node, 3), input_of(node, 4)
    else:
        a, right, a_scale, right_scale, a_zero, right_zero, bias = (input_of(node, slot) for slot in range(7))
        left = _measured(to, a) or _dequantized(to, a, a_scale, a_zero)
    if not (left and right and right_scale):
        return False
    weight = _dequantized(to, right, right_scale, right_zero, axis=-1)
    product = to.op("MatMul", [left, weight], "" if bias else node.output[0], like=node)
    if bias:
        to.op("Add", [product, bias], node.output[0], like=node)
    return True


def _measured(to: Writer, value: str) -> str:
    """What DynamicQuantizeLinear made ``value`` of; empty if nothing."""
    maker = to.makers.get(value)
    return str(maker.input[0]) if maker is not None and maker.op_type == "DynamicQuantizeLinear" else ""


def _integer_product(to: Writer, node: NodeProto) -> bool:
    """MatMulInteger or ConvInteger of what was quantised on the spot, cast, times the product of both scales."""
    left, right = input_of(node, 0), input_of(node, 1)
    source = _measured(to, left)
    cast = to.only_user(node.output[0], "Cast") if source and right else None
    product = to.only_user(cast.output[0], "Mul") if cast is not None else None
    if cast is None or product is None or len(product.input) != 2:
        return False
    scales = to.makers.get(next(value for value in product.input if value != cast.output[0]))
    if scales is None or scales.op_type != "Mul":
        return False
    own = [value for value in scales.input if value != to.makers[left].output[1]]
    if len(own) != 1 or own[0] in to.makers:  # what is computed may come later
        return False
    kind = node.op_type.removesuffix("Integer")
    weight = _dequantized(to, right, own[0], input_of(node, 3), axis=0 if kind == "Conv" else -1)
    to.op(kind, [source, weight], product.output[0], like=node, **attributes_of(node))
    to.gone |= {id(cast), id(product)}
    return True


RULES: dict[tuple[str, str], Rule] = {
    ("", "QLinearConv"): _quantized_conv,
    ("", "QLinearMatMul"): _quantized_product,
    (MICROSOFT, "QLinearAdd"): _quantized_product,
    (MICROSOFT, "QLinearMul"): _quantized_product,
    (MICROSOFT, "QGemm"): _quantized_gemm,
    **{(MICROSOFT, f"QLinear{each}"): _quantized_function for each in ("LeakyRelu", "Sigmoid", "Softmax")},
    **{(MICROSOFT, f"QLinear{each}"): _quantized_function for each in ("GlobalAveragePool", "AveragePool")},
    (MICROSOFT, "QLinearConcat"): _quantized_concat,
    ("", "DequantizeLinear"): _dequantize,
    (MICROSOFT, "DequantizeLinear"): _dequantize,
    (MICROSOFT, "DynamicQuantizeMatMul"): _float_by_integer,
    (MICROSOFT, "MatMulIntegerToFloat"): _float_by_integer,
    ("", "MatMulInteger"): _integer_product,
    ("", "ConvInteger"): _integer_product,
}
