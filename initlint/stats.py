"""Weight statistics: one pass over the bytes of a tensor."""

from __future__ import annotations

from array import array
from dataclasses import dataclass


@dataclass(frozen=True)
class WeightStats:
    """Statistics of one tensor, or of one packed part of it, in its canonical view (groups, units, fan_in).

    Moments are over the finite values, in float64. ``count`` includes the non-finite ones.
    """

    count: int
    nan: int
    inf: int
    zeros: int
    min: float
    max: float
    mean: float
    std: float
    mean_square: float
    kurtosis: float
    """Excess kurtosis: 0 for a normal, -1.2 for a uniform distribution; 0 where the variance is 0."""
    zero_units: int
    """Units whose incoming weights are all exactly zero."""
    duplicate_units: int
    """Units, zero ones not counted, that equal an earlier unit of their group bit for bit."""
    chance_duplicates: float
    """Expected number of such units if all values were drawn independently from the observed value distribution."""
    unit_spread: float
    """Variance of the units' mean squares over the variance that independent values of this kurtosis would give
    (1 for independent draws, 0 for orthogonal rows, far above 1 when units differ in scale)."""
    scheme: str
    """The initialisation scheme it looks like ("he_normal(fan_in)"), or "unrecognised"."""
    scheme_confidence: float
    """0 to 1."""
    unit_rms: array[float]
    """Root mean square per unit, groups * units values; empty for tensors with a fan-in of 1 (see ``values``)."""
    values: array[float]
    """The values themselves, for tensors with a fan-in of 1 (biases, gains, shifts) and at most 2^20 values; empty for
    others."""
    orthogonality: float = 1.0
    """Root mean square cosine between units (between input columns, if there are more units than inputs) over its
    expectation for independent draws: 1 for these, 0 for orthogonal matrices; 1 where it cannot be told."""

    bulk: float = 0.0
    """The interquartile range of a sample of some 4096 finite values, zeros left out, over that of a standard normal
    distribution: the standard deviation as it would be without outliers (0.74 of it for a uniform distribution). 0
    where it is unknown, or where half of these values are equal."""

    tiny: int = 0
    """Values, not zero, of a magnitude below 2^-75 (3e-23), which no draw gives."""
    huge: int = 0
    """Values of a magnitude from 2^40 (1e12) on."""
    least_huge: float = 0.0
    """The smallest of these magnitudes; 0 where there are none."""

    @property
    def constant(self) -> bool:
        """All values are the same finite number."""
        return self.count > 0 and self.nan == 0 and self.inf == 0 and self.min == self.max

    @property
    def peak(self) -> float:
        """The largest magnitude of the finite values."""
        return max(abs(self.min), abs(self.max))

    @property
    def all_zero(self) -> bool:
        return self.count > 0 and self.zeros == self.count
