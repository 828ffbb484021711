"""Sparse tensors written out in full, as the runtime does before it runs anything."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, numpy_helper

from ..model import NotChecked
from . import wiring
from .folding import MAX_COMPUTED, Array
from .protos import keep
from .refusals import brief, damaged


def write_out(proto: ModelProto, base: Path | None, name: str) -> None:
    """Rewrite ``proto``: sparse initializers and constants become dense ones, as long as there are not too many values.

    Raises TargetError for a tensor that contradicts itself.
    """
    from .external import MappedFiles

    files, budget = MappedFiles(base), MAX_COMPUTED
    for graph in wiring.graphs(proto.graph):
        left = []
        for sparse in graph.sparse_initializer:
            dense = _dense(sparse, files.array(sparse.values), files.array(sparse.indices), budget, name)
            if dense is None:
                left.append(sparse)
            else:
                budget -= dense.size
                graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
        keep(graph.sparse_initializer, left)
        for node, sparse in _constants(graph):
            dense = _dense(sparse, files.array(sparse.values), files.array(sparse.indices), budget, name)
            if dense is not None:
                budget -= dense.size
                _give(node, numpy_helper.from_array(dense))


def too_large(proto: ModelProto) -> Iterator[NotChecked]:
    """What ``write_out`` has left as it was."""
    for graph in wiring.graphs(proto.graph):
        found = [(sparse.values.name, sparse) for sparse in graph.sparse_initializer]
        found += [(node.output[0], sparse) for node, sparse in _constants(graph)]
        for name, sparse in found:
            size = prod(sparse.dims)
            yield NotChecked(name, f"it is sparse, and written out it has {size:,} values, too many to look at")


def _constants(graph: GraphProto) -> Iterator[tuple[NodeProto, SparseTensorProto]]:
    for node in graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].HasField("sparse_tensor"):
            yield node, node.attribute[0].sparse_tensor


def _dense(
    sparse: SparseTensorProto, values: Array | None, indices: Array | None, budget: int, name: str
) -> Array | None:
    """All its values; None where they are more than ``budget``. Indices are positions in the flat tensor, or one per
    axis."""
    shape, where = tuple(sparse.dims), f"{name}: sparse tensor {brief(sparse.values.name)}"
    if any(dim < 0 for dim in shape) or values is None or indices is None or values.ndim != 1:
        raise damaged(f"{where} has an impossible shape")
    if prod(shape) > budget:
        return None
    if indices.shape not in ((len(values),), (len(values), len(shape))) or indices.dtype.kind != "i":
        raise damaged(f"{where} has {len(values)} values, but its indices have shape {brief(list(indices.shape))}")
    limits = np.array([prod(shape)] if indices.ndim == 1 else shape)
    places = indices.reshape(len(values), len(limits))
    if bool((places < 0).any()) or bool((places >= limits).any()):
        raise damaged(f"{where} has values outside its shape {brief(list(shape))}")
    dense = np.zeros(shape, values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def _give(node: NodeProto, tensor: TensorProto) -> None:
    """Make the Constant ``node`` hold ``tensor``."""
    attribute = node.attribute[0]
    attribute.Clear()
    attribute.name, attribute.type = "value", type(attribute).TENSOR
    attribute.t.CopyFrom(tensor)
