"""A graph's inputs, and what a user gave for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, TypeProto, ValueInfoProto, helper

from ..errors import FailureKind, TargetError
from ..settings import ProbeSettings
from .payload import FLOATS, Array, to_float32

_SUPPORTED = FLOATS | {
    TensorProto.BOOL,
    *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
}


class Unfeedable(Exception):
    """An input of a kind for which no values can be made up; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One input. A dimension is a size, a name, or "" where the file says nothing; ``dims`` is None for no rank."""

    name: str
    elem_type: int
    dims: tuple[int | str, ...] | None

    @property
    def is_float(self) -> bool:
        return self.elem_type in FLOATS

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.elem_type))

    def __str__(self) -> str:
        if self.dims is None:
            return f"{self.name}:?"
        return f"{self.name}:{'x'.join(str(dim or '?') for dim in self.dims) or 'scalar'}"


def slot_of(value: ValueInfoProto) -> Slot:
    """The slot of a graph input; raises Unfeedable for strings, sequences, maps and the like."""
    kind: TypeProto = value.type
    if kind.WhichOneof("value") == "optional_type":
        kind = kind.optional_type.elem_type
    which = kind.WhichOneof("value")
    if which != "tensor_type":
        what = (which or "an unstated type").removesuffix("_type")
        raise Unfeedable(f"input {value.name!r} is {what}, not a tensor, which the probe cannot feed")
    elem_type = kind.tensor_type.elem_type
    if elem_type not in _SUPPORTED:
        what = TensorProto.DataType.Name(elem_type) if elem_type in TensorProto.DataType.values() else str(elem_type)
        raise Unfeedable(f"input {value.name!r} holds {what.lower()} values, which the probe cannot feed")
    if not kind.tensor_type.HasField("shape"):
        return Slot(value.name, elem_type, None)
    dims = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param
        for dim in kind.tensor_type.shape.dim
    )
    return Slot(value.name, elem_type, dims)


def listing(slots: Mapping[str, Slot]) -> str:
    """The inputs as ``--input-shape`` would name them."""
    return ", ".join(str(slot) for slot in slots.values()) or "none"


def given_arrays(slots: Mapping[str, Slot], settings: ProbeSettings) -> dict[str, Array]:
    """The user's values, checked and in the inputs' types; raises TargetError(USAGE)."""
    if settings.inputs is None:
        return {}
    named = settings.inputs if isinstance(settings.inputs, Mapping) else _read(Path(settings.inputs))
    given = {}
    for name, value in named.items():
        target = slots.get(_resolve(name, slots, "inputs"))
        assert target is not None
        given[target.name] = _fitted(np.asarray(value), target, slots)
        if target.is_float and bool(np.isnan(given[target.name]).any()):
            raise usage(f"the values given for {name} hold NaN; mend the data, or give others", slots)
    return given


def given_shapes(slots: Mapping[str, Slot], settings: ProbeSettings) -> dict[str, tuple[int, ...]]:
    """The user's shapes by input name, checked; raises TargetError(USAGE)."""
    shapes = {}
    for name, shape in settings.shapes.items():
        target = slots[_resolve(name, slots, "--input-shape")]
        _check_shape(tuple(shape), target, slots, "--input-shape")
        shapes[target.name] = tuple(shape)
    known = {dim for each in slots.values() for dim in each.dims or () if isinstance(dim, str) and dim}
    for dim in settings.dims:
        if dim not in known:
            names = ", ".join(sorted(known)) or "none"
            raise usage(f"--dim names {dim!r}, which no input has; named dimensions: {names}", slots)
    return shapes


def _resolve(name: str, slots: Mapping[str, Slot], where: str) -> str:
    if name in slots:
        return name
    if name == "" and len(slots) == 1:
        return next(iter(slots))
    if name == "":
        raise usage(f"{where} must name the input it is for", slots)
    raise usage(f"{where} names {name!r}, which is not an input", slots)


def usage(problem: str, slots: Mapping[str, Slot]) -> TargetError:
    """A fault of what the user gave, with what the model takes."""
    return TargetError(FailureKind.USAGE, f"{problem}; the model's inputs are {listing(slots)}.")


def _read(path: Path) -> Mapping[str, Array]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            loaded: Mapping[str, Array] = load_file(path)
            return loaded
    except FileNotFoundError:
        raise TargetError(FailureKind.USAGE, f"the inputs file {path} does not exist.") from None
    except Exception as error:  # noqa: BLE001 - zipfile, numpy and safetensors raise unrelated types
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise TargetError(FailureKind.USAGE, f"the inputs file {path} cannot be read: {why}.") from None
    raise TargetError(FailureKind.USAGE, f"the inputs file {path} is neither .npz nor .safetensors.")


def _fitted(value: Array, target: Slot, slots: Mapping[str, Slot]) -> Array:
    _check_shape(value.shape, target, slots, "inputs")
    if target.is_float:
        if value.dtype.kind not in "fiub" and value.dtype.name != "bfloat16":
            raise usage(f"inputs give {value.dtype} values for {target.name!r}, which takes floats", slots)
        return np.ascontiguousarray(to_float32(value))
    if value.dtype.kind not in "iubf" or (value.dtype.kind == "f" and not bool((value == np.round(value)).all())):
        raise usage(f"inputs give {value.dtype} values for {target.name!r}, which takes {target.dtype}", slots)
    return np.ascontiguousarray(value.astype(target.dtype))


def _check_shape(shape: tuple[int, ...], target: Slot, slots: Mapping[str, Slot], where: str) -> None:
    if target.dims is None:
        return
    fits = len(shape) == len(target.dims) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(target.dims, shape, strict=True)
    )
    if not fits:
        text = "x".join(map(str, shape)) or "scalar"
        raise usage(f"{where} gives shape {text} for {target.name!r}", slots)
