"""Rows outside of maps that start equal, in a graph: tokens, prompts, latents, queries, slots (see ``learnt_rows``).

Rows whose gradients are equal, whatever the loss, get equal steps. So all of them are moved along one direction, once
together and once apart, one half against the other. No output changes then if the outputs depend on all rows alike.
Rows that no output depends on yet, as behind a gate of zeros, tell nothing; nor do those that fall into groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ..kinds import Role
from ..model import Model, NotChecked, Tensor
from .onnx_symmetry import cancel
from .payload import Array
from .runtime import RuntimeFailure
from .setup import Setup
from .signals import Alike
from .tangents import TangentRuns, Tangents, strength
from .weights import Weights, normal

DRAWS = 2
"""Of signs: rows that fall into two groups may happen to be balanced in one."""
RUNS = 16
"""Per model: a table of positions that starts constant takes two for each axis, and a Swin has one in each of 24
blocks. What is looked up comes last: most such tables are of positions."""
CURVED = 1e-2
"""Of what rows do together: curvature, which operators without a rule add, is below (``differentiation.STEP``)."""


@dataclass(frozen=True)
class _Suspect:
    """Rows of one tensor along one axis, some of which are equal."""

    address: str
    stored: str
    shape: tuple[int, ...]
    axis: int
    looked_up: bool
    classes: Sequence[Array]
    """Numbers of the rows that are equal, class by class."""


@dataclass
class LearntRows:
    setup: Setup
    weights: Weights
    outputs: Sequence[str]
    """All that hold numbers: rows are apart wherever one of these tells them apart."""
    not_probed: list[NotChecked] = field(default_factory=list, init=False)
    """What was not asked to the end, and why."""
    _left: int = field(default=RUNS, init=False)

    def alike(self, model: Model) -> tuple[Alike, ...]:
        """Of each tensor at most one, of the first axis along which rows stay equal."""
        suspects = [each for tensor in model.tensors for each in self._suspects(tensor)]
        suspects.sort(key=lambda each: each.looked_up)
        return tuple(self._judged(suspects).values()) if suspects else ()

    def _judged(self, suspects: Sequence[_Suspect]) -> dict[str, Alike]:
        found: dict[str, Alike] = {}
        try:
            runs = TangentRuns(self.setup, list(dict.fromkeys(each.stored for each in suspects)), self.outputs)
            for each in suspects if runs.reached else ():
                if each.address in found:
                    continue
                if self._left < 2:
                    self._note(each.address, f"more than {RUNS} runs would be needed for all such tensors")
                elif self._stay(runs, each):
                    together = sum(len(rows) - 1 for rows in each.classes)
                    count = each.shape[each.axis]
                    found[each.address] = Alike(each.address, each.axis, count, together, self.setup.graph.drops)
        except RuntimeFailure as failure:
            self._note("rows that start equal", str(failure))
        return found

    def _note(self, at: str, reason: str) -> None:
        note = NotChecked(at, f"whether its equal rows stay so: {reason}")
        if note not in self.not_probed:
            self.not_probed.append(note)

    def _suspects(self, tensor: Tensor) -> Iterator[_Suspect]:
        looked_up = tensor.role is Role.TABLE
        if not tensor.trainable or tensor.computed or not (looked_up or tensor.role is Role.OTHER):
            return
        stored = self.weights.name(tensor.address)
        if sum(size > 1 for size in tensor.shape) < 2 or stored not in self.setup.graph.known:
            return
        array = self.weights.array(stored)
        if array.shape != tensor.shape:
            return
        for axis in (0,) if looked_up else range(array.ndim):
            if classes := _classes(array, axis):
                yield _Suspect(tensor.address, stored, array.shape, axis, looked_up, classes)

    def _stay(self, runs: TangentRuns, suspect: _Suspect) -> bool:
        together = strength(self._moved(runs, suspect, [np.ones(len(rows)) for rows in suspect.classes]), self.outputs)
        for draw in range(DRAWS):
            signs = [_signs(len(rows), draw) for rows in suspect.classes]
            one = self._moved(runs, suspect, signs)
            if strength(one, self.outputs) > CURVED * together:
                return False
            other = self._moved(runs, suspect, [-each for each in signs])
            odd = {name: 0.5 * (one.moves[name] - other.moves[name]) for name in one.moves}
            if not cancel(together, strength(Tangents(one.outputs, odd), self.outputs)):
                return False
        return True

    def _moved(self, runs: TangentRuns, suspect: _Suspect, factors: Sequence[Array]) -> Tangents:
        """How the outputs change as the rows of each class move along one direction, each by its factor."""
        shape, axis = suspect.shape, suspect.axis
        rows = np.zeros((shape[axis], prod(shape) // shape[axis]), np.float32)
        for number, (own, by) in enumerate(zip(suspect.classes, factors, strict=True)):
            rows[own] = normal((1, rows.shape[1]), 1.0, suspect.stored, axis, number) * by[:, None]
        others = (*shape[:axis], *shape[axis + 1 :])
        direction = np.moveaxis(rows.reshape(shape[axis], *others), 0, axis)
        self._left -= 1
        return runs.run({suspect.stored: np.ascontiguousarray(direction)}, 0)


def _classes(array: Array, axis: int) -> list[Array]:
    """Numbers of the slices along ``axis`` that are equal, class by class; most are told by their first values."""
    if array.shape[axis] < 2 or array.shape[axis] == array.size:
        return []
    first = array[tuple(slice(None) if each == axis else 0 for each in range(array.ndim))] + np.float32(0)
    _, number, count = np.unique(first, return_inverse=True, return_counts=True)
    near = np.flatnonzero(count[number.reshape(-1)] > 1)
    if not len(near):
        return []
    rows = np.ascontiguousarray(np.moveaxis(array, axis, 0)[near].reshape(len(near), -1)) + np.float32(0)
    _, number, count = np.unique(rows.view(np.uint32), axis=0, return_inverse=True, return_counts=True)
    return [near[number.reshape(-1) == each] for each in np.flatnonzero(count > 1)]


def _signs(count: int, draw: int) -> Array:
    """As many 1 as -1, and a 0 where the number is odd, so that not only the first power adds up to nothing."""
    signs = np.sign(np.arange(count) - (count - 1) / 2).astype(np.float32)
    return np.random.default_rng(draw).permutation(signs)
