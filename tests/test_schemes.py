"""Schemes are recognised from statistics alone, and drawn with the variance that their papers give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from initlint import measure, schemes
from initlint.fixes import Reinit
from initlint.kinds import Kind, Role
from initlint.model import Layer, Tensor, View
from initlint.redraw import REPEATED
from initlint.schemes import Fans, Guess

Array = NDArray[Any]


def guess(values: Array, fans: Fans | None = None) -> Guess:
    view = View(1, *values.shape)
    tensor = Tensor("w", values.shape, "float32", Role.WEIGHT, view)
    layer = Layer("l", Kind.LINEAR, tensor, fan_in=view.fan_in, fan_out=view.units)
    stats = measure.measure(tensor, lambda: [values.astype(np.float32)])["w"]
    return schemes.recognise(stats, fans or schemes.fans(layer, tensor))


def normal(shape: tuple[int, int], std: float, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape) * std


def uniform(shape: tuple[int, int], bound: float, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-bound, bound, shape)


class TestMisfit:
    """A depthwise convolution of 64 channels: 9 inputs per output, 9 outputs per input."""

    WEIGHT = Tensor("w", (64, 1, 3, 3), "float32", Role.WEIGHT, View(64, 1, 9))
    LAYER = Layer("l", Kind.CONV, WEIGHT, fan_in=9, fan_out=9)

    def misfit(self, values: Array) -> schemes.Misfit | None:
        stats = measure.measure(self.WEIGHT, lambda: [values.astype(np.float32)])["w"]
        return schemes.misfit(self.LAYER, stats)

    def test_the_fan_out_of_all_groups(self) -> None:
        found = self.misfit(normal((64, 9), math.sqrt(2 / (64 * 9))))
        assert found is not None
        assert 1 / 65 < found.factor < 1 / 30  # He's fan-out of 64 * 9, or Xavier's mean of it and 9, which is as near

    @pytest.mark.parametrize("variance", [2 / 9, 1 / 9, 0.02**2, 1.0])
    def test_own_fans_and_written_numbers_fit(self, variance: float) -> None:
        assert self.misfit(normal((64, 9), math.sqrt(variance))) is None

    def test_what_pytorch_draws_fits(self) -> None:
        assert self.misfit(uniform((64, 9), 1 / 3)) is None


class TestRecognises:
    @pytest.mark.parametrize(
        ("values", "name"),
        [
            (np.zeros((4, 8)), "zeros"),
            (np.ones((4, 8)), "ones"),
            (np.full((4, 8), 0.5), "constant(0.5)"),
            (np.eye(16), "identity"),
            (0.5 * np.eye(8, 72), "identity(gain=0.5)"),
            (np.linalg.qr(normal((48, 48), 1.0))[0], "orthogonal"),
            (np.linalg.qr(normal((96, 24), 1.0))[0], "orthogonal"),
            (1.5 * np.linalg.qr(normal((96, 24), 1.0))[0].T, "orthogonal(gain=1.5)"),
            (normal((64, 256), math.sqrt(2 / 256)), "he_normal(fan_in)"),
            (normal((64, 256), math.sqrt(2 / 64)), "he_normal(fan_out)"),
            (uniform((64, 256), math.sqrt(6 / 256)), "he_uniform(fan_in)"),
            (normal((64, 256), math.sqrt(2 / 320)), "xavier_normal"),
            (uniform((64, 256), math.sqrt(6 / 320)), "xavier_uniform"),
            (normal((64, 256), 1 / 16), "lecun_normal"),
            (uniform((64, 256), 1 / 16), "pytorch_default"),
            (normal((64, 256), 0.02), "normal(std=0.02)"),
            (normal((64, 256), 0.3), "normal(std=0.3)"),
            (uniform((64, 256), 0.4), "uniform(±0.4)"),
            (np.random.default_rng(0).random((64, 256)), "uniform(3e-05, 1)"),
            (1 + normal((256, 1), 0.02), "normal(mean=1, std=0.02)"),
            (normal((100, 200), 0.01) * (uniform((100, 200), 1.0, 1) > 0.6), "sparse(sparsity=0.8, std=0.01)"),
        ],
    )
    def test_named(self, values: Array, name: str) -> None:
        guessed = guess(values)
        assert guessed.scheme.partition("(")[0] == name.partition("(")[0]
        assert guessed.confidence > 0.8
        if name[-1] != ")" or name.startswith(("he", "ident", "orth", "constant", "normal(std=0.02", "uniform(±")):
            assert guessed.scheme == name

    def test_coinciding_schemes_are_both_named(self) -> None:
        assert guess(normal((128, 128), 128**-0.5)).scheme == "xavier_normal|lecun_normal"

    def test_truncation_is_told_from_the_whole_normal(self) -> None:
        draws = normal((1, 100_000), 1.0)
        kept = draws[abs(draws) < 2][: 64 * 256].reshape(64, 256)
        assert guess(kept * 0.05 / 0.8796).scheme == "truncated_normal(std=0.05)"

    @pytest.mark.parametrize(
        "values",
        [
            np.random.default_rng(0).standard_t(3, (64, 64)),
            np.concatenate([normal((32, 64), 0.01), normal((32, 64), 1.0)]),
            np.where(np.eye(8) > 0, np.nan, 1.0),
            np.random.default_rng(0).choice([-1.0, 1.0], (64, 64)),
            np.empty((0, 4)),
            np.array([[0.1, 0.3]]),
        ],
    )
    def test_what_is_nobodys_scheme_is_not_named(self, values: Array) -> None:
        assert guess(values) == Guess("unrecognised", 0.0)

    def test_a_handful_of_values_gives_little_confidence(self) -> None:
        assert guess(normal((2, 4), 0.5)).confidence < 0.8

    def test_confidence_is_honest(self) -> None:
        """Tiny samples of known schemes: the mean confidence is the share of right guesses."""
        claimed, right = [], []
        for seed in range(400):
            shape = [(3, 5), (4, 10), (8, 12), (16, 20)][seed % 4]
            name, std = [("he_normal(fan_in)", math.sqrt(2 / shape[1])), ("lecun_normal", shape[1] ** -0.5)][
                seed // 4 % 2
            ]
            guessed = guess(normal(shape, std, seed))
            claimed.append(guessed.confidence)
            right.append(name in guessed.scheme.split("|"))
        assert np.mean(claimed) == pytest.approx(np.mean(right), abs=0.1)


class TestFans:
    def test_biases_have_the_fan_in_of_their_weight(self) -> None:
        bias = Tensor("b", (64,), "float32", Role.BIAS, View(1, 64, 1))
        weight = Tensor("w", (64, 100), "float32", Role.WEIGHT, View(1, 64, 100))
        layer = Layer("l", Kind.LINEAR, weight, bias=bias, fan_in=100, fan_out=64)
        assert guess(uniform((64, 1), 0.1), schemes.fans(layer, bias)).scheme == "pytorch_default"

    def test_recurrent_tensors_are_bounded_by_the_hidden_size(self) -> None:
        weight = Tensor("w", (128, 20), "float32", Role.WEIGHT, View(1, 128, 20), parts=("i", "f", "g", "o"))
        recurrent = Tensor("r", (128, 32), "float32", Role.RECURRENT_WEIGHT, View(1, 128, 32), parts=weight.parts)
        layer = Layer("l", Kind.LSTM, weight, recurrent=recurrent, fan_in=20, fan_out=32)
        for tensor in (weight, recurrent):
            for address in (tensor.address, *tensor.part_addresses):
                found = schemes.fans(layer, tensor, address)
                values = uniform((32, tensor.view.fan_in), 32**-0.5)
                assert guess(values, found).scheme == "pytorch_default"

    def test_frameworks_count_grouped_fans_otherwise(self) -> None:
        """PyTorch's fan_out of a depthwise convolution is out * kernel, not kernel."""
        weight = Tensor("w", (64, 1, 3, 3), "float32", Role.WEIGHT, View(64, 1, 9))
        layer = Layer("l", Kind.CONV, weight, fan_in=9, fan_out=9)
        found = schemes.fans(layer, weight)
        assert guess(normal((64, 9), math.sqrt(2 / 576)), found).scheme == "xavier_normal|he_normal(fan_out)"
        assert guess(normal((64, 9), math.sqrt(2 / 9)), found).scheme == "he_normal(fan_in)"

    def test_tensors_outside_every_layer_have_none(self) -> None:
        assert schemes.fans(None, Tensor("w", (2, 3), "float32", Role.OTHER, View(1, 2, 3))) == schemes.NO_FANS


