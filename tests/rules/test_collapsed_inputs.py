"""A hidden layer that gives the same for all inputs; small heads, gates, branches and equal inputs are fine."""

from __future__ import annotations

from functools import partial

import torch
from models import Built, focal_prior, relu_mlp, squeeze_excite, torch_default_mlp, zero_head
from models.graphs import Array, mlp, residual

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR = Severity.ERROR
LEGACY = ("legacy",)


def alternating(size: float) -> object:
    def change(bias: Array) -> Array:
        bias = bias.copy()
        bias[::2], bias[1::2] = size, -size
        return bias

    return change


def times(factor: float) -> object:
    def change(weight: Array) -> Array:
        return weight * factor

    return change


@cases(
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("torch's defaults", torch_default_mlp, notes_ok=False, exporters=LEGACY),
    Good("focal prior", focal_prior, notes_ok=False, exporters=LEGACY),
    Good("zero head", zero_head, notes_ok=False, exporters=LEGACY),
    Good("squeeze and excite", squeeze_excite, notes_ok=False, exporters=LEGACY),
    Good("near miss: a bias of 5", partial(mlp, changes={"2.bias": 5.0}), notes_ok=False),
    Good("near miss: the same for all inputs at the output", partial(mlp, changes={"6.bias": 1e6}), notes_ok=False),
    Good(
        "near miss: in a branch",
        partial(residual, changes={"blocks.1.fc1.bias": 1.0, "blocks.1.fc1.weight": times(1e-5)}),
        notes_ok=False,
    ),
    Bad("a bias of +-1e4", partial(mlp, activation="Tanh", changes={"2.bias": alternating(1e4)}), ["4"], ERROR),
    Bad(
        "weights beside which the bias is all",
        partial(mlp, changes={"2.bias": 1.0, "2.weight": times(1e-5)}),
        ["4"],
        ERROR,
    ),
)
def test_collapsed_inputs(case: Case) -> None:
    check("collapsed-inputs", case, seeds=(0,))


def test_equal_inputs_cannot_be_told_apart() -> None:
    module, _ = relu_mlp(0)
    with torch.no_grad():
        for layer in module[::2]:
            layer.bias.fill_(1.0)
    report = initlint.check(module, torch.ones(16, 32), select=["collapsed-inputs"])
    assert report.findings == ()


def test_what_gets_nothing_but_constants_loses_nothing() -> None:
    class Coded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)
            self.head = torch.nn.Linear(8, 4)
            self.register_buffer("codes", torch.zeros(5, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            chosen = torch.cdist(self.encode(x), self.codes).argmin(-1)
            return self.head(self.decode(self.codes[chosen]).relu())

    report = initlint.check(Coded(), torch.randn(16, 8), select=["collapsed-inputs"])
    assert report.findings == ()


def biased(seed: int = 0) -> Built:
    module, inputs = relu_mlp(seed)
    with torch.no_grad():
        module[2].bias.fill_(1e5)
    return module, inputs


def test_the_bias_that_does_it_is_the_headline() -> None:
    report = initlint.check(*biased(), select=["collapsed-inputs", "oversized-bias"])
    assert [(f.rule, f.tensor) for f in report.headlines] == [("oversized-bias", "2.bias")]
    assert len(report.findings) == 2
