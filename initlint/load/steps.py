"""What one ATen operator becomes: nodes in the vocabulary of the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Operand = Any
"""A tensor, or a Python number that becomes a constant."""


@dataclass(frozen=True)
class Step:
    """One node: ``inputs`` are tensors, numbers, or ``Previous`` for the result of the step before."""

    op: str
    inputs: Sequence[Operand]
    attributes: dict[str, Any] = field(default_factory=dict)


class Previous:
    """Stands for the result of the step before."""


PREVIOUS = Previous()

Translation = Callable[[Sequence[Any], dict[str, Any]], list[Step]]

VARIANCE, DEVIATION = "initlint::Variance", "initlint::Deviation"
"""Of the entries along some axes, without a decomposition; a second result is their mean."""
