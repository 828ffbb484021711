"""Which equal units and twin weights of a graph stay equal: those whose gradients are equal, whatever the loss.

Two rows are moved in opposite directions. If no output changes, the outputs depend on both in the same way: equal
gradients, equal steps, and so on for ever. That needs equal biases, too, which later steps would notice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..kinds import Role
from ..model import Layer, Model, Tensor
from ..stats import WeightStats
from .limits import DRAWN, MEMBERS, SAMPLE
from .payload import Array
from .setup import Setup
from .signals import Twin
from .tangents import TangentRuns, Tangents, strength
from .weights import Weights, normal

CANCELS = 1e-4
"""Of what the same rows do when they move together: rounding leaves 1e-7 per operation, and up to 1e-3 of the tangents
of operators without a rule (``differentiation.STEP``) is curvature, which is equal too."""
TESTS = 64
"""Runs per weight; classes and units that would need more count as different."""
HALVINGS = 128
"""Runs per model that may go into the search for blocks of equal units."""
SINGLES = 256
"""Runs per model that may go into comparing units one by one: a recurrence alone has eight parts of units."""
HOPE = 24
"""Runs without a block, after which there is none: the heads of 192 packed units are found by the 15th."""


@dataclass
class Symmetry:
    setup: Setup
    weights: Weights
    chosen: Sequence[str]
    heads: Sequence[str] = ()
    """Outputs that a loss may read as well: what differs there is not equal for good."""
    _halvings: int = field(default=HALVINGS, init=False)
    _singles: int = field(default=SINGLES, init=False)

    def still_equal(self, model: Model, stats: Mapping[str, WeightStats]) -> dict[str, int]:
        """By address of each weight that has equal units: how many equal another one for good."""
        found = {}
        for layer in model.layers:
            for tensor in (layer.weight, layer.recurrent):
                if tensor is None or tensor.address in found or not self._is_learnt(tensor):
                    continue
                if _has_equal_units(layer, tensor, stats):
                    classes = self._classes(layer, tensor)
                    for address, alike in _by_part(tensor, classes):
                        found[address] = equal = self._equal_in_all(tensor, alike)
                        if address != tensor.address:
                            found[tensor.address] = found.get(tensor.address, 0) + equal
        return found

    def _equal_in_all(self, tensor: Tensor, classes: list[Array]) -> int:
        equal = self._still_equal(tensor, classes)
        if not equal or not self.heads:
            return equal
        return min(equal, replace(self, chosen=[*self.chosen, *self.heads], heads=())._still_equal(tensor, classes))

    def _is_learnt(self, tensor: Tensor) -> bool:
        """Its rows move on their own: not those of a product of parameters, as of seeds that are queries alone."""
        fact = self.setup.known.get(tensor.address)
        return not tensor.computed or (fact is not None and fact.static in (tensor.shape, tensor.shape[::-1]))

    def _classes(self, layer: Layer, tensor: Tensor) -> list[Array]:
        """Row numbers of units that are equal, biases included, within one group and one packed part."""
        rows = self.weights.rows(tensor.address)
        height = tensor.view.units // max(1, len(tensor.parts))
        keys: list[Array] = [np.arange(len(rows), dtype=np.float32)[:, None] // height, rows]
        for bias in (layer.bias, layer.recurrent_bias):
            if bias is not None and bias.size == len(rows):
                keys.append(self.weights.rows(bias.address).reshape(len(rows), -1))
        joined = np.ascontiguousarray(np.concatenate(keys, axis=1) + np.float32(0))
        _, number, count = np.unique(joined.view(np.uint32), axis=0, return_inverse=True, return_counts=True)
        number = number.reshape(-1)
        return [np.flatnonzero(number == each) for each in np.flatnonzero(count > 1)]

    def _still_equal(self, tensor: Tensor, classes: list[Array]) -> int:
        runs = TangentRuns(self.setup, self.weights.values_of([tensor.address]), self.chosen)
        if not runs.reached:
            return 0
        together, apart = self._sizes(runs, tensor, classes)
        if cancel(together, apart):
            return sum(len(each) - 1 for each in classes)
        count = sum(map(len, classes))
        if together == apart == 0 or count == 2:  # what moves nothing is equal to nothing
            return 0
        if count > min(TESTS, self._singles):
            return self._by_halves(runs, tensor, classes)
        self._singles -= count
        return sum(self._equal_to_first(runs, tensor, each) for each in classes)

    def _equal_to_first(self, runs: TangentRuns, tensor: Tensor, rows: Array) -> int:
        """How many of ``rows`` change the outputs as the first one does, each moved by itself."""
        along = normal((1, self.weights.rows(tensor.address).shape[1]), 1.0, tensor.address)
        first = self._moved(runs, tensor, rows[:1], along)
        equal = 0
        for other in rows[1:]:
            second = self._moved(runs, tensor, [other], along)
            sums = {name: first.moves[name] + second.moves[name] for name in first.moves}
            differences = {name: 0.5 * (first.moves[name] - second.moves[name]) for name in first.moves}
            sizes = (strength(Tangents(first.outputs, each), self.chosen) for each in (sums, differences))
            equal += cancel(*sizes)
        return equal

    def _moved(self, runs: TangentRuns, tensor: Tensor, rows: Sequence[int] | Array, along: Array) -> Tangents:
        direction = np.zeros(self.weights.rows(tensor.address).shape, np.float32)
        direction[rows] = along
        return runs.run(self.weights.stored(tensor.address, direction, zero=True), 0)

    def _by_halves(self, runs: TangentRuns, tensor: Tensor, classes: list[Array]) -> int:
        """Neighbours are more often alike than others: heads, gates and experts are blocks of rows."""
        pending, equal = deque(classes if len(classes) > 1 else _halves(classes[0])), 0
        for run in range(min(TESTS, self._halvings)):
            if not pending or (run == HOPE and not equal):
                break
            self._halvings -= 1
            rows = pending.popleft()
            if self._cancels(runs, tensor, [rows]):
                equal += len(rows) - 1
            else:
                pending += _halves(rows)
        return equal

    def _cancels(self, runs: TangentRuns, tensor: Tensor, classes: Sequence[Array]) -> bool:
        """Whether rows of each class, moved apart, change nothing that they change when they move together."""
        return cancel(*self._sizes(runs, tensor, classes))

    def _sizes(self, runs: TangentRuns, tensor: Tensor, classes: Sequence[Array]) -> tuple[float, float]:
        """How much the outputs change as the rows of each class move together, and as they move apart."""
        shape = self.weights.rows(tensor.address).shape
        together, apart = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for number, rows in enumerate(classes):
            along = normal((1, shape[1]), 1.0, tensor.address, number)
            factors = normal((len(rows), 1), 1.0, tensor.address, number, "factors")
            together[rows] = along
            apart[rows] = along * (factors - factors.mean())
        one, other = (
            strength(runs.run(self.weights.stored(tensor.address, rows, zero=True), 0), self.chosen)
            for rows in (together, apart)
        )
        return one, other

    # -- twins -------------------------------------------------------------------------------------------------------

    def twins(self, model: Model, stats: Mapping[str, WeightStats]) -> tuple[Twin, ...]:
        return tuple(Twin(one, other, self._separated(one, other)) for one, other in self._pairs(model, stats))

    def _pairs(self, model: Model, stats: Mapping[str, WeightStats]) -> Iterator[tuple[str, str]]:
        """(address, address of an earlier one): drawn weights with the same moments, found to be equal."""
        seen: dict[tuple[object, ...], list[str]] = {}
        for tensor in model.tensors:
            found = stats.get(tensor.address)
            if not tensor.trainable or len(tensor.shape) < 2 or tensor.size < 2 or found is None or not found.std:
                continue
            key = (tensor.shape, found.mean, found.std, found.min, found.max)
            alike = seen.setdefault(key, [])
            rows = self.weights.rows(tensor.address) if alike else None
            first = next((a for a in alike if rows is not None and np.array_equal(self.weights.rows(a), rows)), "")
            if not first:
                alike.append(tensor.address)
            elif (
                rows is not None
                and _looks_drawn(rows)
                and self.weights.name(first) != self.weights.name(tensor.address)
            ):
                yield tensor.address, first

    def _separated(self, one: str, other: str) -> bool:
        runs = TangentRuns(self.setup, self.weights.values_of([one, other]), self.chosen)
        if not runs.reached:
            return True
        along = normal(self.weights.rows(one).shape, 1.0, one)
        first = self.weights.stored(one, along, zero=True)
        sizes = []
        for sign in (1.0, -1.0):
            second = self.weights.stored(other, along * np.float32(sign), zero=True)
            sizes.append(strength(_told_alike(runs.run({**first, **second}, 0), self.chosen), self.chosen))
        return not cancel(*sizes)


def cancel(together: float, apart: float) -> bool:
    """Whether what moves apart changes nothing of what it changes when it moves together."""
    return bool(0 < together < np.inf and apart <= CANCELS * together)


def _halves(rows: Array) -> list[Array]:
    return [half for half in np.array_split(rows, 2) if len(half) > 1]


def _by_part(tensor: Tensor, classes: Sequence[Array]) -> Iterator[tuple[str, list[Array]]]:
    """Classes of equal rows by the address of the packed part that they are in, or of the tensor."""
    height = tensor.view.groups * tensor.view.units // len(tensor.part_addresses)
    for number, address in enumerate(tensor.part_addresses):
        alike = [rows for rows in classes if rows[0] // height == number]
        if alike:
            yield address, alike


def _has_equal_units(layer: Layer, tensor: Tensor, stats: Mapping[str, WeightStats]) -> bool:
    if tensor.role not in (Role.WEIGHT, Role.RECURRENT_WEIGHT) or layer.shuffles_units or not tensor.trainable:
        return False
    if tensor.view.units // max(1, len(tensor.parts)) < 2:
        return False
    parts = [stats[address] for address in tensor.part_addresses if address in stats]
    return any(part.duplicate_units or part.zero_units > 1 or part.constant for part in parts)


def _looks_drawn(rows: Array) -> bool:
    sample = rows.reshape(-1)[:: max(1, rows.size // SAMPLE)][:SAMPLE]
    return len(np.unique(sample)) >= DRAWN * len(sample)


def _told_alike(tangents: Tangents, chosen: Sequence[str]) -> Tangents:
    """As a loss with one target sees it: outputs of one shape, and equal slices of an output, are added up."""
    moves: dict[str, Array] = {}
    first: dict[tuple[int, ...], str] = {}
    for name in chosen:
        if name in tangents.moves:
            folded = _folded(tangents.outputs[name], tangents.moves[name])
            place = first.setdefault(folded.shape, name)
            moves[place] = moves[place] + folded if place in moves else folded
    return Tangents(tangents.outputs, moves)


def _folded(output: Array, tangent: Array) -> Array:
    """Tangents of equal slices along an axis, summed in the place of the first one."""
    folded = tangent.copy()
    for axis, size in enumerate(output.shape):
        if not 1 < size <= MEMBERS:
            continue
        slices, sums = np.moveaxis(output, axis, 0), np.moveaxis(folded, axis, 0)
        for number in range(1, size):
            if np.ptp(slices[number]) > 0:
                same = (n for n in range(number) if np.array_equal(slices[n], slices[number]))
                place = next(same, None)
                if place is not None:
                    sums[place] += sums[number]
                    sums[number] = 0
    return folded
