"""Outputs that are the same for all inputs, and stay so."""

from __future__ import annotations

from functools import partial

import models
import torch
from models import Built
from models.altered import altered
from models.initialised import seeded
from models.messages import messages, shut
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check


@seeded
def normed(eps: float = 1e-5, gain: float = 1.0) -> Built:
    layers = [nn.Linear(16, 32), nn.BatchNorm1d(32, eps=eps), nn.ReLU()]
    module = nn.Sequential(*layers, nn.Linear(32, 32), nn.BatchNorm1d(32, eps=eps), nn.ReLU(), nn.Linear(32, 4))
    nn.init.constant_(module[4].weight, gain)
    return module, (torch.randn(32, 16),)


class _Facing(nn.Module):
    """What the first rectifier lets through the second one stops."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(-torch.relu(self.second(torch.relu(self.first(x))))))
        return out


@seeded
def facing() -> Built:
    return _Facing(), (torch.randn(32, 16),)


class _Rounded(nn.Module):
    """A quantiser behind the first layer, with a straight-through gradient."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.first, self.step, self.head = nn.Linear(16, 32), step, nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x)) / self.step
        out: Tensor = self.head((x + (x.round() - x).detach()) * self.step)
        return out


@seeded
def rounded(step: float = 1000.0) -> Built:
    return _Rounded(step), (torch.randn(32, 16),)


class _Masked(nn.Module):
    def __init__(self, kept: float) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(16, 32), nn.Linear(32, 4)
        self.mask: Tensor
        self.register_buffer("mask", torch.full((32,), kept, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.first(x)) * self.mask)
        return out


@seeded
def masked(kept: float = 0) -> Built:
    return _Masked(kept), (torch.randn(32, 16),)


@seeded
def zero_head_on_equal_samples() -> Built:
    module, (inputs, *_) = models.zero_head()
    return module, (inputs[:1].expand_as(inputs).clone(),)


@seeded
def beside_a_mask_of_large_numbers() -> Built:
    """What is hidden gets -1e9, beside which all that depends on the input is rounding."""

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.body(x)
            return out.masked_fill(torch.arange(8) < 2, -1e9)

    return Hidden(), (torch.randn(32, 16),)


@cases(
    Good("a norm", normed),
    Good("near miss: a zero head wakes up", models.zero_head, notes_ok=True),
    Good("near miss: zeros in series of adaLN-Zero", models.adaln_zero, notes_ok=True),
    Good("near miss: equal samples have equal outputs", zero_head_on_equal_samples, notes_ok=True),
    Good("a fine grid", partial(rounded, step=0.01)),
    Good("near miss: masked logits", beside_a_mask_of_large_numbers),
    Good("near miss: message passing with biases of -0.1", altered(messages, partial(shut, bias=-0.1))),
    Bad(
        "message passing, shut", altered(messages, partial(shut, bias=-2.0)), at=["own.0.bias"], severity=Severity.ERROR
    ),
    Bad("two rectifiers that face each other", facing, at=[""], severity=Severity.WARNING),
    Bad("an epsilon of 1e7", partial(normed, eps=1e7), at=["1"], severity=Severity.ERROR),
    Bad("a grid that is too coarse", rounded, at=["head"], severity=Severity.ERROR),
    Bad("a mask that was never set", masked, at=["head"], severity=Severity.ERROR),
)
def test_constant_outputs(case: Case) -> None:
    check("constant-outputs", case, seeds=(0, 1))


def test_a_cause_takes_it_in() -> None:
    def dead() -> nn.Module:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
        nn.init.zeros_(module[2].weight)
        nn.init.zeros_(module[2].bias)
        return module

    report = initlint.check(dead(), torch.randn(32, 16))
    (finding,) = (each for each in report.findings if each.rule == "constant-outputs")
    assert finding.caused_by is not None and finding.caused_by.rule == "zero-weights"


def test_a_frozen_table_of_zeros_is_an_error() -> None:
    table = nn.Embedding.from_pretrained(torch.zeros(16, 8), freeze=True)
    module = nn.Sequential(table, nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 4))
    report = initlint.check(module, torch.randint(0, 16, (32, 6)))
    first = next(each for each in report.findings if each.caused_by is None)
    assert (first.severity, first.address) == (Severity.ERROR, "0.weight")
