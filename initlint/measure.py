"""Weight statistics in one pass over the bytes of a tensor, in blocks that fit into the cache.

Memory is a few blocks plus some twenty bytes per unit, whatever the size of the tensor. Only units that look like
duplicates of each other are read a second time.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import duplicates, schemes
from .fans import fans
from .model import Model, Tensor, View
from .moments import BLOCK_VALUES, Block, Measurer, Moments
from .stats import WeightStats

Chunks = Callable[[], Iterable[NDArray[Any]]]
"""Gives the rows of a canonical view, group after group, as often as it is called."""

SAMPLE = 4096
"""Values that stand for the distribution: a probability p of coincidence is known to sqrt(p (1 - p)) / 64."""

VALUES_LIMIT = 1 << 20
"""Tensors of a fan-in of 1 beyond this size (masks, tables of positions) are not carried along value by value."""

GRAM = 8
"""Rows or columns whose inner products are taken to tell orthogonal matrices from independent draws."""


def measure_all(
    model: Model, chunks: Callable[[str], Iterable[NDArray[Any]]], tensors: Iterable[Tensor] | None = None
) -> dict[str, WeightStats]:
    """Statistics of every tensor (or of ``tensors``) and packed part that has values, with the scheme it looks like."""
    measured: dict[str, WeightStats] = {}
    constants: dict[tuple[View, bytes], WeightStats] = {}
    for tensor in (*model.tensors, *model.leaves) if tensors is None else tensors:
        read, constant = _read(tensor, partial(chunks, tensor.address))
        if constant and (tensor.view, constant) in constants:  # as most gains and biases of a fresh model are
            measured[tensor.address] = constants[tensor.view, constant]
            continue
        for address, stats in measure(tensor, read).items():
            guess = schemes.recognise(stats, fans(model.owner(address), tensor, address))
            if stats.count:  # else nothing is stored: a RandomNormal node, or an empty tensor
                measured[address] = replace(stats, scheme=guess.scheme, scheme_confidence=guess.confidence)
        if constant:
            constants[tensor.view, constant] = measured[tensor.address]
    return measured


def _read(tensor: Tensor, chunks: Chunks) -> tuple[Chunks, bytes]:
    """(chunks, read once where they are small; their bytes where all statistics follow from one repeated value)."""
    if tensor.view.size > BLOCK_VALUES:
        return chunks, b""
    pieces = tuple(chunks())
    if len(pieces) != 1 or tensor.parts or not pieces[0].size:
        return lambda: pieces, b""
    values = pieces[0]
    same = values.item(0) == values.item(-1) and bool((values == values.item(0)).all())
    return lambda: pieces, values.dtype.char.encode() + values.tobytes() if same else b""


def measure(tensor: Tensor, chunks: Chunks) -> dict[str, WeightStats]:
    """Statistics of the tensor and of its packed parts, by address; the scheme is left to ``schemes.recognise``.

    ``chunks`` yields arrays (rows, fan_in) of any floating-point dtype; parts are equal consecutive blocks of rows.
    Non-finite values are counted and left out of everything else.
    """
    measurement = _Measurement(tensor.view, _part_count(tensor))
    with np.errstate(all="ignore"):  # overflow and NaN are what is being measured
        for block in _blocks(chunks, measurement.rows_per_part):
            measurement.add(*block)
        return measurement.finish(tensor, chunks)


def _part_count(tensor: Tensor) -> int:
    rows = tensor.view.groups * tensor.view.units
    return len(tensor.parts) if tensor.parts and rows % len(tensor.parts) == 0 else 1


def _blocks(chunks: Chunks, rows_per_part: int) -> Iterator[tuple[Block, int, int]]:
    """(block, first row, first column): contiguous, of float32 or float64, within one part, of bounded size."""
    start = 0
    for chunk in chunks():
        rows, columns = chunk.shape
        if rows * columns:
            tall, wide = max(1, BLOCK_VALUES // columns), min(columns, BLOCK_VALUES)
            row = 0
            while row < rows:
                end = min(rows, row + tall, row + rows_per_part - (start + row) % rows_per_part)
                for column in range(0, columns, wide):
                    yield _native(chunk[row:end, column : column + wide]), start + row, column
                row = end
        start += rows


def _native(block: NDArray[Any]) -> Block:
    """As contiguous float64 if it is that, else float32, which holds every smaller format exactly."""
    return np.ascontiguousarray(block, np.float64 if block.dtype == np.float64 else np.float32)


@cache
def _tools(double: bool) -> tuple[Measurer, duplicates.Projection]:
    dtype: np.dtype[Any] = np.dtype(np.float64 if double else np.float32)
    return Measurer(dtype, BLOCK_VALUES), duplicates.Projection(dtype, BLOCK_VALUES)


_NO_ROWS = np.empty(0, np.intp)


class _Measurement:
    """What has been seen of one tensor so far."""

    def __init__(self, view: View, parts: int) -> None:
        self.view = view
        self.rows = view.groups * view.units
        self.rows_per_part = max(1, self.rows // parts)
        self.moments = [Moments() for _ in range(parts)]
        self.samples: list[list[NDArray[Any]]] = [[] for _ in range(parts)]
        self.gram = _Gram(self.rows, view.fan_in)
        self.grams = [_Gram(self.rows_per_part, view.fan_in) for _ in range(parts)] if parts > 1 else [self.gram]
        self.by_unit = view.fan_in > 1
        self.keep = view.fan_in == 1 and self.rows <= VALUES_LIMIT
        self.squares = np.zeros(self.rows if self.by_unit or self.keep else 0)
        self.projected = np.zeros(self.rows if self.by_unit and view.units > 1 else 0)
        self.values = np.zeros(self.rows if self.keep else 0, np.float32)
        self.missing: dict[int, int] = {}
        """Non-finite values by row, for the rows that have some."""
        self.stride = max(1, view.size // (SAMPLE * parts)) | 1  # odd: does not stay in one column of an even fan-in
        self.eps = 0.0

    def add(self, block: Block, row: int, column: int) -> None:
        part = row // self.rows_per_part
        rows = slice(row, row + block.shape[0])
        measurer, projection = _tools(block.dtype == np.float64)
        moments, squares = measurer.block(block)
        self.moments[part].add(moments)
        self.samples[part].append(block.reshape(-1)[:: self.stride].copy())
        if moments.finite < moments.count:
            self._note_missing(block, row)
        if self.squares.size:
            self.squares[rows] += squares
        if self.projected.size:
            self.eps = projection.eps
            # A later piece of a long row is weighted differently, or swapped pieces would look equal.
            self.projected[rows] += (block @ projection.direction[: block.shape[1]]) * (1.0 + column / BLOCK_VALUES)
        if self.keep:
            self.values[rows] = block[:, 0]
        if self.by_unit:
            self.gram.add(block, row)
            if len(self.grams) > 1:
                self.grams[part].add(block, row - part * self.rows_per_part)

    def _note_missing(self, block: Block, row: int) -> None:
        missing = np.count_nonzero(~np.isfinite(block), axis=1)
        for index in np.flatnonzero(missing):
            self.missing[row + int(index)] = self.missing.get(row + int(index), 0) + int(missing[index])

    def finish(self, tensor: Tensor, chunks: Chunks) -> dict[str, WeightStats]:
        repeats = self._repeats(chunks)
        parts = len(self.moments)
        total = self.moments[0]
        everything = self.samples[0]
        if parts > 1:
            total = Moments()
            for moments in self.moments:
                total.add(moments)
            everything = [piece for pieces in self.samples for piece in pieces]
        made = {tensor.address: self._stats(total, slice(0, self.rows), everything, repeats, self.gram)}
        if parts > 1:
            for index, address in enumerate(tensor.part_addresses):
                rows = slice(index * self.rows_per_part, (index + 1) * self.rows_per_part)
                made[address] = self._stats(self.moments[index], rows, self.samples[index], repeats, self.grams[index])
        return made

    def _repeats(self, chunks: Chunks) -> tuple[NDArray[np.intp], list[bytes]]:
        """Rows that may be duplicates, ascending, with their hashes."""
        if not self.projected.size or self._constant:
            return _NO_ROWS, []
        squares = self.squares
        if self.missing:  # a row of nothing but NaN has no squares, yet is not zero
            squares = squares.copy()
            squares[list(self.missing)] += 1.0
        groups = np.arange(self.rows) // self.view.units
        found = duplicates.suspects(self.projected, squares, groups, self.view.fan_in, self.eps)
        return found, duplicates.digests(chunks, found) if found.size else []

    def _stats(
        self,
        moments: Moments,
        rows: slice,
        samples: list[NDArray[Any]],
        repeats: tuple[NDArray[np.intp], list[bytes]],
        gram: _Gram,
    ) -> WeightStats:
        squares, missing = self.squares[rows], self._missing_in(rows)
        ordered = _ordered(samples, moments.finite == moments.count)
        mean_squares = squares / (max(1, self.view.fan_in) - missing)
        return WeightStats(
            count=moments.count,
            nan=moments.nan,
            inf=moments.inf,
            zeros=moments.zeros,
            min=moments.low if moments.finite else 0.0,
            max=moments.high if moments.finite else 0.0,
            mean=moments.mean,
            std=math.sqrt(moments.variance),
            mean_square=moments.mean_square,
            kurtosis=moments.kurtosis,
            zero_units=int(np.count_nonzero((squares == 0.0) & (missing == 0))) if self.by_unit else moments.zeros,
            duplicate_units=self._duplicates(rows, repeats),
            chance_duplicates=self._chance(rows, ordered),
            unit_spread=self._spread(moments, mean_squares),
            scheme="unrecognised",
            scheme_confidence=0.0,
            unit_rms=_floats(np.sqrt(mean_squares)) if self.by_unit else array("f"),
            values=_floats(self.values[rows]) if self.keep else array("f"),
            orthogonality=gram.orthogonality(),
            bulk=_bulk(ordered),
            tiny=moments.tiny,
            huge=moments.huge,
            least_huge=moments.least_huge if moments.huge else 0.0,
        )

    def _missing_in(self, rows: slice) -> NDArray[np.int64] | int:
        if not self.missing:
            return 0
        counts = np.zeros(self.squares.size, np.int64)
        for row, count in self.missing.items():
            counts[row] = min(count, self.view.fan_in - 1)  # a row without any finite value has sum and mean 0
        return counts[rows]

    @property
    def _constant(self) -> bool:
        """One finite value, not zero, everywhere."""
        low, high = min(each.low for each in self.moments), max(each.high for each in self.moments)
        return low == high != 0.0 and all(each.finite == each.count for each in self.moments)

    def _duplicates(self, rows: slice, repeats: tuple[NDArray[np.intp], list[bytes]]) -> int:
        found, hashes = repeats
        if self._constant and self.projected.size:  # all rows are equal; none needs to be read again
            units = self.view.units
            return int(rows.stop - rows.start - ((rows.stop - 1) // units - rows.start // units + 1))
        if self.keep:
            return duplicates.repeated_values(self.values[rows], np.arange(rows.start, rows.stop) // self.view.units)
        if not found.size:
            return 0
        first, last = np.searchsorted(found, (rows.start, rows.stop))
        groups = (found[first:last] // self.view.units).tolist()
        return duplicates.repeated(zip(groups, hashes[first:last], strict=True))

    def _chance(self, rows: slice, ordered: NDArray[Any]) -> float:
        if self.view.units < 2 or not ordered.size or not (self.by_unit or self.keep):
            return 0.0
        equal, zero = duplicates.coincidence(ordered)
        count = rows.stop - rows.start
        units = min(self.view.units, count)
        return duplicates.expected(units, max(1, count // units), self.view.fan_in, equal, zero)

    def _spread(self, moments: Moments, mean_squares: NDArray[np.float64]) -> float:
        """1 where nothing can be said: a single unit, or values of one magnitude."""
        if not self.by_unit or mean_squares.size < 2 or moments.m2 == 0.0:
            return 1.0
        if moments.variance_of_squares <= _ROUNDING * moments.mean_square**2:
            return 1.0
        independent = moments.variance_of_squares / self.view.fan_in
        centred = mean_squares - mean_squares.sum() / mean_squares.size
        return float(centred.dot(centred)) / (mean_squares.size - 1) / independent


_QUARTILES = 1.349
"""Between the quartiles of a standard normal distribution (2 * 0.6745)."""


def _ordered(samples: list[NDArray[Any]], finite: bool) -> NDArray[Any]:
    """The finite values of the sample, ascending."""
    if not samples:
        return np.empty(0)
    sample = samples[0] if len(samples) == 1 else np.concatenate(samples)
    return np.sort(sample if finite else sample[np.isfinite(sample)])


def _bulk(ordered: NDArray[Any]) -> float:
    """Zeros are left out: a block of them, as of one zero projection among packed ones, is no narrow distribution."""
    ordered = ordered[ordered != 0]
    last = ordered.size - 1
    if last < 1:
        return 0.0
    return (float(ordered[last - last // 4]) - float(ordered[last // 4])) / _QUARTILES


_ROUNDING = 1e-5
"""A variance of squares below this share of the squared mean square is rounding of sums in float32, which differ by
processor: the values differ in sign only. It is 0.8 of uniform values and 2 of normal ones."""


class _Gram:
    """Inner products of the first few rows (wide matrices) or columns (tall ones)."""

    def __init__(self, rows: int, columns: int) -> None:
        self.tall = rows > columns
        self.size = min(GRAM, rows, columns) if columns <= BLOCK_VALUES else 0
        self.length = max(rows, columns)
        self.products = np.zeros((self.size, self.size))
        self.top: list[Block] = []

    def add(self, block: Block, row: int) -> None:
        if self.size < 2:
            return
        if self.tall:
            edge = block[:, : self.size]
            self.products += edge.T @ edge
        elif row < self.size:
            self.top.append(block[: self.size - row].copy())

    def orthogonality(self) -> float:
        """Root mean square of the cosines between different vectors, over 1 / sqrt(length), its value for noise."""
        if self.size < 2:
            return 1.0
        products = self.products
        if self.top:
            edge = (np.concatenate(self.top) if len(self.top) > 1 else self.top[0]).astype(np.float64)
            products = edge @ edge.T
        squared_lengths = products.diagonal()
        if not 0.0 < squared_lengths.min() <= squared_lengths.max() < math.inf:  # false for NaN
            return 1.0
        inverse = 1.0 / squared_lengths
        off = float(inverse @ (products * products) @ inverse) - self.size
        return math.sqrt(max(off, 0.0) / (self.size * (self.size - 1)) * self.length) if math.isfinite(off) else 1.0


def _floats(values: NDArray[Any]) -> array[float]:
    return array("f", values.astype(np.float32).tobytes())
