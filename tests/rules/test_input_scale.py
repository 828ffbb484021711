"""Given inputs that no initialisation counts on: told once, where they come in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from models import Built, batchnorm_resnet, gelu_mlp, normed_cnn, relu_cnn, relu_mlp, tanh_mlp
from models.graphs import Graph
from models.initialised import seeded
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING = Severity.WARNING
ALONE = ()
"""No file brings its inputs along."""


def fed(build: Callable[[int], Built], factor: float, offset: float = 0.0, seed: int = 0) -> Built:
    """With inputs as large as raw pixels, say."""
    module, inputs = build(seed)
    return module, tuple((each + offset) * factor for each in inputs)


class Conditioned(nn.Module):
    """Large in one argument only, which goes through a table of sines first."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.first, self.last = nn.Linear(16, 32), nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.logspace(0, -3, 8)
        steps = self.steps(torch.cat([angles.sin(), angles.cos()], -1))
        out: Tensor = self.last(torch.relu(self.first(x) + steps))
        return out


@seeded
def conditioned() -> Built:
    return Conditioned(), (torch.randn(16, 8), torch.rand(16) * 1000)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.cell(x)[0][:, -1])
        return out


@seeded
def recurrent() -> Built:
    return Recurrent(), (torch.randn(16, 8, 8),)


@cases(
    Good("inputs of order one", relu_mlp, notes_ok=False, exporters=ALONE),
    Good("near miss: 40 times as large", partial(fed, relu_mlp, 40.0), exporters=ALONE),
    Good("near miss: a norm behind the first layer", partial(fed, normed_cnn, 100.0, 1.8), exporters=ALONE),
    Good("near miss: residual blocks behind a first norm", partial(fed, batchnorm_resnet, 100.0, 1.8), exporters=ALONE),
    Good("near miss: time steps that go through sines", conditioned, exporters=ALONE),
    Bad("pixels into relu", partial(fed, relu_mlp, 65.0, 1.8), ["0"], WARNING, exporters=ALONE),
    Bad("pixels into tanh", partial(fed, tanh_mlp, 65.0, 1.8), ["0"], WARNING, exporters=ALONE),
    Bad("large into gelu", partial(fed, gelu_mlp, 100.0), ["0"], WARNING, exporters=ALONE),
    Bad("pixels into convolutions", partial(fed, relu_cnn, 65.0, 1.8), ["0"], WARNING, exporters=ALONE),
    Bad("pixels into a recurrence", partial(fed, recurrent, 65.0, 1.8), ["cell"], WARNING, exporters=ALONE),
)
def test_input_scale(case: Case) -> None:
    check("input-scale", case, seeds=(0,))


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_a_loud_layer_is_not_taken_for_loud_inputs(factor: float) -> None:
    module, inputs = relu_mlp(0)
    with torch.no_grad():
        next(module.parameters()).mul_(factor)
    report = initlint.check(module, inputs)
    assert "input-scale" not in {each.rule for each in report.findings}


def test_files_with_inputs_are_judged_alike() -> None:
    given = np.random.default_rng(0).uniform(0, 255, (16, 3, 16, 16)).astype(np.float32)
    graph = Graph(0)
    x = graph.op("Relu", graph.conv("first", graph.input("image", ["batch", 3, 16, 16]), 3, 16))
    model = graph.model(graph.conv("last", x, 16, 4))
    told = [each for each in initlint.check(model, {"image": given}).findings if each.rule == "input-scale"]
    assert [(each.address, each.severity) for each in told] == [("first", WARNING)]
    assert "input-scale" not in {each.rule for each in initlint.check(model).findings}


def test_what_is_said() -> None:
    module, inputs = fed(relu_mlp, 100.0)
    (found,) = (each for each in initlint.check(module, inputs).findings if each.rule == "input-scale")
    rms = float(np.sqrt(np.mean(np.square(inputs[0].numpy()))))
    assert found.data["rms"] == pytest.approx(rms, rel=1e-5)
    assert "standardise them" in found.message
