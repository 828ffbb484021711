"""A weight's canonical rows, piece by piece: a tensor of any size and layout costs the memory of one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import numpy as np

from .folding import Array

BLOCK_BYTES = 4 * 2**20
"""Statistics read weights in pieces of this size: small against any model, large against the cost of a call."""

STRIDED_BYTES = 64 * 2**20
"""The same for a transposed weight: each piece has to visit every page of it, so that fewer pieces are faster."""

_SLAB_BYTES = 16 * 2**20
"""Stretch of a file that copying a transposed piece visits before it gives the memory back."""


_TILE_BYTES = 2**16
"""A tile is not smaller than this: each costs a call."""

_TILE = 32
"""Steps along the stored matrix's rows that are transposed at a time: 0.8 s for 256 MiB, against 3.3 s all at once."""


def blocks(view: Array, fan_in: int, release: Callable[[], None]) -> Iterator[Array]:
    """Contiguous arrays (n, fan_in) that together are the rows of ``view``, whose leading axes count rows.

    ``release`` gives back the memory that reading has brought in.
    """
    limit = BLOCK_BYTES if view.flags.c_contiguous or view.nbytes <= STRIDED_BYTES else STRIDED_BYTES
    for piece in _pieces(view, fan_in, limit):
        rows = prod(piece.shape) // fan_in if fan_in else 0
        yield _contiguous(piece, release).reshape(rows, fan_in)
        release()


def _pieces(view: Array, fan_in: int, limit: int) -> Iterator[Array]:
    """Slices of ``view`` along its first axis of at most ``limit`` bytes, where rows allow it."""
    inner = prod(view.shape[1:])
    each = inner * view.dtype.itemsize
    if each > limit and inner > fan_in:  # one step along the first axis is many rows
        for part in view:
            yield from _pieces(part, fan_in, limit)
        return
    step = max(1, limit // max(each, 1))
    for start in range(0, view.shape[0], step):
        yield view[start : start + step]


def _contiguous(piece: Array, release: Callable[[], None]) -> Array:
    if piece.flags.c_contiguous or piece.size <= 1 or not any(piece.strides):
        return piece
    copy = np.empty(piece.shape, piece.dtype)
    axis = int(np.argmax(np.abs(piece.strides)))
    length, stride = piece.shape[axis], abs(piece.strides[axis])
    step = max(_TILE, length * _TILE_BYTES // piece.nbytes)
    visited = 0
    for start in range(0, length, step):
        tile = (*[slice(None)] * axis, slice(start, start + step))
        copy[tile] = piece[tile]
        visited += step * stride
        if visited >= _SLAB_BYTES:
            visited = 0
            release()
    return copy
