"""Units whose incoming weights are equal bit for bit: found by a random projection, confirmed by a hash.

The projection costs one BLAS pass over data that is in the cache anyway. Only rows that agree with another one in
projection and sum of squares, up to rounding, are looked at a second time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

_MARGIN = 8.0
"""A BLAS sum of n products may be off by about eps * sqrt(n) times their root mean square, depending on where in the
block the row stood; equal rows may differ by twice that, and this leaves a margin of four."""

_NEIGHBOURS = 4
"""Sorted by projection, a row is compared with this many successors; where more are as close, all are looked at."""


_NONE = np.empty(0, np.intp)


class Projection:
    """A fixed pseudo-random direction with entries in +-[1, 2), none of which hides its column."""

    def __init__(self, dtype: np.dtype[np.floating], longest: int) -> None:
        rng = np.random.default_rng(0x1217)  # any fixed seed: only collisions depend on it, and those are confirmed
        self.direction = (rng.uniform(1.0, 2.0, longest) * rng.choice((-1.0, 1.0), longest)).astype(dtype)
        self.eps = float(np.finfo(dtype).eps)


def suspects(
    projected: NDArray[np.float64], squares: NDArray[np.float64], groups: NDArray[np.intp], fan_in: int, eps: float
) -> NDArray[np.intp]:
    """Rows that may equal another row of their group; misses none, names few too many.

    All arguments have one entry per row; ``squares`` are sums of squares, rows with 0 are left out.
    """
    ordered = np.sort(projected)
    widest = _MARGIN * eps * math.sqrt(float(squares.max()) * (7.0 / 3.0 * fan_in))
    if (ordered[1:] - ordered[:-1]).min() > widest:  # false if there is a NaN
        return _NONE
    rows = np.flatnonzero(squares != 0.0)
    odd = rows[~np.isfinite(projected[rows])]
    rows = rows[np.isfinite(projected[rows])]
    order = rows[np.lexsort((projected[rows], groups[rows]))]
    # The direction's entries have a mean square of 7/3.
    slack = _MARGIN * eps * np.sqrt(squares[order] * (7.0 / 3.0 * fan_in))
    value, square, group = projected[order], squares[order], groups[order]
    found = np.zeros(order.size, np.bool_)
    for lag in range(1, min(_NEIGHBOURS, order.size - 1) + 1):
        near = (value[lag:] - value[:-lag] <= slack[lag:]) & (group[lag:] == group[:-lag])
        if not near.any():
            break
        alike = near
        if lag < _NEIGHBOURS:
            alike = near & (np.abs(square[lag:] - square[:-lag]) <= _MARGIN * _MARGIN * eps * square[lag:])
        found[lag:] |= alike
        found[:-lag] |= alike
    return np.sort(np.concatenate([odd, order[found]]))


def digests(chunks: Callable[[], Iterable[NDArray[np.floating]]], wanted: NDArray[np.intp]) -> list[bytes]:
    """A 128-bit hash of each wanted row (ascending), with -0.0 taken for 0.0, in a second pass that skips the rest."""
    made: list[bytes] = []
    start = 0
    for chunk in chunks():
        stop = start + chunk.shape[0]
        first, last = np.searchsorted(wanted, (start, stop))
        for row in wanted[first:last]:
            values = chunk[row - start] + chunk.dtype.type(0)
            made.append(hashlib.blake2b(values.tobytes(), digest_size=16).digest())
        start = stop
    return made


def repeated(keys: Iterable[tuple[int, bytes]]) -> int:
    """How many (group, hash) pairs were there before."""
    seen: set[tuple[int, bytes]] = set()
    count = 0
    for key in keys:
        count += key in seen
        seen.add(key)
    return count


def repeated_values(values: NDArray[np.float32], groups: NDArray[np.intp]) -> int:
    """How many non-zero single values were there before in their group, bit for bit; -0.0 is taken for 0.0."""
    if values.size < 2 or not values.any():
        return 0
    if groups[0] == groups[-1]:
        ordered = np.sort((values + np.float32(0)).view(np.int32))
        return int(np.count_nonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)))
    bits = (values + np.float32(0)).view(np.int32)
    order = np.lexsort((bits, groups))
    bits, groups = bits[order], groups[order]
    return int(np.count_nonzero((bits[1:] == bits[:-1]) & (groups[1:] == groups[:-1]) & (bits[1:] != 0)))


def coincidence(ordered: NDArray[np.floating]) -> tuple[float, float]:
    """(probability that two values are equal, probability that a value is zero), from an ascending sample.

    The first is the unbiased sum over v of c_v (c_v - 1) / (m (m - 1)).
    """
    m = ordered.size
    if m < 2:
        return (0.0, 0.0)
    if ordered[0] == ordered[-1]:
        return (1.0, float(ordered[0] == 0))
    differs = ordered[1:] != ordered[:-1]
    if differs.all():
        return (0.0, 0.0)
    counts = np.diff(np.flatnonzero(differs), prepend=-1, append=m - 1).astype(np.float64)
    zero = float(np.count_nonzero(ordered == 0)) / m
    return (float((counts * (counts - 1.0)).sum()) / (m * (m - 1.0)), zero)


def expected(units: int, groups: int, fan_in: int, equal: float, zero: float) -> float:
    """Expected number of units that equal an earlier, non-zero one of their group, for independent values.

    Two rows are equal and not zero with probability q = equal^n - zero^2n. The i-th row then equals one of its i
    predecessors with probability 1 - (1 - q)^i; summed over i that is u - (1 - (1 - q)^u) / q.
    """
    q = equal**fan_in - zero ** (2 * fan_in)
    if q <= 0.0 or units < 2:
        return 0.0
    if q * units < 1e-4:  # the closed form would cancel; its first term is exact to 1e-4 here
        return groups * q * units * (units - 1) / 2.0
    return groups * float(units + np.expm1(units * np.log1p(-q)) / q) if q < 1.0 else groups * (units - 1.0)
