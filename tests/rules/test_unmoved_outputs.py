"""Outputs that no step moves are told; faint ones that the next step moves are not."""

from __future__ import annotations

from functools import partial

import models
import torch
from models import Built
from models.initialised import seeded
from torch import Tensor, nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check


class Multiplied(nn.Module):
    def __init__(self, factor: float, gain: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        nn.init.orthogonal_(self.body[2].weight, gain)
        nn.init.zeros_(self.body[2].bias)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out * self.factor


class ReZero(Multiplied):
    """A learned factor that starts at next to nothing."""

    def __init__(self, start: float) -> None:
        super().__init__(1.0)
        self.alpha = nn.Parameter(torch.full((), start))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.alpha


@seeded
def multiplied(factor: float = 1.0, gain: float = 1.0) -> Built:
    return Multiplied(factor, gain), (torch.randn(32, 16),)


@seeded
def rezero(start: float = 1e-6) -> Built:
    return ReZero(start), (torch.randn(32, 16),)


@cases(
    Good("an mlp", multiplied),
    Good("near miss: an output multiplier of 1 / width", partial(multiplied, factor=1e-3)),
    Good("near miss: a head of 1e-6", partial(multiplied, gain=1e-6)),
    Good("near miss: a head of zeros", models.zero_head, notes_ok=True),
    Good("near miss: a learned factor of 1e-6", rezero, notes_ok=True),
    Bad("outputs times 1e-6", partial(multiplied, factor=1e-6), at=[""], severity=Severity.WARNING, exporters=()),
)
def test_unmoved_outputs(case: Case) -> None:
    check("unmoved-outputs", case, seeds=(0, 1))
