"""A scale, a token or a slope that no map owns may be what is wrong: it is tried before the architecture is blamed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import initlint
from initlint.measure import measure_all
from initlint.model import Model, Role, Tensor, View
from initlint.plugin import Fill, Reinit, Severity
from initlint.redraw import tamed


def hidden(inputs: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


class Scaled(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((8,), value))
        self.net = hidden()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x * self.scale)


class Registers(nn.Module):
    def __init__(self, std: float) -> None:
        super().__init__()
        self.registers = nn.Parameter(std * torch.randn(1, 4, 8))
        self.net = hidden()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([self.registers.expand(len(x), -1, -1), x], 1))


def steep(slope: float) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(8, 32)]
    for _ in range(5):
        layers += [nn.PReLU(init=slope), nn.Linear(32, 32)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("build", "shape", "edit"),
    [
        (lambda: Scaled(1e5), (32, 8), Fill("scale", 1.0)),
        (lambda: Scaled(-1e5), (32, 8), Fill("scale", -1.0)),
        (lambda: Registers(1e6), (8, 6, 8), Reinit("registers", "normal", 1.0)),
        (lambda: steep(25.0), (32, 8), Fill("1.weight", 1.0)),
    ],
)
def test_it_is_tried_and_named(build: Callable[[], nn.Module], shape: tuple[int, ...], edit: Fill | Reinit) -> None:
    torch.manual_seed(0)
    report = initlint.check(build(), torch.randn(*shape))
    (finding,) = (each for each in report.headlines if each.rule == "exploding-signal")
    assert (finding.severity, finding.verified) == (Severity.ERROR, True)
    assert edit in finding.fix.fixes


@pytest.mark.parametrize("build", [lambda: Scaled(5.0), lambda: Registers(0.02), lambda: steep(0.25)])
def test_of_usual_size_they_are_silent(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module = build()
    shape = (8, 6, 8) if isinstance(module, Registers) else (32, 8)
    assert [
        each for each in initlint.check(module, torch.randn(*shape)).findings if each.severity >= Severity.WARNING
    ] == []


@pytest.mark.parametrize(("value", "edits"), [(1e-5, ()), (0.0, ()), (5.0, ()), (50.0, (Fill("gamma", 1.0),))])
def test_small_ones_are_meant(value: float, edits: tuple[Fill, ...]) -> None:
    """LayerScale starts at 1e-5: gradients that vanish for it are no fault."""
    gamma = Tensor("gamma", (8,), "float32", Role.OTHER, View(1, 8, 1))
    model = Model("torch", (), (gamma,), parameters=8)
    stats = measure_all(model, lambda address: [np.full((8, 1), value, np.float32)], model.tensors)
    assert tamed(model, stats) == edits
