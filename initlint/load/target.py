"""What kind of target is it? Decided by its type and its spelling, without importing or opening anything."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..errors import FailureKind, TargetError


class TargetKind(StrEnum):
    FILE = "file"
    """An ONNX file, or a file that only opening can tell."""
    PROTO = "proto"
    """Bytes or a ModelProto."""
    WEIGHTS = "weights"
    """A safetensors file or a state dict."""
    PYTHON = "python"
    """The name of a module, or of what builds one."""
    BUILDER = "builder"
    """A function at hand that builds a PyTorch module."""
    MODULE = "module"
    """A PyTorch module at hand."""


FORMATS = {
    TargetKind.WEIGHTS: "weights",
    TargetKind.PYTHON: "torch",
    TargetKind.BUILDER: "torch",
    TargetKind.MODULE: "torch",
}
"""``Report.format`` by kind; "onnx" for the others."""

SAFETENSORS = ".safetensors"
PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".pt2")
"""Suffixes of what torch.save and torch.export.save write."""

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class PythonName:
    """``source:attribute``; the source is a dotted module name or the path of a .py file."""

    source: str
    attribute: str

    @property
    def is_file(self) -> bool:
        return self.source.endswith(".py")

    def __str__(self) -> str:
        return f"{self.source}:{self.attribute}"


def kind_of(target: Any) -> TargetKind:
    """Raises TargetError(USAGE) for a .py file without the name of what is in it."""
    if is_module(target):
        return TargetKind.MODULE
    if not isinstance(target, str | os.PathLike):
        return TargetKind.BUILDER if callable(target) else TargetKind.PROTO
    text = os.fspath(target)
    if isinstance(target, str) and python_name(text) is not None:
        return TargetKind.PYTHON
    suffix = Path(text).suffix.lower()
    if suffix == ".py":
        example = f"{text}:build"
        raise TargetError(FailureKind.USAGE, f"{text}: name the module or builder in the file, as in {example}")
    return TargetKind.WEIGHTS if suffix in (SAFETENSORS, *PICKLED) else TargetKind.FILE


def is_pickled(target: Any) -> bool:
    """Whether it is a file of PyTorch's, by its suffix."""
    return isinstance(target, str | os.PathLike) and Path(target).suffix.lower() in PICKLED


def python_name(text: str) -> PythonName | None:
    """``text`` as the name of a Python object; None where it reads as a path.

    The last colon counts, so that of a drive ("C:\\models\\net.py:build") does not; an existing file is a file.
    """
    source, colon, attribute = text.rpartition(":")
    if not colon or not _MODULE.fullmatch(attribute) or os.path.exists(text):
        return None
    if source.endswith(".py"):
        return PythonName(source, attribute)
    is_drive = os.name == "nt" and len(source) == 1
    return PythonName(source, attribute) if _MODULE.fullmatch(source) and not is_drive else None


def is_module(target: Any) -> bool:
    """Whether it is a PyTorch module; torch is not imported to find out."""
    return hasattr(target, "named_parameters") and hasattr(target, "named_modules")


def format_of(target: Any) -> str:
    """The ``format`` of a report on ``target``, known before it is opened."""
    try:
        return FORMATS.get(kind_of(target), "onnx")
    except TargetError:
        return "torch"


def name_of(target: Any) -> str:
    """What a report calls the target."""
    if isinstance(target, str | os.PathLike):
        return os.fspath(target)
    if is_module(target):
        return type(target).__name__
    if callable(target):
        return str(getattr(getattr(target, "func", target), "__qualname__", type(target).__name__))
    return "<bytes>" if isinstance(target, bytes | bytearray | memoryview) else f"<{type(target).__name__}>"
