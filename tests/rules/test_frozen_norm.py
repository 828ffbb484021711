"""Frozen batch norms of a module without its checkpoint are told as such, not as an exporter's work."""

from __future__ import annotations

import torch
from models import Built, batchnorm_resnet
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check


class FrozenNorm(nn.Module):
    """As torchvision's: all of it is held in buffers."""

    def __init__(self, width: int, variance: float = 1.0) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", variance)):
            self.register_buffer(name, torch.full((width,), value))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale.view(1, -1, 1, 1) + (self.bias - self.running_mean * scale).view(1, -1, 1, 1)


class Backbone(nn.Module):
    """A few convolutions with frozen norms, and a head; ``stuck`` holds a branch by two zeros."""

    def __init__(self, stuck: bool = False, variance: float = 1.0) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, bias=False), FrozenNorm(16, variance)
        self.branch, self.gate, self.head = nn.Conv2d(16, 16, 1), nn.Parameter(torch.zeros(1)), nn.Linear(16, 4)
        if stuck:
            nn.init.zeros_(self.branch.weight)
            nn.init.zeros_(self.branch.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.head((x + self.gate * self.branch(x)).mean((2, 3)))


def backbone(seed: int = 0, stuck: bool = False, variance: float = 1.0) -> Built:
    torch.manual_seed(seed)
    return Backbone(stuck, variance), (torch.randn(16, 3, 8, 8),)


def loaded(seed: int = 0) -> Built:
    return backbone(seed, variance=0.3)


@cases(
    Good("norms that learn", batchnorm_resnet),
    Good("near miss: frozen norms with measured statistics", loaded),
    Bad("frozen norms without a checkpoint", backbone, [""], Severity.NOTE, exporters=()),
)
def test_frozen_norm(case: Case) -> None:
    check("frozen-norm", case, seeds=(0,))


def test_what_never_learns_is_told_beside_it() -> None:
    module, inputs = backbone(stuck=True)
    report = initlint.check(module, *inputs)
    assert {each.rule for each in report.headlines if each.severity is Severity.ERROR} == {"zero-weights"}
    silenced = {each.rule for each in report.skipped_rules if each.reason == "gives way to frozen-norm"}
    assert {"variance-mismatch", "vanishing-signal", "vanishing-gradient"} <= silenced
    assert not {"stuck-parameters", "unused-parameters", "folded-norm"} & silenced
