"""Frozen settings: what the command line, the configuration file and Python callers can say.

``configuration`` reads and merges them; this module only says what there is, and matches names against patterns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .plugin import Finding, Severity
from .target_names import target_matches

SEEDS = 2**64
"""What PyTorch's generators tell apart: seeds that are made of others wrap around."""


@dataclass(frozen=True)
class ProbeSettings:
    """How to build and feed the model.

    ``inputs`` is the path of an .npz or .safetensors file, the name of a function ("pkg.mod:function"), a mapping of
    input names to arrays, or a tuple of positional ones; ``shapes`` gives whole shapes by input name ("" for a model's
    only input), ``dims`` sizes of named dimensions. ``kwargs`` and ``device`` are for Python targets: what their
    builder is called with, and where their module is moved ("" leaves it where it is).
    """

    enabled: bool = True
    inputs: Any = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    batch: int | None = None
    seed: int = 0
    wall_seconds: float = 600.0
    """Limit for one answer of the child process."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""
    loss: Any = None
    """A function of a module's output, perhaps of its inputs too, that gives the number to differentiate; or its name
    ("pkg.mod:function")."""
    trust: bool = False
    """Load PyTorch files that hold code, which runs: whole modules, TorchScript, exported programs."""
    backward: bool = False
    """Measure gradients as well, or estimate them where the target is an ONNX file."""
    liveness: bool = False
    """Find out by a few steps which parameters can never learn."""


@dataclass(frozen=True, slots=True)
class Allow:
    """An exception: findings of ``rule`` whose address matches ``at``, in targets that match ``target``, are accepted
    for ``reason``, up to and including the day ``until``."""

    rule: str
    at: str
    reason: str
    target: str = "*"
    until: date | None = None
    place: str = field(default="", compare=False)
    """Where it was written, for messages."""
    folder: Path = field(default=Path(), compare=False)
    """What a relative ``target`` is relative to."""

    def covers(self, finding: Finding) -> bool:
        """Whether it means a finding of a target that it concerns."""
        return finding.rule == self.rule and matches(finding.address, [self.at])

    def concerns(self, target: str) -> bool:
        return target_matches(target, self.target, self.folder)

    def is_over(self, today: date) -> bool:
        return self.until is not None and today > self.until


@dataclass(frozen=True)
class Origin:
    """What one place says, checked. ``label`` names the place in messages."""

    label: str
    values: Mapping[str, Any] = field(default_factory=dict)
    """By configuration key."""
    file: Path | None = None
    """The file that says it, if it is one."""


@dataclass(frozen=True)
class Override:
    """What holds for targets that match ``target`` only, in place of what the file says besides."""

    target: str
    origin: Origin
    folder: Path = field(default=Path(), compare=False)

    def concerns(self, target: str) -> bool:
        return target_matches(target, self.target, self.folder)


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
    allow: tuple[Allow, ...] = ()
    baseline: Path | None = None
    """A file of known findings, which do not fail."""
    rule_files: tuple[Path, ...] = ()
    """Folders and files with rules of the project's own: code."""
    targets: tuple[str, ...] = ()
    """What is checked where the command line names nothing."""
    probe: ProbeSettings = ProbeSettings()
    overrides: tuple[Override, ...] = ()
    """For some targets only; ``configuration.of_target`` applies them."""
    sources: tuple[Origin, ...] = field(default=(), compare=False, repr=False)
    """What was merged, the last being the most specific."""
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    """By configuration key ("fail-on"): the places that set it, for messages and `initlint config`."""

    def place(self, key: str) -> str:
        """Where ``key`` was set and what it is called, as messages name it: "pyproject.toml: ignore"."""
        return ": ".join(filter(None, (" and ".join(self.origins.get(key, ())), key)))

    def covers(self, *names: str) -> bool:
        """Whether ``layers`` and ``exclude_layers`` let something pass that goes by ``names`` (a layer's name, its
        tensors' addresses)."""
        wanted = not self.layers or any(matches(name, self.layers) for name in names)
        return wanted and not any(matches(name, self.exclude_layers) for name in names)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether ``name`` is one of ``patterns`` or matches one as a glob.

    Equality comes first because the address of a packed part, ``lstm.weight_ih_l0[f]``, reads as a character class.
    """
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