class TestDraw:
    VIEW = View(1, 300, 200)
    FANS = Fans(200, 300)

    @pytest.mark.parametrize(
        ("scheme", "variance"),
        [
            ("he_normal", 2 / 200),
            ("he_uniform", 2 / 200),
            ("lecun_normal", 1 / 200),
            ("lecun_uniform", 1 / 200),
            ("xavier_normal", 2 / 500),
            ("xavier_uniform", 2 / 500),
            ("normal", 1.0),
            ("orthogonal", 1 / 300),
        ],
    )
    def test_variance(self, scheme: str, variance: float) -> None:
        drawn = schemes.draw(scheme, self.VIEW, self.FANS, 0.5, np.random.default_rng(0))
        assert (drawn.dtype, drawn.shape) == (np.float32, (300, 200))
        assert drawn.var() == pytest.approx(0.25 * variance, rel=0.03)
        assert abs(drawn.mean()) < 0.02 * drawn.std()

    @pytest.mark.parametrize("scheme", ["he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "orthogonal"])
    def test_what_is_drawn_is_recognised(self, scheme: str) -> None:
        drawn = schemes.draw(scheme, self.VIEW, self.FANS, 1.0, np.random.default_rng(0))
        assert guess(drawn).scheme.startswith(scheme)

    @pytest.mark.parametrize("view", [View(1, 20, 50), View(1, 50, 20), View(4, 8, 3), View(3, 1, 9)])
    def test_orthogonal_in_each_group(self, view: View) -> None:
        drawn = schemes.draw("orthogonal", view, Fans(view.fan_in, view.units), 2.0, np.random.default_rng(0))
        for group in drawn.reshape(view.groups, view.units, view.fan_in):
            gram = group @ group.T if view.units <= view.fan_in else group.T @ group
            assert gram == pytest.approx(4.0 * np.eye(len(gram)), abs=1e-5)

    def test_zeros(self) -> None:
        assert not schemes.draw("zeros", self.VIEW, self.FANS, 1.0, np.random.default_rng(0)).any()

    def test_every_scheme_that_a_fix_can_print_can_be_drawn(self) -> None:
        for scheme in (*REPEATED, "normal"):
            assert Reinit("w", scheme).code
            schemes.draw(scheme, View(1, 2, 3), Fans(3, 2), 1.0, np.random.default_rng(0))

    def test_an_unknown_scheme_is_a_key_error(self) -> None:
        with pytest.raises(KeyError):
            schemes.draw("magic", self.VIEW, self.FANS, 1.0, np.random.default_rng(0))
