"""External data, mapped into memory so that a weight costs address space, not memory."""

from __future__ import annotations

import mmap
from math import prod
from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from .folding import Array, numpy_type
from .onnx_file import byte_size, external_location, external_path, is_external


class MappedFiles:
    """Arrays of TensorProtos; every external file is mapped once."""

    def __init__(self, base_dir: Path | None) -> None:
        self._base_dir = base_dir
        self._mapped: dict[Path, mmap.mmap] = {}

    def array(self, tensor: TensorProto) -> Array | None:
        """The array of ``tensor``, read-only; None for external data of a model without a folder."""
        if not is_external(tensor):
            return numpy_helper.to_array(tensor)
        if self._base_dir is None:
            return None
        dtype, shape = numpy_type(tensor.data_type), tuple(tensor.dims)
        if prod(shape) == 0:
            return np.zeros(shape, dtype)
        path, (_, offset, _) = external_path(tensor, self._base_dir), external_location(tensor)
        size = byte_size(tensor)
        mapped = self._map(path)
        if size == prod(shape) * dtype.itemsize:
            return np.ndarray(shape, dtype, mapped, offset)
        packed = TensorProto(data_type=tensor.data_type, dims=shape, raw_data=mapped[offset : offset + size])
        return numpy_helper.to_array(packed)  # several values per byte: numpy cannot map those

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._mapped:
            with path.open("rb") as file:
                self._mapped[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._mapped[path]

    def release(self) -> None:
        """Let go of the pages read so far; the arrays stay valid and read them again if asked."""
        for mapped in self._mapped.values():
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)
