"""From bytes to a checked ModelProto, without touching the weights: what is read here is untrusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ..errors import FailureKind, TargetError
from . import drawing, functions, lifted, lowered, other_formats, sparse, wiring
from .refusals import brief, damaged, first_line, refuse_pointer

MAX_PROTOBUF = 2**31 - 1
"""protobuf refuses longer messages."""


@dataclass(frozen=True)
class OnnxFile:
    """A parsed file: functions inlined, weights still where they were."""

    proto: ModelProto
    base_dir: Path | None
    """Folder that external data may be read from; None for a model that did not come from a file."""


def read(source: Path | bytes) -> OnnxFile:
    """Parse ``source``; raises TargetError (MISSING, UNREADABLE or UNSUPPORTED) with one sentence."""
    if isinstance(source, bytes):
        name, data, base = "the model", source, None
    else:
        name, data, base = source.name, _bytes_of(source), source.parent
    proto = _parse(data, name)
    known = other_formats.recognised(data[: other_formats.HEAD])
    del data
    _check_graph(proto, name, known)
    _check_external_data(proto, base, name)
    proto = functions.inlined(proto, name)
    wiring.check(proto.graph, name)
    sparse.write_out(proto, base, name)
    lowered.write_out(proto)
    drawing.tell_shapes(proto)
    lifted.lift(proto)
    return OnnxFile(proto, base)


def _bytes_of(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise TargetError(FailureKind.USAGE, f"{path} is a folder; name the .onnx file in it.")
        size = path.stat().st_size
        if size > MAX_PROTOBUF:
            raise TargetError(
                FailureKind.UNSUPPORTED,
                f"{path.name} is larger than 2 GiB, which protobuf cannot hold; save it with external data.",
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise TargetError(FailureKind.MISSING, f"{path} does not exist.") from None
    except OSError as error:
        raise TargetError(FailureKind.UNREADABLE, f"{path} cannot be read: {error.strerror}.") from None


def _parse(data: bytes, name: str) -> ModelProto:
    if not data:
        raise TargetError(FailureKind.UNREADABLE, f"{name} is empty; export the model again.")
    refuse_pointer(data, name)
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError) as error:
        if known := other_formats.recognised(data[: other_formats.HEAD]):
            raise TargetError(FailureKind.UNREADABLE, f"{name} is not an ONNX model but {known}.") from None
        raise TargetError(
            FailureKind.UNREADABLE,
            f"{name} is not an ONNX model or was cut short ({first_line(error)}); export or copy it again.",
        ) from None
    return proto


def _check_graph(proto: ModelProto, name: str, known: str) -> None:
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.initializer):
        if known:
            raise TargetError(FailureKind.UNREADABLE, f"{name} is not an ONNX model but {known}.")
        raise TargetError(
            FailureKind.UNREADABLE,
            f"{name} holds no ONNX graph, as another format or a file cut short may; export or copy it again.",
        )
    if not proto.graph.node:
        message = f"{name} holds weights but no operations; there is no model to check."
        raise TargetError(FailureKind.UNSUPPORTED, message)
    _check_names(proto, name)
    for tensor in _tensors(proto):
        _check_tensor(tensor, name)


def _check_names(proto: ModelProto, name: str) -> None:
    """protobuf hands over bytes where a name is no text."""
    roots = [proto.graph, *(body for function in proto.functions for body in wiring.bodies(function.node))]
    graphs = [each for root in roots for each in wiring.graphs(root)]
    nodes = [node for each in (*graphs, *proto.functions) for node in each.node]
    names = [text for node in nodes for text in (node.name, node.op_type, node.domain, *node.input, *node.output)]
    names += [attribute.name for node in nodes for attribute in node.attribute]
    names += [each.name for graph in graphs for each in (*graph.initializer, *graph.input, *graph.output)]
    names += [text for function in proto.functions for text in (function.name, *function.input, *function.output)]
    names += [value.name for graph in graphs for value in graph.value_info]
    names += [entry.domain for entry in proto.opset_import]
    if broken := next((each for each in names if not isinstance(each, str)), None):
        raise damaged(f"{name}: the name {brief(broken)} is no text (UTF-8)")


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of the model, those of local functions and of attributes included."""
    bodies = [body for function in proto.functions for body in wiring.bodies(function.node)]
    for function in proto.functions:
        yield from _attribute_tensors(function.node)
    for graph in (each for root in (proto.graph, *bodies) for each in wiring.graphs(root)):
        yield from graph.initializer
        for each in graph.sparse_initializer:
            yield from (each.values, each.indices)
        yield from _attribute_tensors(graph.node)


