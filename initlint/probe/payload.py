"""Tensor payloads as the probe feeds them: every float is float32, external data is mapped, not read."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from ..load.onnx_file import byte_size, external_location, external_path, is_external

Array = npt.NDArray[Any]

WIDE_OR_HALF = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
"""Element types that the probe turns into float32: the CPU provider lacks most bfloat16 and double kernels."""

FLOATS = WIDE_OR_HALF | {TensorProto.FLOAT}


def probe_type(elem_type: int) -> int:
    """The element type that stands for ``elem_type`` in the probe graph."""
    return TensorProto.FLOAT if elem_type in WIDE_OR_HALF else elem_type


def to_float32(array: Array) -> Array:
    """Floats as float32; a finite double beyond its range becomes the largest float32, not infinity.

    Exporters write masks as the lowest double, and minus infinity where a number was meant makes a softmax NaN.
    """
    if array.dtype == np.float32:
        return array
    if array.dtype != np.float64:
        return array.astype(np.float32)
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    overflowed = np.isinf(narrow) & np.isfinite(array)
    return np.where(overflowed, np.copysign(np.finfo(np.float32).max, narrow), narrow)


def read(tensor: TensorProto, folder: Path | None) -> Array:
    """The values of ``tensor``, floats as float32; raises ValueError or OSError where they cannot be read."""
    array = _external(tensor, folder) if is_external(tensor) else numpy_helper.to_array(tensor)
    return to_float32(array) if tensor.data_type in FLOATS else array


def converted(tensor: TensorProto, folder: Path | None) -> TensorProto:
    """``tensor`` for the probe graph: inline, float32 where it was a float."""
    if tensor.data_type not in WIDE_OR_HALF and not is_external(tensor):
        return tensor
    return numpy_helper.from_array(np.ascontiguousarray(read(tensor, folder)), tensor.name)


def _external(tensor: TensorProto, folder: Path | None) -> Array:
    if folder is None:
        raise ValueError(f"tensor {tensor.name!r} lies outside the model and its folder is unknown")
    path, offset = external_path(tensor, folder), external_location(tensor)[1]
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    shape = tuple(tensor.dims)
    if byte_size(tensor) == prod(shape) * dtype.itemsize != 0:
        return np.memmap(path, dtype, "r", offset, shape)
    inline = TensorProto(data_type=tensor.data_type, dims=shape)  # empty, or packed below a byte
    with path.open("rb") as file:
        file.seek(offset)
        inline.raw_data = file.read(byte_size(tensor))
    return numpy_helper.to_array(inline)
