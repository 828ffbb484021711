"""What building a model a second time shows: memory that nobody wrote, draws that the seed does not reach.

Plain frozen data; ``probe.rebuilt`` finds it out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum

from .model import NotChecked

BUILDERS_ONLY = "needs a function or class that builds the model, so that it can be built again (pkg.mod:build)"


class Reading(StrEnum):
    """What NaN in a tensor does to the outputs."""

    TRAINING = "training"
    """With batch statistics and without dropout, as in training, they are NaN, or the forward raises."""
    EVALUATION = "evaluation"
    """They are NaN in evaluation mode only, as behind running statistics."""
    NONE = "none"
    """Nothing: it is not read, or written before it is."""
    UNKNOWN = "unknown"
    """The forward could not be run."""


@dataclass(frozen=True, slots=True)
class Unwritten:
    """A parameter or buffer with ``values`` of ``size`` values that are NaN only where fresh memory is."""

    address: str
    values: int
    size: int
    parameter: bool
    reading: Reading


@dataclass(frozen=True, slots=True)
class Fixed:
    """A trainable tensor that looks drawn and is the same, bit for bit, under two seeds."""

    address: str
    size: int


@dataclass(frozen=True)
class Builds:
    """Two builds of one model compared; ``reason`` says why there is nothing to compare."""

    reason: str = ""
    unwritten: tuple[Unwritten, ...] = ()
    fixed: tuple[Fixed, ...] = ()
    varying: int = 0
    """Trainable tensors that differ between two seeds."""
    learned: int = 0
    """Trainable tensors that are the same under two seeds and look neither drawn nor computed: loaded ones."""
    shared: int = 0
    """Tensors that both builds hold in the same memory."""
    not_checked: tuple[NotChecked, ...] = ()

    def after(self, written: Collection[str]) -> Builds:
        """What they would show with the tensors at the addresses ``written`` drawn in the builder."""
        unwritten = tuple(each for each in self.unwritten if each.address not in written)
        return replace(self, unwritten=unwritten, fixed=tuple(e for e in self.fixed if e.address not in written))


NOT_BUILT = Builds(BUILDERS_ONLY)
