"""Weights that are computed of parameters: the parameter is named, redrawn and blamed, not what is made of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

import initlint
from initlint import Report
from initlint.plugin import Severity
from initlint.testing import honest_export


class Hyper(nn.Module):
    """One head generates three layers."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.inner, self.codes = nn.Linear(64, 32), nn.Parameter(torch.randn(3, 16))
        self.maker, self.head = nn.Linear(16, 32 * 32), nn.Linear(32, 10)
        nn.init.normal_(self.maker.weight, std=std)
        nn.init.zeros_(self.maker.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.inner(x))
        for code in self.codes:
            x = relu(linear(x, self.maker(code).view(32, 32)))
        return self.head(x)


class Equalised(nn.Module):
    """Karras et al. 2018, section 4.1: w ~ N(0, 1), scaled in the forward pass."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(32, 32) * std) for _ in range(6))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            x = relu(linear(x, weight * (2 / 32) ** 0.5))
        return self.head(x)


class Magnitudes(nn.Module):
    """DoRA (Liu et al. 2024) with magnitudes that are not the rows' own lengths."""

    def __init__(self, magnitude: float) -> None:
        super().__init__()
        self.base = nn.Linear(32, 32, bias=False).requires_grad_(False)
        nn.init.kaiming_normal_(self.base.weight)
        self.down, self.up = nn.Parameter(torch.randn(4, 32) / 32**0.5), nn.Parameter(torch.zeros(32, 4))
        self.magnitude, self.head = nn.Parameter(torch.full((32, 1), magnitude)), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.base.weight + self.up @ self.down
        return self.head(relu(linear(x, self.magnitude * weight / weight.norm(dim=1, keepdim=True))))


class Positive(nn.Module):
    """Weights exp(w), as in input-convex nets."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(32, 32) + shift) for _ in range(4))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            x = nn.functional.softplus(linear(x, weight.exp()))
        return self.head(x)


def reports(build: type[nn.Module], value: float, width: int) -> list[Report]:
    """Of the module, and of a file that was made of it."""
    torch.manual_seed(0)
    module, inputs = build(value), torch.randn(32, width)
    return [initlint.check(module, inputs), initlint.check(honest_export(module, inputs, "dynamo"))]


def heads(report: Report) -> dict[str, str]:
    """Rule by address of what is no consequence and more than a note."""
    found = (each for each in report.findings if each.caused_by is None and each.severity > Severity.NOTE)
    return {each.address: each.rule for each in found}


@pytest.mark.parametrize("build, value, width", [(Hyper, 0.06, 64), (Equalised, 1.0, 32), (Magnitudes, 1.4, 32)])
def test_what_is_made_well_is_left_alone(build: type[nn.Module], value: float, width: int) -> None:
    for report in reports(build, value, width):
        assert heads(report) == {}


@pytest.mark.parametrize(
    "build, value, width, rule, at",
    [
        (Hyper, 1.0, 64, "variance-mismatch", "maker.weight"),
        (Hyper, 0.0, 64, "zero-weights", "maker.weight"),
        (Magnitudes, 0.0, 32, "zero-weights", "magnitude"),
    ],
)
def test_one_parameter_is_blamed_once_and_what_cures_it_is_tried(
    build: type[nn.Module], value: float, width: int, rule: str, at: str
) -> None:
    for report in reports(build, value, width):
        assert heads(report) == {at: rule}
        (cause,) = (each for each in report.findings if each.address == at and each.rule == rule)
        assert cause.severity is Severity.ERROR
        assert cause.verified
        assert not any("redrawing the weights" in each.message for each in report.findings)


@pytest.mark.parametrize("build, value, width", [(Hyper, 0.0, 64), (Hyper, 1.0, 64), (Magnitudes, 0.0, 32)])
def test_the_code_of_such_a_fix_leaves_nothing_to_say(build: type[nn.Module], value: float, width: int) -> None:
    torch.manual_seed(0)
    module, inputs = build(value), torch.randn(32, width)
    for each in initlint.check(module, inputs).findings:
        if each.verified and each.fix is not None:
            exec(each.fix.code, {"model": module, "nn": nn})  # noqa: S102
    assert heads(initlint.check(module, inputs)) == {}


def test_a_scale_in_the_forward_is_made_up_for() -> None:
    for report in reports(Equalised, 0.05, 32):
        (cause,) = (each for each in report.findings if each.caused_by is None and each.severity > Severity.NOTE)
        assert cause.verified
        assert cause.fix is not None
        assert "std=1)" in cause.fix.code  # not He's, which the forward would scale once more


def test_what_no_redraw_was_tried_of_is_no_fault_of_the_architecture() -> None:
    for report in reports(Positive, 0.0, 32):
        assert "weights.0" in heads(report)
        assert not any("comes with the architecture" in each.message for each in report.findings)
