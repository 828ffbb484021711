"""A mask of zeros that nobody has set holds what it multiplies; a branch that is off for now, or a state, does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

import initlint
from initlint.plugin import Finding, Severity


def errors(module: nn.Module) -> list[Finding]:
    report = initlint.check(module, torch.randn(32, 16, generator=torch.Generator().manual_seed(0)))
    return [each for each in report.findings if each.severity is Severity.ERROR]


class Masked(nn.Module):
    """As MADE, or a pruned net, before its masks are set."""

    def __init__(self, masks: float) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(16, 32), nn.Linear(32, 4)
        self.register_buffer("first", torch.full((32, 16), masks))
        self.register_buffer("last", torch.full((4, 32), masks))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(linear(x, self.inner.weight * self.first, self.inner.bias))
        return linear(hidden, self.head.weight * self.last, self.head.bias)


class FadedIn(nn.Module):
    """A branch that a schedule fades in, beside one that works."""

    def __init__(self) -> None:
        super().__init__()
        self.old, self.new, self.head = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 4)
        self.register_buffer("share", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.old(x)) + self.share * torch.relu(self.new(x)))


class Averaged(nn.Module):
    """All that passes is scaled by an average that training keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(16, 32), nn.Linear(32, 4)
        self.register_buffer("average", torch.zeros(32))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(x)
        if self.training:
            self.average.lerp_(hidden.detach().pow(2).mean(0), 0.1)
        return self.head(hidden * self.average)


def test_masks_that_were_never_set_are_an_error_that_names_the_mask() -> None:
    torch.manual_seed(0)
    found = errors(Masked(0.0))
    assert {each.tensor for each in found if each.tensor} == {"first", "inner.bias", "last"}
    (weight,) = (each for each in found if each.address == "first")
    assert weight.message.startswith("all 512 weights made of it are zero and can never change")
    assert weight.fix is not None
    assert weight.fix.code == 'nn.init.constant_(model.get_buffer("first"), 1)'


@pytest.mark.parametrize("build", [lambda: Masked(1.0), FadedIn, Averaged])
def test_masks_that_are_set_and_buffers_that_will_be_hold_nothing(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    assert errors(build()) == []


class Symbolic(nn.Module):
    """Edges of a Kolmogorov-Arnold network: formulas that a frozen mask switches off, until one is chosen."""

    def __init__(self, alone: bool) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.zeros(4, 16), requires_grad=False)
        self.affine, self.spline = nn.Parameter(torch.randn(4, 16)), nn.Linear(16, 4)
        self.alone = alone

    def forward(self, x: Tensor) -> Tensor:
        edges = [[self.mask[j][i] * torch.sin(self.affine[j, i] * x[:, i]) for i in range(16)] for j in range(4)]
        formulas = torch.stack([torch.stack(each).sum(0) for each in edges], 1)
        return formulas if self.alone else self.spline(x) + formulas


@pytest.mark.parametrize("alone", [False, True])
def test_what_a_frozen_mask_switches_off_is_unused_unless_it_is_all_there_is(alone: bool) -> None:
    torch.manual_seed(0)
    model = Symbolic(alone).requires_grad_(True)
    model.mask.requires_grad_(False)
    report = initlint.check(model, torch.randn(32, 16))
    told = {(each.rule, each.address, each.severity) for each in report.findings if each.address == "affine"}
    rule, severity = ("stuck-parameters", Severity.ERROR) if alone else ("unused-parameters", Severity.NOTE)
    assert told == {(rule, "affine", severity)}
