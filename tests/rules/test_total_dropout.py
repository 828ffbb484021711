"""Dropout that keeps nothing is told, in a branch as well; one that keeps a little is not."""

from __future__ import annotations

import torch
from models import Built, relu_mlp
from torch import Tensor, nn

import initlint
from initlint.testing import Bad, Case, Good, cases, check


def dropping(seed: int = 0, share: float = 1.0) -> Built:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(share), nn.Linear(32, 4))
    return module, (torch.randn(64, 8),)


def nearly_all(seed: int = 0) -> Built:
    return dropping(seed, 0.95)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.drop, self.head = (
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.Dropout(1.0),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.drop(torch.tanh(self.branch(x))))


def in_a_branch(seed: int = 0) -> Built:
    torch.manual_seed(seed)
    return Residual(), (torch.randn(64, 8),)


@cases(
    Good("he-initialised mlp", relu_mlp),
    Good("near miss: dropout that keeps a twentieth", nearly_all),
    Bad("dropout that keeps nothing", dropping, ["0.weight"], exporters=()),  # a file in evaluation mode holds none
    Bad("the same in a branch", in_a_branch, ["branch.weight"], exporters=()),
)
def test_total_dropout(case: Case) -> None:
    check("total-dropout", case, seeds=(0, 1))


def test_it_is_the_only_headline_and_names_the_module() -> None:
    module, inputs = dropping()
    (finding,) = initlint.check(module, *inputs).headlines
    assert finding.data["place"] == "2"
    assert finding.data["tensors"] == ["0.weight", "0.bias", "3.weight"]