def _attribute_tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def _check_tensor(tensor: TensorProto, name: str) -> None:
    where = f"{name}: tensor {brief(tensor.name)}"
    shape = brief(list(tensor.dims))
    if any(dim < 0 for dim in tensor.dims):
        raise damaged(f"{where} has a negative dimension {shape}")
    if tensor.data_type not in _DATA_TYPES:
        text = f"{where} has data type {tensor.data_type}, which onnx {onnx.__version__} lacks"
        raise TargetError(FailureKind.UNREADABLE, f"{text}; upgrade onnx, or export again.")
    if not _is_possible(tensor):
        raise damaged(f"{where} has the impossible shape {shape}")
    if is_external(tensor) or tensor.data_type == TensorProto.STRING:
        return
    if tensor.HasField("raw_data"):
        expected, found = byte_size(tensor), len(tensor.raw_data)
        if found != expected:
            raise damaged(f"{where} of shape {shape} needs {expected} bytes but holds {found}")
        return
    try:
        numpy_helper.to_array(tensor)
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError):
        raise damaged(f"{where} does not hold the values of its shape {shape}") from None


_DATA_TYPES = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}


def _is_possible(tensor: TensorProto) -> bool:
    """numpy can address the shape: at most 64 axes and 2^63 bytes."""
    try:
        np.broadcast_to(np.zeros((), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)), tuple(tensor.dims))
    except ValueError:
        return False
    return True


def is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


_SUB_BYTE = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    **{getattr(TensorProto, name): 2 for name in ("INT2", "UINT2") if hasattr(TensorProto, name)},
}


def byte_size(tensor: TensorProto) -> int:
    """Bytes that a tensor of these dimensions and type takes."""
    count = prod(tensor.dims)
    bits = _SUB_BYTE.get(tensor.data_type)
    if bits is not None:
        return int(-(-count * bits // 8))
    return int(count * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


def external_location(tensor: TensorProto) -> tuple[str, int, int]:
    """(relative path, offset, length or -1) as the file says."""
    fields = {entry.key: entry.value for entry in tensor.external_data}
    try:
        return fields["location"], int(fields.get("offset", 0)), int(fields.get("length", -1))
    except (KeyError, ValueError):
        raise TargetError(
            FailureKind.UNREADABLE, f"tensor {tensor.name!r} has external data without a usable place; export again."
        ) from None


def external_path(tensor: TensorProto, base: Path) -> Path:
    """The file that holds the tensor; raises TargetError where its name leads out of the model's folder."""
    location, _, _ = external_location(tensor)
    if Path(location).is_absolute() or ".." in Path(location).parts:
        raise TargetError(
            FailureKind.UNREADABLE,
            f"tensor {brief(tensor.name)} asks for data outside the model's folder ({brief(location)}), which is "
            "refused; export again with the data beside the model.",
        )
    return base / location


def _check_external_data(proto: ModelProto, base: Path | None, name: str) -> None:
    """As onnxruntime does, allow data under the folder that was named or under the one that the model file's link leads
    to (a Hugging Face cache is made of such links)."""
    external = [tensor for tensor in _tensors(proto) if is_external(tensor)]
    if external and base is None:
        raise TargetError(
            FailureKind.UNREADABLE,
            f"{name} keeps its weights in other files, and its folder is unknown; name the file instead.",
        )
    if not external or base is None:
        return
    allowed = {base.resolve(), (base / name).resolve().parent}
    for tensor in external:
        _check_external(tensor, base, allowed, name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte in it
        return False


def _check_external(tensor: TensorProto, base: Path, allowed: set[Path], name: str) -> None:
    path, (location, offset, length) = external_path(tensor, base), external_location(tensor)
    where = f"tensor {brief(tensor.name)}"
    if not _is_file(path):
        raise TargetError(
            FailureKind.UNREADABLE,
            f"{name} keeps its weights in {brief(location)}, which is not beside it; copy that file here too.",
        )
    real = path.resolve()
    if not any(real.is_relative_to(folder) for folder in allowed):
        raise TargetError(
            FailureKind.UNREADABLE,
            f"{where} leads out of the model's folder through a link, which is refused; put the data beside the model.",
        )
    needed = byte_size(tensor)
    if offset < 0 or length not in (-1, needed):
        raise damaged(f"{name}: {where} needs {needed} bytes but asks for {length} at {offset} of {brief(location)}")
    if offset + needed > path.stat().st_size:
        raise TargetError(
            FailureKind.UNREADABLE,
            f"{name}: {brief(location)} is too short for {where} ({needed} bytes at {offset}), as a download or "
            "export that was cut short is; copy or export it again.",
        )
