"""A scale, a token or a slope that no map owns may be what is wrong: it is tried before the architecture is blamed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import initlint
from initlint.kinds import Role
from initlint.measure import measure_all
from initlint.model import Model, Tensor, View
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
        (lambda: Scaled(1e6), (32, 8), Fill("scale", 1.0)),
        (lambda: Scaled(-1e6), (32, 8), Fill("scale", -1.0)),
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


class Cosines(nn.Module):
    """Times a learned number, as CLIP's logit scale, or its exponential."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.net, self.logit_scale = hidden(), nn.Parameter(torch.tensor(value))
        self.classes = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        directions = nn.functional.normalize(self.net(x), dim=-1)
        return self.logit_scale.exp() * directions @ nn.functional.normalize(self.classes, dim=-1).T


def test_a_single_number_is_named() -> None:
    torch.manual_seed(0)
    module, inputs = Cosines(14.0), torch.randn(32, 8)
    report = initlint.check(module, inputs)
    (finding,) = (each for each in report.headlines if each.severity >= Severity.WARNING)
    assert (finding.address, finding.verified) == ("logit_scale", True)
    assert finding.severity is Severity.WARNING  # Adam trains with it
    assert "with logit_scale of order one it is gone" in finding.message
    assert [(each.tensor, each.value) for each in finding.fix.fixes] == [("logit_scale", 1.0)]


def test_usual_numbers_are_silent_and_nan_is_not() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(32, 8)
    assert not [each for each in initlint.check(Cosines(2.6592), inputs).findings if each.severity >= Severity.WARNING]
    (broken,) = initlint.check(Cosines(float("nan")), inputs).headlines
    assert (broken.rule, broken.address) == ("non-finite-weights", "logit_scale")


class ActNorm(nn.Module):
    def __init__(self, logs: float) -> None:
        super().__init__()
        self.logs, self.net = nn.Parameter(torch.full((8,), logs)), hidden()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x * self.logs.exp())


class Coupling(nn.Module):
    def __init__(self, logs: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 8))
        nn.init.constant_(self.net[2].bias, logs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shift, logs = self.net(x[:, :4]).chunk(2, 1)
        return torch.cat([x[:, 4:] * logs.exp() + shift, x[:, :4]], 1)


@pytest.mark.parametrize(
    ("build", "at"),
    [(lambda: ActNorm(100.0), "logs"), (lambda: nn.Sequential(Coupling(0.0), Coupling(100.0)), "1.net.2.bias")],
)
def test_an_exponent_that_overflows_is_to_blame_itself(build: Callable[[], nn.Module], at: str) -> None:
    torch.manual_seed(0)
    (finding,) = initlint.check(build(), torch.randn(32, 8)).headlines
    assert (finding.rule, finding.address, finding.verified) == ("non-finite-activations", at, True)
    assert f"behind {at}, of rms 100" in finding.message


@pytest.mark.parametrize(("value", "edits"), [(1e-5, ()), (0.0, ()), (5.0, ()), (50.0, (Fill("gamma", 1.0),))])
def test_small_ones_are_meant(value: float, edits: tuple[Fill, ...]) -> None:
    """LayerScale starts at 1e-5: gradients that vanish for it are no fault."""
    gamma = Tensor("gamma", (8,), "float32", Role.OTHER, View(1, 8, 1))
    model = Model("torch", (), (gamma,), parameters=8)
    stats = measure_all(model, lambda address: [np.full((8, 1), value, np.float32)], model.tensors)
    assert tamed(model, stats) == edits
