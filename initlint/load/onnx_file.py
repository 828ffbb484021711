"""From bytes to a checked ModelProto, without touching the weights: what is read here is untrusted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto

from ..errors import FailureKind, TargetError

MAX_NODES = 500_000
"""After inlining functions. The largest public graphs have some 30,000 nodes; beyond this a file is an attack."""

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
    del data
    _check_graph(proto, name)
    if base is not None:
        _check_external_data(proto, base, name)
    return OnnxFile(_inline(proto, name), base)


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
    if data.startswith(b"version https://git-lfs"):
        raise TargetError(FailureKind.UNREADABLE, f"{name} is a Git LFS pointer, not the model; run `git lfs pull`.")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError) as error:
        raise TargetError(
            FailureKind.UNREADABLE,
            f"{name} is not an ONNX model or was cut short ({_short(error)}); export or copy it again.",
        ) from None
    return proto


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _check_graph(proto: ModelProto, name: str) -> None:
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.initializer):
        raise TargetError(
            FailureKind.UNREADABLE, f"{name} holds no ONNX graph; is it an ONNX file, and was it written to the end?"
        )
    if not proto.graph.node:
        message = f"{name} holds weights but no operations; there is no model to check."
        raise TargetError(FailureKind.UNSUPPORTED, message)
    for tensor in _tensors(proto.graph):
        _check_tensor(tensor, name)


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and every subgraph in it."""
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        for node in current.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    for each in graphs(graph):
        yield from each.initializer
        for node in each.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t


def _check_tensor(tensor: TensorProto, name: str) -> None:
    if any(dim < 0 for dim in tensor.dims):
        raise TargetError(
            FailureKind.UNREADABLE, f"{name}: tensor {tensor.name!r} has a negative dimension {list(tensor.dims)}."
        )
    if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type == TensorProto.UNDEFINED:
        raise TargetError(
            FailureKind.UNREADABLE,
            f"{name}: tensor {tensor.name!r} has data type {tensor.data_type}, which ONNX {onnx.__version__} lacks.",
        )
    if is_external(tensor) or tensor.data_type == TensorProto.STRING:
        return
    expected = byte_size(tensor)
    if tensor.HasField("raw_data") and len(tensor.raw_data) != expected:
        raise TargetError(
            FailureKind.UNREADABLE,
            f"{name}: tensor {tensor.name!r} of shape {list(tensor.dims)} needs {expected} bytes "
            f"but holds {len(tensor.raw_data)}; the file is damaged.",
        )


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
    """The file that holds the tensor, checked to lie in the model's folder.

    As onnxruntime does, data may lie under the folder that was named or under the one the model file's link leads to
    (a Hugging Face cache is made of such links).
    """
    location, _, _ = external_location(tensor)
    path = base / location
    if Path(location).is_absolute() or ".." in Path(location).parts:
        raise TargetError(
            FailureKind.UNREADABLE,
            f"tensor {tensor.name!r} asks for data outside the model's folder ({location!r}); that is refused.",
        )
    return path


def _check_external_data(proto: ModelProto, base: Path, name: str) -> None:
    allowed = {base.resolve(), *((base / name).resolve().parent for _ in [0])}
    for tensor in _tensors(proto.graph):
        if not is_external(tensor):
            continue
        path = external_path(tensor, base)
        _, offset, length = external_location(tensor)
        if not path.is_file():
            raise TargetError(
                FailureKind.UNREADABLE,
                f"{name} keeps its weights in {path.name}, which is not beside it; copy that file here too.",
            )
        real = path.resolve()
        if not any(real.is_relative_to(folder) for folder in allowed) and not _in_link_store(base / name, real):
            raise TargetError(
                FailureKind.UNREADABLE,
                f"tensor {tensor.name!r} leads out of the model's folder through a link; that is refused.",
            )
        needed = byte_size(tensor)
        if offset < 0 or length not in (-1, needed) or offset + needed > os.path.getsize(path):
            raise TargetError(
                FailureKind.UNREADABLE,
                f"{name}: {path.name} is too short for tensor {tensor.name!r} "
                f"({needed} bytes at {offset}); the download or export was cut short.",
            )


def _in_link_store(model: Path, data: Path) -> bool:
    """Both the model and its data are links into one store folder."""
    return model.is_symlink() and data.parent == model.resolve().parent


def _inline(proto: ModelProto, name: str) -> ModelProto:
    if not proto.functions:
        return proto
    total = _expanded_nodes(proto, name)
    if total > MAX_NODES:
        raise TargetError(
            FailureKind.UNSUPPORTED, f"{name} expands to {total} operations, more than the limit of {MAX_NODES}."
        )
    from onnx import inliner

    try:
        return inliner.inline_local_functions(proto)
    except (RuntimeError, ValueError, MemoryError) as error:  # onnx's C++ errors
        raise TargetError(
            FailureKind.UNSUPPORTED, f"{name}: its local functions cannot be inlined ({_short(error)})."
        ) from None


def _expanded_nodes(proto: ModelProto, name: str) -> int:
    """Number of nodes after inlining, computed on the call graph: doubling functions must not be expanded to count."""
    functions = {(f.domain, f.name): f for f in proto.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(key: tuple[str, str], trail: tuple[tuple[str, str], ...]) -> int:
        if key in trail or len(trail) > 100:
            raise TargetError(FailureKind.UNREADABLE, f"{name}: local function {key[1]!r} calls itself.")
        if key not in sizes:
            sizes[key] = count(functions[key].node, (*trail, key))
        return sizes[key]

    def count(nodes: object, trail: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:  # type: ignore[attr-defined]
            key = (node.domain, node.op_type)
            total += size(key, trail) if key in functions else 1
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    total += count(attribute.g.node, trail)
                for sub in attribute.graphs:
                    total += count(sub.node, trail)
        return total

    return count(proto.graph.node, ())
