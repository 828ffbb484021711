"""Weight statistics promise what a plain float64 computation gives, whatever the dtype, chunking and packing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from initlint import duplicates, measure, moments
from initlint.kinds import Role
from initlint.model import Tensor, View
from initlint.stats import WeightStats

Array = NDArray[Any]


def tensor(view: View, dtype: str = "float32", parts: tuple[str, ...] = ()) -> Tensor:
    return Tensor("w", (view.groups * view.units, view.fan_in), dtype, Role.WEIGHT, view, parts=parts)


def chunked(values: Array, height: int) -> Callable[[], Iterator[Array]]:
    return lambda: (values[row : row + height] for row in range(0, len(values), max(1, height)))


def of(values: Array, groups: int = 1, parts: tuple[str, ...] = (), height: int = 10**9) -> dict[str, WeightStats]:
    view = View(groups, len(values) // groups, values.shape[1])
    return measure.measure(tensor(view, values.dtype.name, parts), chunked(values, height))


def reference(values: Array, units: int) -> dict[str, float]:
    """The definitions of ``WeightStats``, written down as they are read."""
    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    x = wide[finite]
    mean, std = (x.mean(), x.std()) if x.size else (0.0, 0.0)
    seen: set[tuple[int, bytes]] = set()
    repeats = 0
    for row, unit in enumerate(wide + 0.0):
        key = (row // units, unit.tobytes())
        repeats += key in seen and bool(unit.any())
        seen.add(key)
    return {
        "count": wide.size,
        "nan": int(np.isnan(wide).sum()),
        "inf": int(np.isinf(wide).sum()),
        "zeros": int((wide == 0).sum()),
        "min": x.min() if x.size else 0.0,
        "max": x.max() if x.size else 0.0,
        "mean": mean,
        "std": std,
        "mean_square": (x * x).mean() if x.size else 0.0,
        "kurtosis": (((x - mean) / std) ** 4).mean() - 3 if std > 0 else 0.0,
        "zero_units": int((wide == 0).all(axis=1).sum()),
        "duplicate_units": repeats,
    }


EXACT = ("count", "nan", "inf", "zeros", "min", "max", "zero_units", "duplicate_units")


def agree(stats: WeightStats, values: Array, units: int) -> None:
    expected = reference(values, units)
    for name in EXACT:
        assert getattr(stats, name) == expected[name], name
    scale = math.sqrt(expected["mean_square"])
    assert stats.mean == pytest.approx(expected["mean"], rel=1e-6, abs=1e-6 * scale)
    assert stats.std == pytest.approx(expected["std"], rel=1e-6, abs=1e-12 * scale)
    assert stats.mean_square == pytest.approx(expected["mean_square"], rel=1e-6)
    if expected["std"] > 1e-12 * scale:
        assert stats.kurtosis == pytest.approx(expected["kurtosis"], rel=1e-5, abs=1e-5)


DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, int, tuple[str, ...], int]:
    """(values, groups, parts, chunk height): normal values of any scale and offset, with planted oddities."""
    groups, units, fan_in = draw(st.integers(1, 4)), draw(st.integers(1, 12)), draw(st.integers(1, 20))
    parts = draw(st.sampled_from([(), ("q", "k", "v"), ("i", "f", "g", "o")]))
    units *= max(1, len(parts))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.sampled_from([0, -2, 3, -20, 25]))
    offset = draw(st.sampled_from([0.0, 0.05, 1.0, 100.0]))
    dtype = draw(st.sampled_from(DTYPES))
    with np.errstate(all="ignore"):
        values = ((rng.standard_normal((groups * units, fan_in)) + offset) * scale).astype(dtype)
    for _ in range(draw(st.integers(0, 4))):
        row, other = rng.integers(0, len(values), 2)
        planted = draw(st.sampled_from(["copy", "zero", "negative zero", "nan", "inf", "constant"]))
        if planted == "copy":
            values[row] = values[other]
        elif planted in ("zero", "negative zero", "constant"):
            values[row] = {"zero": 0.0, "negative zero": -0.0, "constant": 0.5}[planted]
        elif planted == "nan" or dtype is not ml_dtypes.float8_e4m3fn:
            values[row, rng.integers(fan_in)] = {"nan": np.nan, "inf": -np.inf}[planted]
    return values, groups, parts, draw(st.sampled_from([1, 3, 7, 1000]))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_agrees_with_the_definitions(case: tuple[Array, int, tuple[str, ...], int]) -> None:
    values, groups, parts, height = case
    units = len(values) // groups
    measured = of(values, groups, parts, height)
    agree(measured["w"], values, units)
    rows = len(values) // max(1, len(parts))
    for index, part in enumerate(parts):
        block = values[index * rows : (index + 1) * rows]
        start = index * rows  # a part may begin in the middle of a group
        padded = np.concatenate([np.full((start % units, values.shape[1]), 0.0, values.dtype), block])
        expected = reference(padded, units)["duplicate_units"]
        assert measured[f"w[{part}]"].duplicate_units == expected
        if start % units == 0:
            agree(measured[f"w[{part}]"], block, units)


def test_packed_tensors_have_an_entry_per_part() -> None:
    assert set(of(np.ones((6, 2), np.float32), parts=("q", "k", "v"))) == {"w", "w[q]", "w[k]", "w[v]"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_bulk_is_the_standard_deviation_that_outliers_do_not_move(dtype: Any) -> None:
    values = (np.random.default_rng(0).standard_normal((300, 200)) * 0.05).astype(dtype)
    values[::20, 7], values[3, 5] = 100.0, np.nan
    measured = of(values, parts=("q", "k", "v"))
    assert measured["w"].std > 10 * 0.05
    # the quartiles of 4096 normal values are known to 0.021 standard deviations each (Stuart & Ord 1994, 10.10)
    assert [each.bulk for each in measured.values()] == pytest.approx([0.05] * 4, rel=0.15)


def test_bulk_is_that_of_the_values_that_are_not_zero() -> None:
    values = np.random.default_rng(0).normal(0, 0.05, (96, 64)).astype(np.float32)
    values[32:64] = 0  # one zero projection of three
    assert of(values)["w"].bulk == pytest.approx(0.05, rel=0.15)


def test_bulk_is_zero_where_half_of_the_values_are() -> None:
    assert of(np.eye(16, dtype=np.float32))["w"].bulk == 0.0


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 1)])
def test_empty_tensors_are_neither_constant_nor_zero(shape: tuple[int, int]) -> None:
    stats = measure.measure(tensor(View(1, *shape)), lambda: iter([np.empty(shape, np.float32)]))["w"]
    assert (stats.count, stats.constant, stats.all_zero) == (0, False, False)


def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((40, 50)).astype(np.float32)
    values[33] = values[2]
    plain = of(values)["w"]
    monkeypatch.setattr(measure, "BLOCK_VALUES", 32)  # rows are cut into two pieces
    cut = of(values)["w"]
    agree(cut, values, 40)
    assert list(cut.unit_rms) == pytest.approx(list(plain.unit_rms), rel=1e-6)
    assert cut.duplicate_units == plain.duplicate_units == 1


def test_memory_does_not_grow_with_the_tensor() -> None:
    import tracemalloc

    chunk = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)
    peaks = []
    for repeats in (2, 40):
        view = View(1, 512 * repeats, 1024)
        fresh = tensor(View(view.units, 1, 1024))  # units of different groups: no duplicates to be looked at
        measure.measure(fresh, lambda n=repeats: iter([chunk] * n))  # type: ignore[misc]
        tracemalloc.start()
        measure.measure(fresh, lambda n=repeats: iter([chunk] * n))  # type: ignore[misc]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100 * 512 * 38  # bytes per additional unit, of 4096 that it holds


def test_unit_rms_has_one_entry_per_unit_and_values_one_per_bias() -> None:
    values = np.array([[3.0, 4.0], [np.nan, 2.0], [0.0, 0.0]], np.float32)
    assert list(of(values)["w"].unit_rms) == pytest.approx([math.sqrt(12.5), 2.0, 0.0])
    bias = of(np.array([[1.0], [2.0]], np.float32))["w"]
    assert (list(bias.values), list(bias.unit_rms)) == ([1.0, 2.0], [])


def test_float32_overflow_and_underflow_do_not_reach_the_moments() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((64, 64)).astype(np.float32)
    values[3] *= np.float32(1e-25)  # its squares underflow in float32
    stats = of(values)["w"]
    assert stats.unit_rms[3] == pytest.approx(float(np.sqrt((values[3].astype(np.float64) ** 2).mean())), rel=1e-5)
    agree(of(values * np.float32(1e30))["w"], values * np.float32(1e30), 64)
    agree(of(values * np.float32(1e-42))["w"], values * np.float32(1e-42), 64)


class TestDuplicates:
    def test_a_last_bit_tells_units_apart(self) -> None:
        values = np.tile(np.random.default_rng(0).standard_normal(300).astype(np.float32), (4, 1))
        values[1, 17] = np.nextafter(values[1, 17], np.float32(9))
        assert of(values)["w"].duplicate_units == 2

    def test_a_permutation_is_no_duplicate(self) -> None:
        values = np.tile(np.arange(1, 9, dtype=np.float32), (2, 1))
        values[1] = values[1, ::-1]
        assert of(values)["w"].duplicate_units == 0

    def test_signs_tell_units_apart(self) -> None:
        rows = np.array(np.meshgrid(*[[-1, 1]] * 10), np.float32).reshape(10, -1).T
        assert of(np.ascontiguousarray(rows))["w"].duplicate_units == 0

    def test_units_of_different_groups_are_not_compared(self) -> None:
        values = np.tile(np.arange(4, dtype=np.float32), (6, 1))
        assert of(values, groups=6)["w"].duplicate_units == 0
        assert of(values, groups=3)["w"].duplicate_units == 3

    def test_equal_units_are_found_wherever_they_stand(self) -> None:
        """BLAS may treat the last rows of a block differently; rounding must not hide a duplicate."""
        rng = np.random.default_rng(0)
        for fan_in in (2, 9, 64, 147, 576, 4608):
            values = rng.standard_normal((1501, fan_in)).astype(np.float32)
            values[750:1500] = values[rng.permutation(750)]
            assert of(values, height=333)["w"].duplicate_units == 750

    def test_independent_large_layers_are_not_read_twice(self) -> None:
        values = np.random.default_rng(0).standard_normal((2048, 512)).astype(np.float32)
        reads = 0

        def chunks() -> Iterator[Array]:
            nonlocal reads
            reads += 1
            yield values

        measure.measure(tensor(View(1, *values.shape)), chunks)
        assert reads == 1

    @pytest.mark.parametrize(
        "draw",
        [
            lambda rng, shape: rng.choice([-1.0, 1.0], shape),
            lambda rng, shape: rng.integers(-3, 4, shape) * 0.1,
            lambda rng, shape: (rng.random(shape) < 0.1) * rng.standard_normal(shape),
            lambda rng, shape: rng.standard_normal(shape).astype(ml_dtypes.float8_e4m3fn).astype(np.float32),
        ],
    )
    @pytest.mark.parametrize("shape", [(64, 3), (200, 5), (300, 2), (400, 1)])
    def test_chance_is_foretold(self, draw: Callable[..., Array], shape: tuple[int, int]) -> None:
        found, foretold = [], []
        for seed in range(30):
            stats = of(draw(np.random.default_rng(seed), shape).astype(np.float32))["w"]
            found.append(stats.duplicate_units)
            foretold.append(stats.chance_duplicates)
        assert np.mean(foretold) == pytest.approx(np.mean(found), rel=0.3, abs=0.5)

    def test_planted_duplicates_are_beyond_chance(self) -> None:
        values = np.random.default_rng(0).standard_normal((64, 9)).astype(np.float32)
        values[32:] = values[:32]
        stats = of(values)["w"]
        assert stats.duplicate_units == 32
        assert stats.chance_duplicates < 1e-6

    def test_expectation_is_continuous_in_the_probability(self) -> None:
        for equal in (1e-4, 0.01, 0.3):
            for units in (2, 50):
                q = equal
                exact = sum(1 - (1 - q) ** i for i in range(units))
                assert duplicates.expected(units, 1, 1, equal, 0.0) == pytest.approx(exact, rel=1e-3)
        assert duplicates.expected(5, 2, 3, 1.0, 0.0) == 8


class TestUnitSpread:
    @pytest.mark.parametrize("family", ["normal", "uniform"])
    def test_independent_values_give_one(self, family: str) -> None:
        rng = np.random.default_rng(0)
        values = rng.standard_normal((2000, 50)) if family == "normal" else rng.uniform(-1, 1, (2000, 50))
        assert of(values.astype(np.float32))["w"].unit_spread == pytest.approx(1.0, abs=0.2)

    def test_orthogonal_rows_give_zero(self) -> None:
        q = np.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))[0].astype(np.float32)
        stats = of(q)["w"]
        assert stats.unit_spread < 1e-6
        assert stats.orthogonality < 1e-3

    def test_units_of_different_scale_give_much_more(self) -> None:
        values = np.random.default_rng(0).standard_normal((64, 100)) * np.repeat([1.0, 3.0], 32)[:, None]
        assert of(values.astype(np.float32))["w"].unit_spread > 5

    def test_signs_alone_say_nothing(self) -> None:
        values = np.random.default_rng(0).choice([-0.3, 0.3], (64, 100)).astype(np.float32)
        assert of(values)["w"].unit_spread == 1.0


def test_orthogonality_of_noise_is_one() -> None:
    rng = np.random.default_rng(0)
    for shape in ((64, 512), (512, 64), (10, 10), (4, 20)):
        seen = [of(rng.standard_normal(shape).astype(np.float32))["w"].orthogonality for _ in range(50)]
        assert np.mean(seen) == pytest.approx(1.0, abs=0.12)


def test_moments_merge_in_any_order() -> None:
    values = np.random.default_rng(0).standard_normal((9, 64)).astype(np.float32) * 3 + 1
    measurer = moments.Measurer(np.dtype(np.float32), 64)
    pieces = [measurer.block(values[row : row + 1])[0] for row in range(9)]
    forwards, backwards = moments.Moments(), moments.Moments()
    for piece in pieces:
        forwards.add(piece)
    for piece in reversed(pieces):
        backwards.add(piece)
    assert forwards.kurtosis == pytest.approx(backwards.kurtosis, rel=1e-9)
    assert forwards.mean_square == pytest.approx(float((values.astype(np.float64) ** 2).mean()), rel=1e-6)
