"""An expanded parameter cannot be written; one that is expanded in the forward can."""

from __future__ import annotations

import pytest
import torch
from models import Built, relu_mlp
from torch import nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check


class Queries(nn.Module):
    """Learnt queries: eight, or one in eight places."""

    def __init__(self, queries: torch.Tensor, trainable: bool = True) -> None:
        super().__init__()
        self.queries, self.head = nn.Parameter(queries, requires_grad=trainable), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries = self.queries.expand(8, 16)
        return self.head((x @ queries.t()).softmax(1) @ queries)


def drawn(seed: int = 0) -> Built:
    torch.manual_seed(seed)
    return Queries(torch.randn(8, 16)), (torch.randn(32, 16),)


def expanded(seed: int = 0, trainable: bool = True) -> Built:
    torch.manual_seed(seed)
    return Queries(torch.randn(1, 16).expand(8, 16), trainable), (torch.randn(32, 16),)


def single(seed: int = 0) -> Built:
    """One row, whose axis of length one may have any stride."""
    torch.manual_seed(seed)
    return Queries(torch.randn(16).expand(1, 16)), (torch.randn(32, 16),)


def frozen(seed: int = 0) -> Built:
    return expanded(seed, trainable=False)


@cases(
    Good("he-initialised mlp", relu_mlp),
    Good("rows of their own", drawn),
    Good("near miss: expanded in the forward", single),
    Good("near miss: frozen", frozen),
    Bad("a parameter of an expanded tensor", expanded, ["queries"], Severity.ERROR),
)
def test_overlapping_memory(case: Case) -> None:
    check("overlapping-memory", case)


def test_it_speaks_alone_and_the_optimiser_agrees() -> None:
    module, inputs = expanded()
    report = initlint.check(module, inputs)
    assert [each.rule for each in report.findings if each.severity > Severity.NOTE] == ["overlapping-memory"]
    module(*inputs).square().mean().backward()
    with pytest.raises(RuntimeError, match="single memory location"):
        torch.optim.SGD(module.parameters(), 0.1).step()
