"""Mergeable moments of blocks of values: fast in float32 where that is exact enough, in float64 where it is not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.floating]
"""A contiguous 2-D block (rows, columns) of float32 or float64."""

BLOCK_VALUES = 1 << 16
"""Values per block: 256 KiB of float32, so that a block and its squares stay in a second-level cache."""

_SAFE = {
    # Between these peaks fourth powers neither overflow when BLOCK_VALUES of them are summed (1e8 ** 4 * 65536 =
    # 6.6e36 < 3.4e38) nor, but for a few values in a million, become denormal and slow ((3e-10) ** 4 = 1e-38).
    np.dtype(np.float32): (1e-4, 1e8),
    np.dtype(np.float64): (1e-60, 1e70),
}

_CENTRED = 0.01
"""Raw moments lose no more than two digits to cancellation while mean^2 is below this share of the mean square."""

_PRECISE_ROW = 1e-30
"""A row whose mean square is below this has lost digits to float32 underflow (1e-30 is 2^49 times its last step)."""


TINY = 2.0**-75
"""Where the square of a float32 rounds to zero: the pass that counts zeros then counts these as well."""

_LEAST_SQUARE = 2.0**-149
"""The smallest float32 above zero."""

HUGE = 2.0**40
"""Far above what any scheme draws, and above the 1e9 and 65504 that masks are made of."""

_LONG_ROW = 64
_CACHE_LINE = 64
"""Bytes; squaring into memory that is not aligned to it takes half as long again (measured with AVX-512)."""


@dataclass(slots=True)
class Moments:
    """Count, mean and central moment sums of finite values, with what else one pass can count.

    Merging follows Pébay 2008 (SAND2008-6212), equations 2.1, 3.1 and 3.2 for third and fourth order.
    """

    count: int = 0
    nan: int = 0
    inf: int = 0
    zeros: int = 0
    low: float = math.inf
    high: float = -math.inf
    finite: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    m4: float = 0.0
    tiny: int = 0
    huge: int = 0
    least_huge: float = math.inf

    def add(self, other: Moments) -> None:
        """Merge ``other`` into this."""
        self.count += other.count
        self.nan += other.nan
        self.inf += other.inf
        self.zeros += other.zeros
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.tiny += other.tiny
        self.huge += other.huge
        self.least_huge = min(self.least_huge, other.least_huge)
        if other.finite and self.finite:
            self._merge(other)
        elif other.finite:
            self.finite, self.mean = other.finite, other.mean
            self.m2, self.m3, self.m4 = other.m2, other.m3, other.m4

    def _merge(self, other: Moments) -> None:
        a, b = float(self.finite), float(other.finite)
        n = a + b
        d = other.mean - self.mean
        step = d / n
        self.m4 += (
            other.m4
            + a * b * (a * a - a * b + b * b) * d * step**3
            + 6.0 * step**2 * (a * a * other.m2 + b * b * self.m2)
            + 4.0 * step * (a * other.m3 - b * self.m3)
        )
        self.m3 += other.m3 + a * b * (a - b) * d * step**2 + 3.0 * step * (a * other.m2 - b * self.m2)
        self.m2 += other.m2 + a * b * d * step
        self.mean = other.mean if a == 0 else self.mean + b * step
        self.finite += other.finite

    @property
    def variance(self) -> float:
        return self.m2 / self.finite if self.finite else 0.0

    @property
    def mean_square(self) -> float:
        return self.variance + self.mean * self.mean

    @property
    def kurtosis(self) -> float:
        """Excess kurtosis; 0 where the variance is 0 (or so small that its square is)."""
        scale = self.m2 * self.m2
        return self.finite * self.m4 / scale - 3.0 if scale > 0.0 else 0.0

    @property
    def variance_of_squares(self) -> float:
        """E[x^4] - E[x^2]^2, which is (kurtosis + 2) * mean_square^2 where the mean is 0."""
        if not self.finite:
            return 0.0
        n, c = self.finite, self.mean
        fourth = self.m4 / n + 4.0 * c * self.m3 / n + 6.0 * c * c * self.m2 / n + c**4
        return max(fourth - self.mean_square**2, 0.0)


class Measurer:
    """Moments and row sums of squares of one block after the other; owns the scratch memory."""

    def __init__(self, dtype: np.dtype[np.floating], longest: int) -> None:
        self._ones = _aligned(longest, dtype)
        self._ones[:] = 1
        self._squares = _aligned(longest, dtype)
        self._flags = np.empty(longest, np.bool_)
        self._safe = _SAFE[dtype]

    def block(self, block: Block) -> tuple[Moments, NDArray[np.float64]]:
        """Moments of the block, and the sum of squares of the finite values of each row."""
        flat = block.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        if low == high and math.isfinite(low):
            return _constant(block, low)
        smallest, largest = self._safe
        if smallest < max(-low, high) < largest:  # false for NaN
            fast = self._fast(block, flat, low, high)
            if fast is not None:
                return fast
        return _careful(block)

    def _fast(self, block: Block, flat: Block, low: float, high: float) -> tuple[Moments, NDArray[np.float64]] | None:
        """BLAS sums of powers in the block's own precision; None where cancellation would spoil them."""
        n = flat.size
        squares = np.multiply(flat, flat, out=self._squares[:n])
        rows = (squares.reshape(block.shape) @ self._ones[: block.shape[1]]).astype(np.float64)
        first, second = self._sum(block, flat), float(rows.sum())
        if first * first > _CENTRED * n * second:
            return None
        third, fourth = float(flat.dot(squares)), float(squares.dot(squares))
        zeros, tiny = self._next_to_nothing(flat, squares, low <= TINY and high >= -TINY)
        self._redo_tiny_rows(block, rows)
        c = first / n
        m2 = second - n * c * c
        m3 = third - 3.0 * c * second + 2.0 * n * c**3
        m4 = fourth - 4.0 * c * third + 6.0 * c * c * second - 3.0 * n * c**4
        return Moments(n, 0, 0, zeros, low, high, n, c, m2, m3, m4, tiny), rows

    def _next_to_nothing(self, flat: Block, squares: Block, possible: bool) -> tuple[int, int]:
        """Zeros, and values that are nearly zero; most blocks have neither."""
        if not possible:
            return 0, 0
        flags = self._flags[: flat.size]
        small = int(np.count_nonzero(np.less(squares, _LEAST_SQUARE, out=flags)))
        zeros = int(np.count_nonzero(np.equal(flat, 0, out=flags))) if small else 0
        return zeros, small - zeros

    def _sum(self, block: Block, flat: Block) -> float:
        """By rows where these are long: the vector of ones then stays in the first-level cache (twice as fast)."""
        if block.shape[1] >= _LONG_ROW:
            return float((block @ self._ones[: block.shape[1]]).sum(dtype=np.float64))
        return float(flat.dot(self._ones[: flat.size]))

    def _redo_tiny_rows(self, block: Block, rows: NDArray[np.float64]) -> None:
        if float(rows.min()) < _PRECISE_ROW * block.shape[1]:
            tiny = np.flatnonzero(rows < _PRECISE_ROW * block.shape[1])
            wide = block[tiny].astype(np.float64)
            rows[tiny] = np.einsum("ij,ij->i", wide, wide)


