"""What a case of the benchmark is: a bug with its repaired twin, or an idiom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Bug:
    """``build(True)`` is the bug as it was, ``build(False)`` the same repaired; both draw the same where they can."""

    name: str
    task: str
    """Names one of ``training.tasks()``."""
    build: Callable[[bool], nn.Module]
    at: tuple[str, ...]
    """Patterns of the addresses that are to blame; any of them will do."""
    source: str = ""
    """Where it happened."""
    pending: tuple[str, ...] = ()
    """Rules that are to find it and are not written yet: to miss it is expected until then."""


@dataclass(frozen=True)
class Idiom:
    """Deliberate, and easily mistaken. Without a ``task`` the build gives its own inputs, of which one batch serves."""

    name: str
    build: Callable[[], nn.Module | tuple[nn.Module, tuple[Tensor, ...]]]
    task: str = ""
