"""Statistics per unit, computed inside the graph, so that no activation has to leave it.

The variance takes two passes: subtract the unit's mean, then average the squares; what rounding left of the mean is
measured as well and removed afterwards (Chan, Golub & LeVeque 1983, the corrected two-pass algorithm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from .emit import Emitter

ROWS = 5
"""Rows of a raw result."""


@dataclass(frozen=True, slots=True)
class Place:
    """A value and the axis of its units; ``rank`` is the value's own, 0 where it has no axis at all."""

    value: str
    axis: int
    rank: int

    @staticmethod
    def of(value: str, unit_axis: int, rank: int) -> Place:
        """An axis that the value does not have gives way to its last one."""
        axis = unit_axis + rank if unit_axis < 0 else unit_axis
        return Place(value, axis if 0 <= axis < rank else max(rank - 1, 0), rank)

    def units(self, shape: Sequence[int]) -> int:
        """Number of units of a value of this shape."""
        return int(shape[self.axis]) if self.rank else 1

    def square_length(self, shape: Sequence[int]) -> int:
        """What the squares of ``Reductions.raw`` have to be divided by: they are summed over positions."""
        return prod(int(size) for size in shape[2:]) if self.rank > 1 and self.axis == 1 else 1

    @property
    def factor_shape(self) -> tuple[int, ...]:
        """The shape in which one factor per unit multiplies the view (``Reductions.view``)."""
        if self.rank <= 1:
            return (1, -1)
        if self.axis == 1:
            return (1, -1, 1)
        return tuple(-1 if axis == self.axis else 1 for axis in range(self.rank))


@dataclass
class Reductions:
    """Writes reductions, each once however many readers it has."""

    emit: Emitter
    floats: frozenset[str] = frozenset()
    """Values known to be float32; others are cast before they are measured."""
    _columns: dict[str, str] = field(default_factory=dict)
    _means: dict[str, str] = field(default_factory=dict)
    _centred: dict[str, str] = field(default_factory=dict)
    _squares: dict[str, str] = field(default_factory=dict)
    _raws: dict[Place, str] = field(default_factory=dict)

    def by_channel(self, value: str) -> str:
        """The value as (samples, channels, positions): a view, not a copy."""
        if value not in self._columns:
            self._columns[value] = self.emit.op("Reshape", value, self.emit.ints(0, 0, -1))
        return self._columns[value]

    def centred_by_channel(self, value: str) -> tuple[str, str]:
        """(centred values, mean of their squares), as (samples, channels, positions) and (1, channels, 1)."""
        view = self.by_channel(value)
        centred, sums = self._centre(view, (0, 2)), self._square(view, (0, 2))
        length = self.emit.op("Gather", self.emit.op("Shape", view), self.emit.constant(np.array(2, np.int64)))
        return centred, self.emit.op("Div", sums, self.emit.to_float(length))

    def raw(self, place: Place, scale: str = "") -> str:
        """Write the statistics of ``place``, as (5, ...units); multiplied by ``scale`` (a value) before squaring.

        Rows: mean, mean of the centred values, mean of their squares (see ``Place.square_length``), maximum, minimum.
        """
        view, axes = self.view(place, scale)
        centred = self._centre(view, axes)
        rest = self.emit.reduce("ReduceMean", centred, axes)
        square = self._square(view, axes)
        top, bottom = (self.emit.reduce(kind, view, axes) for kind in ("ReduceMax", "ReduceMin"))
        return self.emit.op("Concat", self._means[view], rest, square, top, bottom, axis=0)

    def raw_once(self, place: Place) -> str:
        """``raw`` of a place that several points share."""
        if place not in self._raws:
            self._raws[place] = self.raw(place)
        return self._raws[place]

    def shape(self, value: str) -> str:
        return self.emit.op("Shape", value)

    def share_outside(self, place: Place, low: float, high: float) -> str:
        """Write the share per unit of values outside [low, high]."""
        view, axes = self.view(place)
        below = self.emit.op("Less", view, self.emit.floats(low))
        above = self.emit.op("Greater", view, self.emit.floats(high))
        outside = self.emit.to_float(self.emit.op("Or", below, above))
        return self.emit.reduce("ReduceMean", outside, axes)

    def share_finite(self, place: Place) -> str:
        """Write the share per unit of finite values: a comparison with infinity is false for NaN as well."""
        view, axes = self.view(place)
        finite = self.emit.op("Less", self.emit.op("Abs", view), self.emit.constant(np.array(np.inf, np.float32)))
        return self.emit.reduce("ReduceMean", self.emit.to_float(finite), axes)

    def variance_along(self, value: str, axis: int) -> str:
        """Write a scalar: the mean over all else of the variance along ``axis``."""
        view = value if value in self.floats else self._as_float(value)
        centred = self.emit.op("Sub", view, self.emit.reduce("ReduceMean", view, (axis,)))
        return self.emit.reduce_all("ReduceMean", self.emit.op("Mul", centred, centred))

    def all_finite(self, value: str) -> tuple[str, str]:
        """Write two scalars: 1 if all elements are finite; 1 if none is NaN."""
        size = self.emit.op("Abs", value)
        finite = self.emit.op("Less", size, self.emit.constant(np.array(np.inf, np.float32)))
        infinite = self.emit.op("Greater", size, self.emit.floats(float(np.finfo(np.float32).max)))
        number = self.emit.op("Or", finite, infinite)
        return (
            self.emit.reduce_all("ReduceMin", self.emit.to_float(finite)),
            self.emit.reduce_all("ReduceMin", self.emit.to_float(number)),
        )

    def view(self, place: Place, scale: str = "") -> tuple[str, tuple[int, ...]]:
        """The value in a shape with at least one axis beside the units', and these axes; the units lie in axis 1."""
        value = place.value if place.value in self.floats else self._as_float(place.value)
        if place.rank <= 1:
            axes: tuple[int, ...] = (0,)
            view = self.emit.op("Reshape", value, self.emit.ints(1, -1))
        elif place.axis == 1:
            axes, view = (0, 2), self.by_channel(value)
        else:
            axes, view = tuple(axis for axis in range(place.rank) if axis != place.axis), value
        return (self.emit.op("Mul", view, scale) if scale else view), axes

    def _as_float(self, value: str) -> str:
        key = f"{value} as float"
        if key not in self._columns:
            self._columns[key] = self.emit.to_float(value)
        return self._columns[key]

    def _centre(self, view: str, axes: tuple[int, ...]) -> str:
        if view not in self._centred:
            self._means[view] = self.emit.reduce("ReduceMean", view, axes)
            self._centred[view] = self.emit.op("Sub", view, self._means[view])
        return self._centred[view]

    def _square(self, view: str, axes: tuple[int, ...]) -> str:
        """Mean square of the centred view; by channel, the mean over samples of the sum over positions.

        Over positions ReduceSumSquare needs no array of squares and takes half the time; it adds one by one, so the
        samples are averaged separately to keep the sums short (error 6e-6 over 10^5 values, 2e-5 in one go).
        """
        if view not in self._squares:
            centred = self._centre(view, axes)
            if axes == (0, 2):
                sums = self.emit.reduce("ReduceSumSquare", centred, (2,))
                self._squares[view] = self.emit.reduce("ReduceMean", sums, (0,))
            else:
                squares = self.emit.op("Mul", centred, centred)
                self._squares[view] = self.emit.reduce("ReduceMean", squares, axes)
        return self._squares[view]
