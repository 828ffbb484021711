"""Small ONNX models for the loader's tests, written node by node, and what opening them gives; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from initlint.errors import FailureKind, TargetError
from initlint.load.from_onnx import Opened, open_onnx

Array = NDArray[Any]
node = helper.make_node


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def proto(
    nodes: Sequence[NodeProto],
    weights: Mapping[str, Array | TensorProto] | None = None,
    inputs: Mapping[str, Sequence[int | str] | None] | None = None,
    outputs: Iterable[str] = ("y",),
    opset: int = 18,
    **model: Any,
) -> onnx.ModelProto:
    """A model of ``nodes``; inputs that are not named have the name "x", floats unless their name starts with "i_"."""
    stored = [
        numpy_helper.from_array(value, name) if isinstance(value, np.ndarray) else value
        for name, value in (weights or {}).items()
    ]
    given = inputs or {"x": None}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, _type(n), shape) for n, shape in given.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        stored,
    )
    domains = {each.domain for each in nodes} | {f.domain for f in model.get("functions", ())}
    imports = [helper.make_opsetid(domain, 1) for domain in sorted(domains - {""})]
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), *imports], **model)


def _type(name: str) -> int:
    return TensorProto.INT64 if name.startswith("i_") else TensorProto.FLOAT


def opened(*arguments: Any, **options: Any) -> Opened:
    """``proto`` as the loader sees it."""
    return open_onnx(proto(*arguments, **options).SerializeToString())


def rows(model: Opened, address: str) -> Array:
    """All canonical rows of a tensor."""
    return np.concatenate(list(model.chunks(address)))


def round_trips(model: Opened) -> None:
    """Assert that giving back the canonical values of any tensor reproduces what is stored."""
    for tensor in model.model.tensors:
        stored = model.stored_at[tensor.address]
        original = model.constants.array(stored.value)
        if original is None or original.size == 0:
            continue
        value, array = model.stored(tensor.address, rows(model, tensor.address))
        assert value == stored.value
        assert array.dtype == original.dtype, tensor.address
        np.testing.assert_array_equal(array, original, err_msg=tensor.address)


def linear(**changes: object) -> ModelProto:
    """y = x @ w, its stored tensor changed."""
    model = proto([node("MatMul", ["x", "w"], ["y"])], {"w": normal(4, 4)})
    tensor = model.graph.initializer[0]
    for field, value in changes.items():
        if field == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)  # type: ignore[arg-type]
        else:
            setattr(tensor, field, value)
    return model


def refused(source: Path | bytes | ModelProto, kind: FailureKind = FailureKind.UNREADABLE) -> str:
    """The one sentence; fails where the source is accepted or another exception is raised."""
    with pytest.raises(TargetError) as caught:
        open_onnx(source.SerializeToString() if isinstance(source, ModelProto) else source)
    message = str(caught.value)
    assert caught.value.kind is kind
    assert message.isprintable(), "one line without control characters"
    assert 20 < len(message) < 500
    assert message.endswith(".")
    return message


def settled(source: bytes | Path) -> Opened | None:
    """Open and read everything; None where it was refused. Any other exception fails the test."""
    try:
        model = open_onnx(source)
    except TargetError:
        return None
    for tensor in model.model.tensors:
        for _ in model.chunks(tensor.address):
            pass
    return model
