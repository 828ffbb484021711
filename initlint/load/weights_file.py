"""Reading files that hold weights and nothing else: safetensors, and state dicts that torch.save wrote.

Runs in the child process. Nothing of a file is executed: of torch.load only ``weights_only=True`` is used, after the
archive's directory was looked at.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ..errors import FailureKind, TargetError
from . import other_formats
from .folding import Array
from .refusals import POINTER, brief, first_line, refuse_pointer
from .target import SAFETENSORS

_SAFE_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}

_NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Keys under which training scripts keep a state dict."""

_IS_STATE = re.compile(r"optim|sched|ema|scaler|amp|rng|(^|_)(args|config|hparams|callbacks|loops)$", re.IGNORECASE)
"""Keys of what else they keep."""


@dataclass(frozen=True)
class WeightsFile:
    """Floating-point arrays by name, in the file's order, and what was left out with the reason."""

    arrays: Mapping[str, Array]
    left_out: Mapping[str, str] = field(default_factory=dict)
    producer: str = ""


def read(path: Path) -> WeightsFile:
    """Raises TargetError where the file is damaged, or holds code."""
    with suppress(OSError), path.open("rb") as file:  # what cannot be opened is told by who wants all of it
        refuse_pointer(file.read(len(POINTER)), path.name)
    return _safetensors(path) if path.suffix.lower() == SAFETENSORS else _state_dict(path)


def _safetensors(path: Path) -> WeightsFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"), path.open("rb") as file:  # checks every offset and length
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        _refuse_other_formats(path)
        text = f"{path.name} is no safetensors file: {first_line(error)}; save it again"
        raise TargetError(FailureKind.UNREADABLE, text) from None
    arrays: dict[str, Array] = {}
    left_out: dict[str, str] = {}
    entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    for name, entry in sorted(entries, key=lambda each: int(each[1]["data_offsets"][0])):
        dtype, shape = _SAFE_DTYPES.get(entry["dtype"]), tuple(entry["shape"])
        if dtype is None:
            left_out[name] = f"it holds {entry['dtype']} values, no floating-point weights"
        elif prod(shape):
            offset = 8 + length + int(entry["data_offsets"][0])
            arrays[name] = np.memmap(path, dtype, "r", offset, shape)
    return WeightsFile(arrays, left_out, "safetensors")


def _state_dict(path: Path) -> WeightsFile:
    _look_before(path)
    loaded = _loaded(path)
    found, where = _tensors_in(loaded)
    if not found:
        text = f"{path.name} holds no state dict; save model.state_dict() with torch.save or safetensors"
        raise TargetError(FailureKind.UNSUPPORTED, text)
    import torch

    from .from_torch import to_numpy

    arrays: dict[str, Array] = {}
    left_out: dict[str, str] = {}
    for name, tensor in found.items():
        if not tensor.is_floating_point():
            left_out[name] = f"it holds {str(tensor.dtype).removeprefix('torch.')} values, no floating-point weights"
        elif tensor.is_meta or tensor.layout is not torch.strided:
            left_out[name] = "it has no values" if tensor.is_meta else "it is sparse"
        elif tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            left_out[name] = "it repeats one stored value, as expand() makes it"
        elif tensor.numel() and (array := to_numpy(tensor)) is not None:
            arrays[name] = array
    if where:
        left_out[f"everything beside {where!r}"] = "only the model's own weights are judged"
    return WeightsFile(arrays, left_out, f"pytorch state dict, read by {torch.__version__}")


def _look_before(path: Path) -> None:
    """Refuse archives that are programs, or that unpack to more than they say."""
    if not zipfile.is_zipfile(path):
        start = _refuse_other_formats(path)
        if not start.startswith(_PICKLES):
            text = f"{path.name} is no file of PyTorch's, or was cut short; copy or save it again"
            raise TargetError(FailureKind.UNREADABLE, text)
        text = f"{path.name} is not in the format of PyTorch 1.6 or newer; load it where you trust it and save it again"
        raise TargetError(FailureKind.UNSUPPORTED, text)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise TargetError(FailureKind.UNREADABLE, f"{path.name} is damaged: {first_line(error)}") from None
    names = [entry.filename for entry in entries]
    if is_script(names):
        raise _code(path, "a TorchScript program")
    if is_exported(names):
        raise _code(path, "an exported program")
    if len(set(names)) < len(names) or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        text = f"{path.name} has compressed or doubled entries, which torch.save never writes; save it again"
        raise TargetError(FailureKind.UNREADABLE, text)


