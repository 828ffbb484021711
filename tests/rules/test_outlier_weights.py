"""Weights and units far outside what the rest of their layer shows."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from models.graphs import Array, Graph, mlp

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING, NOTE = Severity.WARNING, Severity.NOTE


def one(deviations: float) -> object:
    """A single weight so many standard deviations out."""

    def change(weight: Array) -> Array:
        weight = weight.copy()
        weight[3, 5] = deviations * weight.std()
        return weight

    return change


def few(weight: Array) -> Array:
    """What trunc_normal_(std=0.02) leaves now and then: exactly 2."""
    chosen = np.random.default_rng(0).random(weight.shape) < 1 / 500
    return np.where(chosen, 2.0, 0.01 * weight / weight.std()).astype(np.float32)


def units(low: float) -> object:
    def change(weight: Array) -> Array:
        scales = np.ones((len(weight), 1), np.float32)
        scales[: len(weight) // 2] = low
        return weight * scales

    return change


def normed(seed: int = 0) -> onnx.ModelProto:
    graph = Graph(seed, {"conv2.weight": lambda w: np.where(w == w.max(), 500 * w.std(), w).astype(np.float32)})
    x = graph.op("Relu", graph.conv("conv1", graph.input("x", ["batch", 3, 8, 8]), 3, 16))
    x = graph.op("Relu", graph.norm("norm", graph.conv("conv2", x, 16, 16), 16))
    return graph.model(graph.conv("conv3", x, 16, 4))


def laplace(weight: Array) -> Array:
    return np.random.default_rng(0).laplace(0, 0.1, weight.shape).astype(np.float32)


@cases(
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("near miss: ten deviations", partial(mlp, changes={"2.weight": one(10.0)}), notes_ok=False),
    Good("near miss: heavier tails than a normal draw", partial(mlp, changes={"2.weight": laplace}), notes_ok=False),
    Good(
        "near miss: units of two sizes, a decade apart", partial(mlp, changes={"2.weight": units(0.1)}), notes_ok=False
    ),
    Good("near miss: in front of a batch norm", normed),
    Bad("one weight of 50 deviations", partial(mlp, changes={"2.weight": one(50.0)}), ["2.weight"], NOTE),
    Bad("one weight of 1000 deviations", partial(mlp, changes={"2.weight": one(1000.0)}), ["2.weight"], WARNING),
    Bad("bounds that do not scale", partial(mlp, changes={"2.weight": few}), ["2.weight"], WARNING),
    Bad("half of the units 1000 times smaller", partial(mlp, changes={"2.weight": units(1e-3)}), ["2.weight"], NOTE),
)
def test_outlier_weights(case: Case) -> None:
    check("outlier-weights", case, seeds=(0,))
