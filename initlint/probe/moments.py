"""From raw reductions to statistics per unit, over several runs, to a LayerSignal. float64 throughout."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .payload import Array
from .reductions import ROWS
from .signals import LayerSignal

Doubles = npt.NDArray[np.float64]

SMALLEST_SQUARE = 1e-33
"""Mean squares below this lie within 10^5 of float32's smallest normal number (1.2e-38) and lose digits."""

_LARGEST_EXPONENT = 126
"""Powers of two up to this one are normal float32 numbers, and so are their reciprocals."""


@dataclass(frozen=True)
class Moments:
    """Statistics per unit; ``count`` values each."""

    count: int
    mean: Doubles
    variance: Doubles
    top: Doubles
    bottom: Doubles
    finite: Doubles
    """Share of finite values."""
    outside: Doubles | None = None
    """Share of values in the flat part of the next non-linearity."""

    @property
    def absmax(self) -> Doubles:
        return np.maximum(np.abs(self.top), np.abs(self.bottom))


def decode(raw: Array, count: int, length: int, scale: Doubles | None = None) -> Moments:
    """Statistics of a value from its ``raw`` reductions (``reductions.Reductions.raw``), taken of scaled values.

    ``count`` is the number of values per unit, ``length`` that of the values whose squares were summed.
    """
    mean, rest, square, top, bottom = raw.reshape(ROWS, -1).astype(np.float64)
    square /= max(length, 1)
    factor: Any = 1.0 if scale is None else 1.0 / scale
    with np.errstate(invalid="ignore", over="ignore"):
        variance = np.maximum(square - rest**2, 0.0) * factor**2
        variance = np.where(np.isnan(square), np.nan, variance)
        return Moments(count, (mean + rest) * factor, variance, top * factor, bottom * factor, np.ones_like(mean))


def decode_affine(raw: Array, count: int, length: int, factor: Array, shift: Array) -> Moments:
    """Statistics of what a batch norm makes of x, (x - mean x) * factor + shift, from the raw reductions of x."""
    mean, rest, _, top, bottom = raw.reshape(ROWS, -1).astype(np.float64)
    slope, offset = factor.reshape(-1).astype(np.float64), shift.reshape(-1).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        ends = (slope * (top - mean) + offset, slope * (bottom - mean) + offset)
        variance = decode(raw, count, length).variance * slope**2
        return Moments(count, slope * rest + offset, variance, np.maximum(*ends), np.minimum(*ends), np.ones_like(mean))


def needs_closer_look(moments: Moments) -> bool:
    """Whether values are non-finite, or so large or small that float32 squares are not to be trusted."""
    with np.errstate(invalid="ignore"):
        lost = (moments.variance < SMALLEST_SQUARE) & (moments.top > moments.bottom)
    finite = np.isfinite(moments.mean) & np.isfinite(moments.variance) & np.isfinite(moments.absmax)
    return bool(lost.any() or not finite.all())


def scale_for(moments: Moments) -> npt.NDArray[np.float32]:
    """A power of two per unit that brings its largest value near 1."""
    absmax = moments.absmax
    usable = np.isfinite(absmax) & (absmax > 0)
    exponent = np.frexp(np.where(usable, absmax, 1.0))[1]
    scale: npt.NDArray[np.float32] = np.ldexp(
        np.float32(1.0), np.clip(-exponent, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    ).astype(np.float32)
    return scale


def with_finite_share(moments: Moments, share: Array) -> Moments:
    """``moments`` with units that are not finite throughout marked: infinite where they reach that, else NaN."""
    finite = share.reshape(-1).astype(np.float64)
    tainted = finite < 1.0

    def mark(values: Doubles) -> Doubles:
        return np.where(tainted & np.isfinite(values), np.nan, values)

    return replace(
        moments,
        mean=mark(moments.mean),
        variance=np.where(tainted, np.nan, moments.variance),
        top=mark(moments.top),
        bottom=mark(moments.bottom),
        finite=finite,
    )


def merge(first: Moments, second: Moments) -> Moments:
    """Statistics of both samples together (Chan, Golub & LeVeque 1983, equation 2.1)."""
    count = first.count + second.count
    with np.errstate(invalid="ignore", over="ignore"):
        ours, theirs = first.count / count, second.count / count
        gap = second.mean - first.mean
        return Moments(
            count,
            np.where(gap == 0, first.mean, first.mean + gap * theirs),
            first.variance * ours + second.variance * theirs + gap**2 * ours * theirs,
            np.maximum(first.top, second.top),
            np.minimum(first.bottom, second.bottom),
            first.finite * ours + second.finite * theirs,
            None if first.outside is None or second.outside is None else first.outside * ours + second.outside * theirs,
        )


def of_units(moments: Moments, units: tuple[int, int] | None) -> Moments:
    """The units from the first number on to the second one; all where there are none."""
    if units is None:
        return moments
    own = slice(*units)
    return Moments(
        moments.count,
        moments.mean[own],
        moments.variance[own],
        moments.top[own],
        moments.bottom[own],
        moments.finite[own],
        None if moments.outside is None else moments.outside[own],
    )


def signal(moments: Moments) -> LayerSignal:
    """The layer's signal; units count equally."""
    with np.errstate(invalid="ignore", over="ignore"):
        second = moments.variance + moments.mean**2
        total = moments.count * moments.finite.size
        lost = round(float((1.0 - moments.finite).sum()) * moments.count)
        return LayerSignal(
            samples=moments.count,
            rms=_root_mean(second),
            mean=float(moments.mean.mean()) if moments.mean.size else 0.0,
            std=_root_mean(moments.variance),
            absmax=float(moments.absmax.max()) if moments.mean.size else 0.0,
            nonfinite=lost / total if total else 0.0,
            saturated=0.0 if moments.outside is None or not total else float(moments.outside.mean()),
            unit_mean=_floats(moments.mean),
            unit_std=_floats(np.sqrt(moments.variance)),
            unit_max=_floats(moments.top),
            unit_saturated=array("f") if moments.outside is None else _floats(moments.outside),
        )


def _root_mean(squares: Doubles) -> float:
    return float(np.sqrt(squares.mean())) if squares.size else 0.0


def _floats(values: Doubles) -> array[float]:
    return array("f", values.astype(np.float32).tobytes())