_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""What the files of PyTorch before 1.6 begin with."""


def _refuse_other_formats(path: Path) -> bytes:
    """The first bytes; raises TargetError where they are those of another kind of file."""
    try:
        with path.open("rb") as file:
            start = file.read(other_formats.HEAD)
    except OSError as error:
        raise TargetError(FailureKind.UNREADABLE, f"{path.name} cannot be read: {error.strerror}") from None
    if not start:
        raise TargetError(FailureKind.UNREADABLE, f"{path.name} is empty; save it again")
    safe = path.suffix.lower() == SAFETENSORS
    known = other_formats.recognised(start) if safe or not start.startswith((b"PK", *_PICKLES)) else ""
    if known and not known.startswith("a safetensors file" if safe else "a text file"):
        what = "no safetensors file" if safe else "no file of PyTorch's"
        raise TargetError(FailureKind.UNREADABLE, f"{path.name} is {what} but {known}")
    return start


def is_script(names: Iterable[str]) -> bool:
    """Whether an archive with these entries is a TorchScript program."""
    inner = {name.partition("/")[2] for name in names}
    return "constants.pkl" in inner and any(name.startswith("code/") for name in inner)


def is_exported(names: Iterable[str]) -> bool:
    """Whether an archive with these entries is what torch.export.save wrote."""
    return any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names)


def _code(path: Path, what: str) -> TargetError:
    text = (
        f"{path.name} is {what}, which is code and is not run; name the Python that builds the model (pkg.mod:attr), "
        "export it to ONNX, save model.state_dict(), or give --trust if you trust its author"
    )
    return TargetError(FailureKind.UNSUPPORTED, text)


def _loaded(path: Path) -> Any:
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)  # would turn the safe way of loading off
    try:
        import torch
    except ImportError:
        text = f"{path.name} needs PyTorch to be read (pip install torch); or save the weights with safetensors"
        raise TargetError(FailureKind.UNSUPPORTED, text) from None
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10):
        text = f"PyTorch {torch.__version__} reads foreign files unsafely (CVE-2026-24747); install 2.10 or newer"
        raise TargetError(FailureKind.UNSUPPORTED, text)
    import pickle

    try:
        with torch.sparse.check_sparse_tensor_invariants():  # type: ignore[no-untyped-call]
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = "pickled code besides weights"
        if "GLOBAL " in str(error):
            what = f"pickled objects ({brief(str(error).partition('GLOBAL ')[2].split()[0])})"
        raise _code(path, f"a file of {what}") from None
    except (RuntimeError, ValueError, EOFError, OSError, KeyError, AssertionError, TypeError) as error:
        raise TargetError(FailureKind.UNREADABLE, f"{path.name} cannot be read: {first_line(error)}") from None


def _tensors_in(loaded: Any) -> tuple[dict[str, Any], str]:
    """The tensors by name, and the key of a checkpoint under which they were found (empty for a plain state dict)."""
    own = _named(loaded)
    if own or not isinstance(loaded, Mapping):
        return own, ""
    for key in _NESTED:
        if key in loaded and (inner := _named(loaded[key])):
            return inner, key
    models = {str(key): _model_in(value) for key, value in loaded.items() if not _IS_STATE.search(str(key))}
    found = {key: inner for key, inner in models.items() if inner}
    if not found and "ema" in loaded:
        return _named(loaded["ema"]), "ema"
    if len(found) == 1:
        ((key, inner),) = found.items()
        return inner, key
    return {f"{key}.{name}": tensor for key, inner in found.items() for name, tensor in inner.items()}, ""


def _model_in(value: Any) -> dict[str, Any]:
    """One of several models in a checkpoint, by itself or under one of the usual keys."""
    under = (value[key] for key in _NESTED if key in value) if isinstance(value, Mapping) else ()
    return _named(value) or next((inner for each in under if (inner := _named(each))), {})


def _named(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {}
    return {str(name): each for name, each in value.items() if hasattr(each, "untyped_storage")}
