"""Which outputs of a linear map a value holds, followed through reshapes, transpositions, slices and splits.

An axis of a value is a product of factors, the outermost first. A factor of ``stride`` n > 0 counts every n-th unit of
the map, as the heads of a packed projection do; any other factor counts samples or places. This is exact whatever the
idiom: ``view(b, n, 3, h, d)`` and ``view(b, n, h, 3, d)`` differ in the strides of what is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

OTHER = 0
"""Stride of what is not a unit."""
OPAQUE = -1
"""Stride of an axis of which it is not known how much of it is units."""


@dataclass(frozen=True, slots=True)
class Factor:
    """``size`` is 0 where it is not known, which happens to samples and places only."""

    size: int
    stride: int = OTHER


Axis = tuple[Factor, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of the outputs of the operation at ``position``."""

    position: int
    units: int
    start: int
    axes: tuple[Axis, ...]

    @classmethod
    def whole(cls, position: int, units: int, sizes: Sequence[int], axis: int) -> Cut:
        """Every output, along one axis."""
        axes = [(Factor(size),) for size in sizes]
        axes[axis] = (Factor(units, 1),)
        return cls(position, units, 0, tuple(axes))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(prod(factor.size for factor in axis) for axis in self.axes)

    @property
    def left(self) -> int:
        """How many units it holds."""
        return prod(factor.size for axis in self.axes for factor in axis if factor.stride > 0)

    def block(self, blocks: int) -> int | None:
        """The number of the block that it is, of so many equal consecutive ones; None where it is none of them."""
        height, expected = self.units // blocks, 1
        units = [f for axis in self.axes for f in axis if f.stride > 0 and f.size > 1]
        for factor in sorted(units, key=lambda each: each.stride):
            if factor.stride != expected:
                return None
            expected *= factor.size
        return self.start // height if expected == height and self.start % height == 0 else None

    def transposed(self, order: Sequence[int]) -> Cut | None:
        if sorted(order) != list(range(len(self.axes))):
            return None
        return replace(self, axes=tuple(self.axes[axis] for axis in order))

    def sliced(self, axis: int, start: int, size: int) -> Cut | None:
        """``size`` entries of one axis from ``start`` on; None where that cuts through a factor."""
        merged = _merged(self.axes[axis])
        if any(factor.stride == OPAQUE for factor in merged):
            return None
        if not any(factor.stride > 0 for factor in merged):
            return replace(self, axes=_with(self.axes, axis, (Factor(size),)))
        if start < 0 or size <= 0:  # of an unknown size nothing is known to be whole
            return None
        inner = prod(factor.size for factor in merged[1:])
        outer = merged[0]
        if outer.stride == OTHER or not inner or start % inner or size % inner or start + size > outer.size * inner:
            whole = start == 0 and size == prod(factor.size for factor in merged)
            return self if whole else None
        kept = (Factor(size // inner, outer.stride), *merged[1:])
        return replace(self, start=self.start + start // inner * outer.stride, axes=_with(self.axes, axis, kept))

    def dropped(self, axis: int) -> Cut:
        """Without an axis of one entry."""
        return replace(self, axes=(*self.axes[:axis], *self.axes[axis + 1 :]))

    def reshaped(self, sizes: Sequence[int]) -> Cut | None:
        """Its factors dealt out to axes of these sizes, 0 where one is not known; None where that cannot be told."""
        rest = [factor for axis in self.axes for factor in axis if factor.size != 1]
        head: list[Axis] = []
        tail: list[Axis] = []
        wanted = list(sizes)
        while wanted and wanted[-1] and (taken := _taken(rest, wanted[-1], last=True)) is not None:
            tail.insert(0, taken)
            wanted.pop()
        while len(wanted) > 1 and wanted[0] and (taken := _taken(rest, wanted[0], last=False)) is not None:
            head.append(taken)
            wanted.pop(0)
        middle = _guessed(rest, wanted) or _spread(rest, wanted)
        return None if middle is None else replace(self, axes=(*head, *middle, *tail))


def _guessed(rest: Sequence[Factor], wanted: Sequence[int]) -> list[Axis] | None:
    """Axes of unknown size taken for factors of unknown size, one for one, if all that is left then bears it out."""
    left, axes = list(rest), list(wanted)
    if any(factor.stride == OPAQUE for factor in rest):
        return None
    found: list[Axis] = []
    while len(axes) > 1 and (taken := _first(left, axes[0])) is not None:
        found.append(taken)
        axes.pop(0)
    return [*found, *(_spread(left, axes) or ())] if found and _agree(left, axes) else None


def _spread(rest: list[Factor], wanted: list[int]) -> list[Axis] | None:
    """What is left of factors dealt out to what is left of axes, after all that fit each other."""
    if any(factor.stride == OPAQUE for factor in rest) or (rest and not wanted):
        return None
    if all(factor.stride == OTHER for factor in rest):
        return [(Factor(size),) for size in wanted]
    if len(wanted) == 1 and wanted[0] in (0, prod(factor.size for factor in rest)):
        return [tuple(rest)]
    return [(Factor(0, OPAQUE), *rest), *[(Factor(0, OPAQUE),)] * (len(wanted) - 1)]


def _agree(rest: list[Factor], wanted: list[int]) -> bool:
    """Whether what is left bears out that an axis of unknown size was the factor of unknown size: one for one."""
    if not rest:
        return max(wanted, default=0) <= 1
    alike = len({factor.stride == OTHER for factor in rest}) == 1
    return alike and len(wanted) == 1 and wanted[0] in (0, prod(factor.size for factor in rest))


def _with(axes: tuple[Axis, ...], place: int, axis: Axis) -> tuple[Axis, ...]:
    return (*axes[:place], axis, *axes[place + 1 :])


def _merged(axis: Axis) -> Axis:
    """Neighbouring factors that count on where the other ends are one."""
    merged: list[Factor] = []
    for factor in axis:
        if factor.size == 1:
            continue
        if merged and factor.stride > 0 and merged[-1].stride == factor.size * factor.stride:
            merged[-1] = Factor(merged[-1].size * factor.size, factor.stride)
        else:
            merged.append(factor)
    return tuple(merged)


def _first(rest: list[Factor], size: int) -> Axis | None:
    """The outermost factors that make up an axis of ``size``; one of unknown size is taken for one of those."""
    if size:
        return _taken(rest, size, last=False)
    if rest and rest[0].stride == OTHER:
        return (rest.pop(0),)
    return None


def _taken(rest: list[Factor], size: int, last: bool) -> Axis | None:
    """Take the innermost (or outermost) factors that make up an axis of ``size`` out of ``rest``, splitting one."""
    found: list[Factor] = []
    pending = list(rest)
    while size > 1:
        if not pending or not pending[-1 if last else 0].size:
            return None
        factor = pending.pop(-1 if last else 0)
        if size % factor.size == 0:
            part, size = factor, size // factor.size
        elif factor.size % size == 0:
            remaining = factor.size // size
            inner, outer = (size, remaining) if last else (remaining, size)
            scaled = factor.stride * inner if factor.stride > 0 else factor.stride
            pieces = Factor(outer, scaled), Factor(inner, factor.stride)
            part, back = (pieces[1], pieces[0]) if last else pieces
            pending.insert(len(pending) if last else 0, back)
            size = 1
        else:
            return None
        found.insert(0 if last else len(found), part)
    rest[:] = pending
    return tuple(found)