def _aligned(length: int, dtype: np.dtype[np.floating]) -> NDArray[np.floating]:
    """Scratch memory that starts at a cache line."""
    raw = np.empty(length * dtype.itemsize + _CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % _CACHE_LINE
    return raw[start : start + length * dtype.itemsize].view(dtype)


def _constant(block: Block, value: float) -> tuple[Moments, NDArray[np.float64]]:
    n = block.size
    rows = np.full(block.shape[0], block.shape[1] * value * value)
    moments = Moments(n, 0, 0, n if value == 0.0 else 0, value, value, n, value)
    _count_extremes(moments, np.full(1, abs(value)), n)
    return moments, rows


def _careful(block: Block) -> tuple[Moments, NDArray[np.float64]]:
    """Two passes in float64 around the block's own mean, over the finite values."""
    wide = block.astype(np.float64)
    finite = np.isfinite(wide)
    n = int(np.count_nonzero(finite))
    moments = Moments(count=wide.size, nan=int(np.count_nonzero(np.isnan(wide))), finite=n)
    moments.inf = wide.size - n - moments.nan
    if n < wide.size:
        wide = np.where(finite, wide, 0.0)  # counts as nothing below but for zeros, low and high
    moments.zeros = wide.size - int(np.count_nonzero(wide)) - (wide.size - n)
    if n:
        values = wide.reshape(-1) if n == wide.size else wide[finite]
        moments.low, moments.high = float(values.min()), float(values.max())
        moments.mean = float(values.mean())
        _count_extremes(moments, np.abs(values))
        values = values - moments.mean
        squares = values * values
        moments.m2, moments.m3 = float(squares.sum()), float(squares.dot(values))
        moments.m4 = float(squares.dot(squares))
    return moments, np.einsum("ij,ij->i", wide, wide)


def _count_extremes(moments: Moments, magnitudes: NDArray[np.float64], times: int = 1) -> None:
    huge = magnitudes[magnitudes >= HUGE]
    moments.tiny = times * int(np.count_nonzero((magnitudes < TINY) & (magnitudes > 0.0)))
    moments.huge = times * huge.size
    moments.least_huge = float(huge.min()) if huge.size else math.inf
