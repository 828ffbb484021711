"""Running variances that no batch has; what a fresh norm has, and what training left, is fine."""

from __future__ import annotations

from functools import partial

import pytest
from models import batchnorm_resnet, normed_cnn
from models.altered import altered
from models.graphs import Array, Graph
from onnx import ModelProto
from torch import nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING, NOTE = Severity.WARNING, Severity.NOTE


def cnn(seed: int = 0, **changes: object) -> ModelProto:
    """A convolution and a batch norm; ``changes`` by the last part of the names."""
    graph = Graph(seed, {f"norm.{name}": change for name, change in changes.items()})  # type: ignore[misc]
    x = graph.norm("norm", graph.conv("conv1", graph.input("x", ["batch", 3, 8, 8]), 3, 16), 16)
    return graph.model(graph.conv("conv2", graph.op("Relu", x), 16, 4))


def some(count: int, value: float) -> object:
    def change(values: Array) -> Array:
        values = values.copy()
        values[:count] = value
        return values

    return change


def trained(values: Array) -> Array:
    import numpy as np

    return np.exp(np.random.default_rng(0).normal(-2, 2, values.shape)).astype(values.dtype)


@cases(
    Good("fresh", cnn, notes_ok=False),
    Good("residual net", batchnorm_resnet, notes_ok=False, exporters=("legacy",)),
    Good("other norms", normed_cnn, notes_ok=False, exporters=("legacy",)),
    Good("near miss: as training leaves them", partial(cnn, running_var=trained, running_mean=3.0), notes_ok=False),
    Good("near miss: small variances", partial(cnn, running_var=1e-6), notes_ok=False),
    Bad("zero", partial(cnn, running_var=0.0), ["norm.running_var"], WARNING),
    Bad("one channel that is off", partial(cnn, running_var=some(1, 0.0)), ["norm.running_var"], NOTE),
    Bad("negative", partial(cnn, running_var=some(2, -0.5)), ["norm.running_var"], WARNING),
    Bad("a mean beyond measure", partial(cnn, running_mean=1e20), ["norm.running_mean"], WARNING),
    Bad(
        "the buffers of a module",
        altered(batchnorm_resnet, lambda m: m.norm.running_var.zero_()),
        ["norm.running_var"],
        WARNING,
        exporters=(),
    ),
)
def test_bad_running_statistics(case: Case) -> None:
    check("bad-running-statistics", case, seeds=(0,))


@pytest.mark.parametrize(("momentum", "told"), [(0.0, True), (0.1, False), (None, False)])
def test_statistics_that_a_momentum_of_zero_keeps_are_told(momentum: float | None, told: bool) -> None:
    module, inputs = batchnorm_resnet(0)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.momentum = momentum
    found = [each for each in initlint.check(module, *inputs).findings if each.rule == "bad-running-statistics"]
    assert bool(found) is told
    assert all(each.severity is WARNING for each in found)


def test_nor_are_frozen_norms_or_statistics_that_were_measured() -> None:
    module, inputs = batchnorm_resnet(0)
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]
    for number, each in enumerate(norms):
        each.momentum = 0.0
        if number % 2:
            each.running_var.mul_(0.5)
        else:
            each.weight.requires_grad_(False)
    assert not [each for each in initlint.check(module, *inputs).findings if each.rule == "bad-running-statistics"]
