"""A zero layer whose output only fixed maps read is a head; one that a trained map reads is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity


class AffineHead(nn.Module):
    """An affine map of the places of a fixed grid, as registration nets give it; it starts as the identity."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.look, self.theta = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4 * 64, 6)
        nn.init.zeros_(self.theta.weight)
        self.theta.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        places = torch.arange(8.0)
        grid = torch.stack([*torch.meshgrid(places, places, indexing="ij"), torch.ones(8, 8)])
        if way == "buffer":
            self.register_buffer("grid", grid)
        elif way == "attribute":
            self.grid = grid
        else:
            self.grid = nn.Parameter(grid / 8)
        self.last = nn.Conv2d(2, 3, 1) if way == "layer behind" else None
        if way == "layer behind":
            self.grid.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta(torch.relu(self.look(x)).flatten(1)).view(-1, 2, 3)
        moved = torch.einsum("qij,bpq->bpij", self.grid, theta)
        return moved if self.last is None else self.last(moved)


@pytest.mark.parametrize(
    ("way", "severity"),
    [
        ("buffer", Severity.NOTE),
        ("attribute", Severity.NOTE),
        ("parameter", Severity.WARNING),
        ("layer behind", Severity.WARNING),
    ],
)
def test_behind_a_grid(way: str, severity: Severity) -> None:
    torch.manual_seed(0)
    report = initlint.check(AffineHead(way), torch.randn(4, 2, 8, 8))
    (zero,) = (f for f in report.findings if f.rule == "zero-weights")
    assert (zero.address, zero.severity) == ("theta.weight", severity)
    assert severity is Severity.WARNING or not [f for f in report.findings if f.severity > Severity.NOTE]
