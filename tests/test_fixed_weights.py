"""What no optimiser has is judged by no rule on how weights are drawn: grids, filters, tables of coefficients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity

OF_DRAWS = {"variance-mismatch", "constant-weights", "duplicate-units", "outlier-weights"}
FIXED = {
    "a grid of coordinates": torch.randn(32, 32) * 30,
    "a mean": torch.full((32, 32), 1 / 32),
    "a repetition": torch.randn(16, 32).repeat_interleave(2, 0) / 5.6,
    "a sparse table": torch.eye(32) + torch.randn(32, 32) * 1e-9,
}


class Projected(nn.Module):
    def __init__(self, matrix: Tensor, way: str) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 4)
        if way == "buffer":
            self.register_buffer("matrix", matrix)
        elif way == "closure":
            self.matrices = (matrix,)
        else:
            self.matrix = nn.Parameter(matrix)

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.matrices[0] if hasattr(self, "matrices") else self.matrix
        return self.last(torch.relu(nn.functional.linear(self.first(x), matrix)))


def found(what: str, way: str) -> set[str]:
    torch.manual_seed(0)
    report = initlint.check(Projected(FIXED[what].clone(), way), torch.randn(64, 16))
    return {f.rule for f in report.findings if f.severity > Severity.NOTE and f.rule in OF_DRAWS}


@pytest.mark.parametrize("way", ["buffer", "closure"])
@pytest.mark.parametrize("what", FIXED)
def test_what_is_fixed_was_not_drawn(what: str, way: str) -> None:
    assert not found(what, way)


@pytest.mark.parametrize("what", ["a grid of coordinates", "a repetition"])
def test_a_parameter_of_the_same_values_is_judged(what: str) -> None:
    assert found(what, "parameter")
