"""What the operators compute that stand between a stored weight and its use, on numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from .graph import LINK, Node

Array = NDArray[Any]

MAX_COMPUTED = 2**27
"""Elements that computing one constant may touch: 512 MiB of float32. Weights that are stored, or only seen through a
view, have no such limit; what is computed beyond it is listed as not checked."""


def numpy_type(data_type: int) -> np.dtype[Any]:
    """The numpy (or ml_dtypes) type of an ONNX element type."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(data_type))


def placeholder(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """An array of that shape which takes one element of memory; strings become objects."""
    return _placeholder(tuple(shape), dtype)


@lru_cache(maxsize=1024)
def _placeholder(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return np.broadcast_to(np.zeros((), dtype), shape)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Floating point, ml_dtypes' bfloat16 and float8 included (their kind is "V" or "f")."""
    return dtype.kind == "f" or dtype.name.startswith(("bfloat16", "float8", "float4"))


def is_weight_dtype(dtype: np.dtype[Any]) -> bool:
    """What weights are stored in: floats, or small integers with a scale."""
    return is_float(dtype) or dtype.name in ("int8", "uint8", "int4", "uint4", "int2", "uint2")


Operator = Callable[[Node, Sequence[Any], int], Any]


def _axes(node: Node, values: Sequence[Any]) -> tuple[int, ...] | None:
    if len(values) > 1 and values[1] is not None:
        return tuple(int(v) for v in np.asarray(values[1]).reshape(-1))
    axes = node.attribute("axes")
    return None if axes is None else tuple(int(v) for v in axes)


def _reduce(function: Callable[..., Any]) -> Operator:
    def apply(node: Node, values: Sequence[Any], opset: int) -> Any:
        axes = _axes(node, values)
        if axes == () or (axes is None and node.attribute("noop_with_empty_axes", 0)):
            axes = None
        keep = bool(node.attribute("keepdims", 1))
        return np.asarray(function(_wide(values[0]), axis=axes, keepdims=keep))

    return apply


def _wide(value: Array) -> Array:
    """numpy cannot reduce ml_dtypes; float32 holds all of their values."""
    if is_float(value.dtype) and value.dtype.name not in ("float16", "float32", "float64"):
        return value.astype(np.float32)
    return value


def _thinly(function: Callable[[Array], Any], value: Array) -> Any:
    """Apply an element-wise function to one element of every repeated axis, so that a filled tensor stays small."""
    thin = value[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in value.strides)]
    return np.broadcast_to(function(thin), value.shape) if thin.size < value.size else function(value)


def _unary(function: Callable[..., Any]) -> Operator:
    return lambda node, values, opset: _thinly(lambda value: function(_wide(value)), values[0])


def _binary(function: Callable[..., Any]) -> Operator:
    def apply(node: Node, values: Sequence[Any], opset: int) -> Any:
        _bound(np.broadcast_shapes(values[0].shape, values[1].shape))
        return function(_wide(values[0]), _wide(values[1]))

    return apply


def _bound(shape: Sequence[int]) -> None:
    """Raise OverflowError for a result of more than MAX_COMPUTED elements: a few bytes of a file can ask for it."""
    if prod(shape) > MAX_COMPUTED:
        raise OverflowError(f"{prod(shape)} elements")


def _divide(node: Node, values: Sequence[Any], opset: int) -> Any:
    _bound(np.broadcast_shapes(values[0].shape, values[1].shape))
    if values[0].dtype.kind in "iu":
        return np.trunc(np.divide(values[0], values[1])).astype(values[0].dtype)
    return np.divide(_wide(values[0]), _wide(values[1]))


def _cast(node: Node, values: Sequence[Any], opset: int) -> Any:
    wanted = numpy_type(node.attribute("to"))
    return _thinly(lambda value: value.astype(wanted), values[0])


def cast_type(node: Node, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of what a shape-keeping ``node`` makes of ``dtype``."""
    if node.op == "Cast":
        try:
            return numpy_type(node.attribute("to"))
        except (KeyError, TypeError):
            return dtype
    return np.dtype(np.float32)


def _reshape(node: Node, values: Sequence[Any], opset: int) -> Any:
    target = [int(v) for v in values[1].reshape(-1)]
    if not node.attribute("allowzero", 0):
        target = [values[0].shape[i] if d == 0 else d for i, d in enumerate(target)]
    return values[0].reshape(target)


def _transpose(node: Node, values: Sequence[Any], opset: int) -> Any:
    return values[0].transpose(node.attribute("perm"))


def _unsqueeze(node: Node, values: Sequence[Any], opset: int) -> Any:
    axes = _axes(node, values) or ()
    return np.expand_dims(values[0], axes)


def _squeeze(node: Node, values: Sequence[Any], opset: int) -> Any:
    return np.squeeze(values[0], _axes(node, values))


def _concat(node: Node, values: Sequence[Any], opset: int) -> Any:
    return np.concatenate([v for v in values if v is not None], axis=node.attribute("axis", 0))


def _slice(node: Node, values: Sequence[Any], opset: int) -> Any:
    data = values[0]
    if len(values) > 1:
        starts, ends = (np.asarray(v).reshape(-1).tolist() for v in values[1:3])
        axes = values[3].reshape(-1).tolist() if len(values) > 3 and values[3] is not None else range(len(starts))
        steps = values[4].reshape(-1).tolist() if len(values) > 4 and values[4] is not None else [1] * len(starts)
    else:
        starts, ends = list(node.attribute("starts")), list(node.attribute("ends"))
        axes, steps = node.attribute("axes") or range(len(starts)), [1] * len(starts)
    index: list[slice] = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop = None if step < 0 and end < -data.shape[axis] else end
        index[axis] = slice(start, stop, step)
    return data[tuple(index)]


def _split(node: Node, values: Sequence[Any], opset: int) -> Any:
    axis, data = node.attribute("axis", 0), values[0]
    sizes = values[1].reshape(-1).tolist() if len(values) > 1 and values[1] is not None else node.attribute("split")
    if sizes is None:
        return np.array_split(data, len(node.outputs), axis=axis)
    return np.split(data, np.cumsum(sizes)[:-1], axis=axis)


def _gather(node: Node, values: Sequence[Any], opset: int) -> Any:
    data, indices, axis = values[0], values[1], node.attribute("axis", 0)
    _bound((indices.size, data.size // max(1, data.shape[axis])))
    return np.take(data, indices, axis=axis)


def _expand(node: Node, values: Sequence[Any], opset: int) -> Any:
    target = tuple(int(v) for v in values[1])
    shape = np.broadcast_shapes(values[0].shape, target)
    _bound(shape)
    return np.broadcast_to(values[0], shape)


def _tile(node: Node, values: Sequence[Any], opset: int) -> Any:
    repeats = [int(v) for v in values[1]]
    _bound((values[0].size, *repeats))
    return np.tile(values[0], repeats)


def _range(node: Node, values: Sequence[Any], opset: int) -> Any:
    start, limit, delta = (v.reshape(()).item() for v in values)
    _bound((int(abs((limit - start) / delta)),))
    return np.arange(start, limit, delta, dtype=values[0].dtype)


def _dequantize(node: Node, values: Sequence[Any], opset: int) -> Any:
    """(data - zero point) * scale, per tensor, per slice of an axis, or per block of an axis."""
    data, scale = values[0], _wide(values[1])
    zero = values[2].astype(np.float32) if len(values) > 2 and values[2] is not None else np.zeros((), np.float32)
    axis, block = node.attribute("axis", 1), node.attribute("block_size", 0)

    def spread(each: Array) -> Array:
        if each.size == 1:
            return each.reshape(())
        if block:
            _bound((each.size, block))
            length = data.shape[axis]  # the last block may be short
            return np.repeat(each, block, axis=axis).take(range(length), axis=axis)
        shape = [1] * data.ndim
        shape[axis] = -1
        return each.reshape(shape)

    result = data.astype(np.float32)
    result -= spread(zero)
    result *= spread(scale)
    return result


def _clip(node: Node, values: Sequence[Any], opset: int) -> Any:
    low = values[1] if len(values) > 1 and values[1] is not None else node.attribute("min", -np.inf)
    high = values[2] if len(values) > 2 and values[2] is not None else node.attribute("max", np.inf)
    return np.clip(_wide(values[0]), low, high)


def _matmul(node: Node, values: Sequence[Any], opset: int) -> Any:
    _bound((values[0].size // 2**9, values[1].shape[-1]))  # 2^36 multiplications: a second or two
    _bound((values[0].size // max(1, values[0].shape[-1]), values[1].shape[-1]))
    return np.matmul(_wide(values[0]), _wide(values[1]))


def _where(node: Node, values: Sequence[Any], opset: int) -> Any:
    _bound(np.broadcast_shapes(*(value.shape for value in values)))
    return np.where(values[0], _wide(values[1]), _wide(values[2]))


VIEWS = frozenset({"Identity", LINK, "Dropout", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Slice",
                   "Split", "Expand"})  # fmt: skip
"""Operators that numpy answers with a view of their first input."""

SHAPE_KEEPING = frozenset({"Cast", "DequantizeLinear"})
"""Operators whose result has their first input's shape."""

OPERATORS: dict[str, Operator] = {
    "Identity": lambda node, values, opset: values[0],
    LINK: lambda node, values, opset: values[0] if len(values) == 1 else None,
    "Dropout": lambda node, values, opset: values[0],
    "Cast": _cast,
    "CastLike": lambda node, values, opset: values[0].astype(values[1].dtype),
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Flatten": lambda node, values, opset: values[0].reshape(prod(values[0].shape[: node.attribute("axis", 1)]), -1),
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "Shape": lambda node, values, opset: np.asarray(
        values[0].shape[node.attribute("start", 0) : node.attribute("end", None)], np.int64
    ),
    "Size": lambda node, values, opset: np.asarray(values[0].size, np.int64),
    "DequantizeLinear": _dequantize,
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _divide,
    "Pow": _binary(np.power),
    "Min": _binary(np.minimum),
    "Max": _binary(np.maximum),
    "Equal": _binary(np.equal),
    "Less": _binary(np.less),
    "Greater": _binary(np.greater),
    "Neg": _unary(np.negative),
    "Abs": _unary(np.abs),
    "Sqrt": _unary(np.sqrt),
    "Exp": _unary(np.exp),
    "Log": _unary(np.log),
    "Reciprocal": _unary(np.reciprocal),
    "Tanh": _unary(np.tanh),
    "Sin": _unary(np.sin),
    "Cos": _unary(np.cos),
    "Relu": _unary(lambda x: np.maximum(x, 0)),
    "Sigmoid": _unary(lambda x: 1 / (1 + np.exp(-x))),
    "Softplus": _unary(lambda x: np.logaddexp(x, 0)),
    "Not": _unary(np.logical_not),
    "Where": _where,
    "Clip": _clip,
    "MatMul": _matmul,
    "ReduceMean": _reduce(np.mean),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceL2": _reduce(lambda x, axis, keepdims: np.sqrt(np.sum(np.square(x), axis=axis, keepdims=keepdims))),
    "ReduceSumSquare": _reduce(lambda x, axis, keepdims: np.sum(np.square(x), axis=axis, keepdims=keepdims)),
}
