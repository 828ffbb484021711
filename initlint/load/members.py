"""Weights that several parameters make up: a projection by ``cat([q, k, v])`` is three layers, not one.

Every parameter must be there once, whole, as rows of its own; whatever mixes parameters by arithmetic stays one tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np

from ..kinds import Kind
from ..model import View
from .constants import Constants
from .folding import Array
from .naming import is_generated
from .stored import Operation, Stored

_LARGEST = 2**24
"""Entries of a weight that is looked at in this way: where each of them is takes 128 MiB."""


@dataclass(frozen=True)
class _Block:
    """Rows [start, stop) of a canonical view; ``order[i, j]`` is the entry of the parameter ``root`` that is there."""

    root: str
    start: int
    stop: int
    order: Array


def members(op: Operation, constants: Constants) -> tuple[Operation, ...]:
    """One operation for each parameter that holds rows of the weight of ``op``; itself where one holds all of them."""
    joined = (op.kind in (Kind.LINEAR, Kind.CONV)) and not op.is_attention and len(constants.roots(op.weight.value)) > 1
    blocks = _blocks(op.weight, constants) if joined else []
    biases = _blocks(op.bias, constants) if blocks and op.bias is not None else []
    if not blocks or (op.bias is not None and [b.stop for b in biases] != [b.stop for b in blocks]):
        return (op,)
    view = op.weight.view
    if any(edge % view.units for block in blocks for edge in (block.start, block.stop)) and view.groups > 1:
        return (op,)
    shifts = [_member(op.bias, each) for each in biases] if op.bias is not None else [None] * len(blocks)
    return tuple(
        _only(op, block, _member(op.weight, block), shift) for block, shift in zip(blocks, shifts, strict=True)
    )


def _only(op: Operation, block: _Block, weight: Stored, bias: Stored | None) -> Operation:
    view = op.weight.view
    share = view.groups == 1 and op.fan_out is not None
    return replace(
        op,
        weight=weight,
        bias=bias,
        fan_out=op.fan_out * (block.stop - block.start) // view.units if share and op.fan_out else op.fan_out,
        units=(block.start, block.stop) if view.groups == 1 or op.kind is Kind.CONV else (0, 0),
    )


def _member(stored: Stored, block: _Block) -> Stored:
    rows, view = block.stop - block.start, stored.view
    groups = rows // view.units if view.groups > 1 else 1
    trailing = stored.shape[1:] if view.groups == 1 else stored.shape[-1:]
    shape = (rows // groups, *trailing) if groups == 1 else (groups, rows // groups, *trailing)
    order = None if np.array_equal(block.order.reshape(-1), np.arange(block.order.size)) else block.order.reshape(-1)

    def to_torch(array: Array) -> Array:
        return array.reshape(shape) if order is None else array.reshape(-1)[order].reshape(shape)

    def insert(array: Array, original: Array) -> Array:
        if order is None:
            return array.reshape(original.shape)
        changed = np.empty(original.size, array.dtype)
        changed[order] = array.reshape(-1)
        return changed.reshape(original.shape)

    return replace(
        stored,
        value=block.root,
        shape=shape,
        view=View(groups, rows // groups, view.fan_in),
        to_torch=to_torch,
        insert=insert,
        parts=(),
    )


def _blocks(stored: Stored, constants: Constants) -> list[_Block]:
    """Which rows are whose, in order; empty where they are not each of one named parameter."""
    roots = constants.roots(stored.value)
    specs = [constants.spec(root) for root in roots]
    sizes = [0 if spec is None else spec.size for spec in specs]
    if len(roots) < 2 or any(map(is_generated, roots)) or not sum(sizes) == prod(stored.shape) <= _LARGEST:
        return []
    starts = np.cumsum([0, *sizes])
    entries = {
        root: np.arange(start, start + spec.size).reshape(spec.shape)
        for root, start, spec in zip(roots, starts, specs, strict=False)
        if spec is not None
    }
    places = constants.arranged(stored.value, entries)
    if places is None or places.size != starts[-1]:
        return []
    rows = stored.rows(places).reshape(stored.view.groups * stored.view.units, stored.view.fan_in)
    owner = np.searchsorted(starts, rows, side="right") - 1
    edges = [0, *(np.flatnonzero(np.diff(owner[:, 0])) + 1).tolist(), len(rows)]
    blocks = []
    for first, last in pairwise(edges):
        which = int(owner[first, 0])
        order = rows[first:last] - starts[which]
        if not np.array_equal(np.sort(order, axis=None), np.arange(sizes[which])):
            return []  # in several places, not whole, or beside another one in a row
        blocks.append(_Block(roots[which], first, last, order))
    return blocks
