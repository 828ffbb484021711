"""Weighted operations and their tensors, between the file's layout and PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..kinds import Kind, Role
from ..model import View
from .folding import Array
from .graph import Node

Layout = Callable[[Array], Array]
Insertion = Callable[[Array, Array], Array]


def same(array: Array) -> Array:
    return array


def replace_all(array: Array, original: Array) -> Array:
    """The new values take the place of all old ones, in the stored shape."""
    return array.reshape(original.shape)


@dataclass(frozen=True)
class Stored:
    """One tensor of a layer: the value that holds it and how its stored array becomes PyTorch's and back.

    ``to_torch`` turns the stored array into PyTorch's; ``insert`` puts new PyTorch values into the stored array, which
    may hold more than this tensor (another direction of a recurrence).
    """

    value: str
    role: Role
    shape: tuple[int, ...]
    view: View
    to_torch: Layout = same
    insert: Insertion = replace_all
    parts: tuple[str, ...] = ()
    suffix: str = ""
    """Name of the parameter in PyTorch where the role alone does not give it ("weight_ih_l{}_reverse")."""
    fixed: bool = False
    """Not trained: running statistics."""
    factor: float = 1.0
    """What the operator multiplies the stored values by (Gemm's alpha)."""

    def rows(self, array: Array) -> Array:
        """A view of the stored array whose leading axes count the rows of the canonical view, last axes the inputs.

        It costs no memory and is not yet multiplied by ``factor``.
        """
        return self._split(self.to_torch(array))

    def _split(self, array: Array) -> Array:
        """PyTorch's order, its axes arranged as rows and inputs."""
        return array

    def canonical(self, array: Array) -> Array:
        """Rows (groups * units, fan_in) of a stored array, all at once."""
        rows = self.rows(array).reshape(self.view.groups * self.view.units, self.view.fan_in)
        return rows if self.factor == 1.0 else rows * rows.dtype.type(self.factor)

    def restored(self, rows: Array, original: Array) -> Array:
        """The inverse of ``canonical``: what replaces the stored array ``original``."""
        values = rows if self.factor == 1.0 else rows / rows.dtype.type(self.factor)
        inserted = self.insert(self.from_canonical(values), original)
        return np.ascontiguousarray(inserted).reshape(original.shape)  # which would give a number an axis

    def from_canonical(self, rows: Array) -> Array:
        """PyTorch's order of canonical rows."""
        return rows.reshape(self.shape)


@dataclass(frozen=True)
class StoredTransposedConv(Stored):
    """A transposed convolution stores (in, out / groups, *kernel): units are the second axis."""

    def _split(self, array: Array) -> Array:
        groups, inputs = self.view.groups, array.shape[0]
        split = array.reshape(groups, inputs // groups, *array.shape[1:])
        return split.swapaxes(1, 2)

    def from_canonical(self, rows: Array) -> Array:
        groups, units = self.view.groups, self.view.units
        split = rows.reshape(groups, units, self.shape[0] // groups, -1)
        return split.transpose(0, 2, 1, 3).reshape(self.shape)


@dataclass(frozen=True)
class GateOrder:
    """ONNX packs gates per direction in its own order; PyTorch's order is the canonical one."""

    direction: int
    order: tuple[int, ...]
    """Position in ONNX of each PyTorch gate."""
    hidden: int

    def to_torch(self, array: Array) -> Array:
        """(directions, gates * hidden, ...) -> (gates * hidden, ...) of this direction."""
        one = array[self.direction]
        return np.asarray(self._gates(one)[list(self.order)].reshape(one.shape))

    def insert(self, array: Array, original: Array) -> Array:
        changed = original.copy()
        self._gates(changed[self.direction])[list(self.order)] = self._gates(array)
        return changed

    def _gates(self, one: Array) -> Array:
        return one.reshape(-1, self.hidden, *one.shape[1:])

    def half_to_torch(self, which: int) -> Layout:
        """One half (input or recurrent) of the packed bias (directions, 2 * gates * hidden)."""

        def cut(array: Array) -> Array:
            one = array[self.direction].reshape(2, -1)[which]
            return np.asarray(self._gates(one)[list(self.order)].reshape(-1))

        return cut

    def half_insert(self, which: int) -> Insertion:
        def paste(array: Array, original: Array) -> Array:
            changed = original.copy()
            half = changed[self.direction].reshape(2, -1)[which]
            self._gates(half)[list(self.order)] = self._gates(array)
            return changed

        return paste


@dataclass(frozen=True)
class Operation:
    """One weighted operation before it has a name."""

    kind: Kind
    node: Node
    inputs: tuple[str, ...]
    """Values that carry data into it."""
    output: str
    """Value after the bias."""
    unit_axis: int
    weight: Stored
    bias: Stored | None = None
    recurrent: Stored | None = None
    recurrent_bias: Stored | None = None
    others: tuple[Stored, ...] = ()
    fan_in: int | None = None
    fan_out: int | None = None
    absorbed: frozenset[int] = frozenset()
    segment: str = ""
    fused: str = ""
    """Name of a non-linearity that the operator applies itself."""
    is_attention: bool = False
    outputs: tuple[str, ...] = field(default=())
    """Every value it produces, ``output`` included."""
    units: tuple[int, int] | None = None
    """The units of the output that are its own, where others share it; (0, 0) where they are on another axis."""
