"""Weights that a file draws at every run, by RandomNormal and the like: drawn once, from what the nodes say.

An initialised weight is a draw in any case; here the file holds its distribution in place of its values. Noise stays
what it is: only draws that turn out to be weights of layers are settled.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from math import prod

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from . import wiring
from .folding import MAX_COMPUTED, Array, numpy_type
from .protos import keep, tensor_of

_LIKE = {"RandomNormalLike": "RandomNormal", "RandomUniformLike": "RandomUniform"}


def tell_shapes(proto: ModelProto) -> None:
    """Rewrite draws in the shape of a stored tensor as draws of a given shape; what nobody else reads is dropped."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    stored |= {node.output[0]: held for node in proto.graph.node if (held := tensor_of(node)) is not None}
    lent = set()
    for node in proto.graph.node:
        like = stored.get(node.input[0]) if node.op_type in _LIKE and len(node.input) == 1 else None
        if like is None or not like.dims or node.domain not in ("", "ai.onnx"):
            continue
        lent.add(like.name)
        if not any(attribute.name == "dtype" for attribute in node.attribute):
            node.attribute.append(helper.make_attribute("dtype", like.data_type))
        node.attribute.append(helper.make_attribute("shape", list(like.dims)))
        node.op_type = _LIKE[node.op_type]
        del node.input[:]
    if lent:
        _drop(proto, lent - _read(proto))


def settle(proto: ModelProto, names: Collection[str]) -> bool:
    """Put drawn values in place of the nodes that make ``names``; whether there were any, and not too many values."""
    drawn: dict[str, Array] = {}
    kept, budget = [], MAX_COMPUTED
    for node in proto.graph.node:
        asked = node.output and node.output[0] in names and node.op_type in _LIKE.values()
        values = _drawn(node, budget) if asked else None
        if values is None:
            kept.append(node)
        else:
            drawn[node.output[0]] = values
            budget -= values.size
    if drawn:
        keep(proto.graph.node, kept)
        proto.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in drawn.items())
    return bool(drawn)


def _drawn(node: NodeProto, budget: int) -> Array | None:
    """None for attributes that do not fit, and for more than ``budget`` values."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    shape = given.get("shape", [])
    if any(size < 0 for size in shape) or prod(shape) > budget:
        return None
    try:
        kind = numpy_type(given.get("dtype", TensorProto.FLOAT))
    except (KeyError, ValueError):
        return None
    random = np.random.default_rng(zlib.crc32(node.output[0].encode(errors="surrogatepass")))
    if node.op_type == "RandomNormal":
        values, scale, shift = (
            random.standard_normal(shape, np.float32),
            given.get("scale", 1.0),
            given.get("mean", 0.0),
        )
    else:
        low = given.get("low", 0.0)
        values, scale, shift = random.random(shape, np.float32), given.get("high", 1.0) - low, low
    with np.errstate(all="ignore"):
        return np.asarray(values * np.float32(scale) + np.float32(shift)).astype(kind, copy=False)


def _read(proto: ModelProto) -> set[str]:
    graphs = list(wiring.graphs(proto.graph))
    read = {value for graph in graphs for node in graph.node for value in node.input}
    return read | {value.name for graph in graphs for value in graph.output}


def _drop(proto: ModelProto, names: Collection[str]) -> None:
    keep(proto.graph.initializer, [each for each in proto.graph.initializer if each.name not in names])
