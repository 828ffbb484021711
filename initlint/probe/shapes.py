"""Element types and shapes of the values of a probe graph, as far as they can be inferred without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto, TensorProto, ValueInfoProto, helper, shape_inference

from .dataflow import Dataflow
from .graph_rewrite import ProbeGraph, serialise
from .payload import probe_type


@dataclass(frozen=True, slots=True)
class Known:
    """What inference knows of one value. A dimension is None where it is open, the shape where the rank is."""

    elem_type: int
    shape: tuple[int | None, ...] | None

    @property
    def static(self) -> tuple[int, ...] | None:
        if self.shape is None or None in self.shape:
            return None
        return tuple(dim for dim in self.shape if dim is not None)


def infer(
    graph: ProbeGraph, shapes: Mapping[str, tuple[int, ...]], replaced: Mapping[str, tuple[int, ...]]
) -> dict[str, Known]:
    """What is known of every value, given the ``shapes`` of inputs and of ``replaced`` values."""
    inputs = [*graph_inputs(graph, shapes), *fed_inputs(graph, replaced)]
    model = ModelProto.FromString(serialise(graph, graph.nodes, inputs, []))
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # noqa: BLE001 - onnx raises unrelated types; the session will say what is wrong
        inferred = model.graph
    known = {value.name: _known(value) for value in (*inferred.input, *inferred.value_info)}
    for tensor in inferred.initializer:
        known[tensor.name] = Known(tensor.data_type, tuple(tensor.dims))
    return known


def graph_inputs(graph: ProbeGraph, shapes: Mapping[str, tuple[int, ...]]) -> list[ValueInfoProto]:
    """The graph's inputs, of these shapes where they are given and as declared otherwise."""
    return [
        helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, shapes[name]) if name in shapes else value
        for name, value in graph.inputs.items()
    ]


def fed_inputs(graph: ProbeGraph, replaced: Mapping[str, tuple[int, ...]]) -> list[ValueInfoProto]:
    """Inputs that stand for weights and for replaced values."""
    weights = [
        helper.make_tensor_value_info(name, probe_type(tensor.data_type), list(tensor.dims))
        for name, tensor in graph.fed.items()
        if name not in replaced
    ]
    return weights + [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in replaced.items()
    ]


def constants(graph: ProbeGraph, known: Mapping[str, Known]) -> dict[str, tuple[int, ...]]:
    """Static shapes of all values that no input reaches."""
    live = Dataflow(graph.nodes).downstream(graph.inputs)
    found = {name: value.static for name, value in known.items() if name not in live}
    return {name: shape for name, shape in found.items() if shape is not None}


def _known(value: ValueInfoProto) -> Known:
    if value.type.WhichOneof("value") != "tensor_type":
        return Known(TensorProto.UNDEFINED, None)
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return Known(tensor.elem_type, None)
    return Known(tensor.elem_type, tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim))
