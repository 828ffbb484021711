"""Do the values of a tensor look drawn at random, computed from a formula, or neither?

Independent draws have no structure along any axis, hardly ever repeat a magnitude, and have the flanks of the
distributions that initialisation schemes use. Tables of sines, ramps, identities and box filters fail the first two,
learned weights the first or the last. A small tensor is never called drawn.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

FEWEST = 48
"""Values; below, a ramp or a ring of sines passes for noise (the weakest of the tests needs 5 deviations)."""

_SIDE = 256
"""Rows and columns that are looked at: 65,536 values show a correlation of 0.02."""

_DEVIATIONS = 6.0
"""Normal tail 1e-9, for some 20 tests per tensor and thousands of tensors."""

_LAGS = (1, 2, 3)

_STRUCTURED = 0.25
"""Mean squared correlation with a neighbour from which values are called computed: half of an amplitude is foretold."""


class Nature(StrEnum):
    DRAWN = "drawn"
    COMPUTED = "computed"
    """A constant, few different magnitudes, or values that foretell their neighbours."""
    UNDECIDED = "undecided"
    """Neither; learned weights are."""


def nature(values: NDArray[Any]) -> Nature:
    """Judge the values of a tensor in its own shape."""
    table = _table(values)
    filled = table[table != 0.0]
    if filled.size < FEWEST or not np.isfinite(filled).all() or _repeats(filled, values.dtype):
        return Nature.COMPUTED
    foretold, significant = _serial(table)
    if foretold > _STRUCTURED:
        return Nature.COMPUTED
    return Nature.UNDECIDED if significant or _uneven(table) or not _of_a_scheme(filled) else Nature.DRAWN


def _table(values: NDArray[Any]) -> Values:
    rows = values.reshape(values.shape[0], -1) if values.ndim > 1 else values.reshape(1, -1)
    if rows.shape[0] == 1 or rows.shape[1] == 1:
        return rows.reshape(1, -1)[:, : _SIDE * _SIDE].astype(np.float64)
    return rows[:_SIDE, :_SIDE].astype(np.float64)


def _repeats(filled: Values, dtype: np.dtype[Any]) -> bool:
    """Magnitudes come back more often than rounding explains; half-precision types have 2^7 to 2^10 per octave."""
    sample = np.abs(filled[:4096])
    different = np.unique(sample).size
    if dtype.itemsize <= 2:
        return different < 0.5 * min(sample.size, 256)
    return different < 0.9 * sample.size


def _serial(table: Values) -> tuple[float, bool]:
    """The largest mean squared correlation between neighbours along an axis, and whether any is beyond chance."""
    foretold, significant = 0.0, False
    for lines in (table, table.T):
        length = lines.shape[1]
        if length < 8:
            continue
        centred = lines - lines.mean()
        energy = (centred * centred).sum(axis=1)
        centred = centred[energy > 0] / np.sqrt(energy[energy > 0, None])  # lines may differ in scale
        if not len(centred):
            continue
        for lag in _LAGS:
            products = (centred[:, :-lag] * centred[:, lag:]).sum(axis=1)
            mean_square = float((products * products).mean())
            chance = 1.0 / (length - lag)
            error = chance * math.sqrt(2.0 / len(products))
            z = float(products.mean()) / math.sqrt(chance / len(products))
            significant |= abs(z) > _DEVIATIONS or (
                len(products) > 1 and mean_square > 2 * chance + _DEVIATIONS * error
            )
            foretold = max(foretold, mean_square - 2 * chance)
    return foretold, significant


def _uneven(table: Values) -> bool:
    """Rows differ in scale far beyond chance, as learned units do."""
    if table.shape[0] < 8:
        return False
    squares = (table - table.mean()) ** 2
    by_row = squares.mean(axis=1)
    independent = float(squares.var()) / table.shape[1]
    spread = float(by_row.var()) / independent if independent > 0 else 0.0
    return spread > 2.0 + _DEVIATIONS * math.sqrt(2.0 / table.shape[0])


def _of_a_scheme(filled: Values) -> bool:
    """Symmetric, and between a uniform and a normal distribution in its flanks (excess kurtosis -1.2 to 0)."""
    centred = filled - filled.mean()
    variance = float((centred**2).mean())
    if variance <= 0.0:
        return False
    kurtosis = float((centred**4).mean()) / variance**2 - 3.0
    skewness = float((centred**3).mean()) / variance**1.5
    n = filled.size
    tail = _DEVIATIONS * math.sqrt(24.0 / n)
    return -1.2 - tail < kurtosis < tail and abs(skewness) < _DEVIATIONS * math.sqrt(6.0 / n)
