"""Frozen settings: what the command line, the configuration file and Python callers can say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .plugin import Severity


@dataclass(frozen=True)
class ProbeSettings:
    """How to feed the model.

    ``inputs`` is a path of an .npz or .safetensors file, or a mapping of input names to arrays; ``shapes`` gives whole
    shapes by input name ("" for a model's only input), ``dims`` sizes of named dimensions.
    """

    enabled: bool = True
    inputs: Any = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    batch: int | None = None
    seed: int = 0
    wall_seconds: float = 600.0
    """Limit for one answer of the child process."""


@dataclass(frozen=True)
class Settings:
    select: tuple[str, ...] = ()
    """Rule names or categories; empty selects all that are on by default."""
    extend_select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    exclude_layers: tuple[str, ...] = ()
    fail_on: int = Severity.ERROR
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Rule options by rule name, from ``[tool.initlint.rules.NAME]``."""
    probe: ProbeSettings = ProbeSettings()
