"""Routers whose bias alone chooses; priors of outputs, one branch that starts shut and scores of places are fine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from models import Built, focal_prior, gpt
from torch import Tensor, nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING = Severity.ERROR, Severity.WARNING
LEGACY = ("legacy",)


class Mixture(nn.Module):
    """Four experts, weighted by a softmax over ``axis``: of experts, or of places as an attention with four heads."""

    def __init__(self, biases: Sequence[float], axis: int = -1) -> None:
        super().__init__()
        self.enter, self.router, self.head = nn.Linear(16, 16), nn.Linear(16, 4), nn.Linear(16, 3)
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.axis = axis
        with torch.no_grad():
            self.router.bias.copy_(torch.tensor(biases))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.enter(x))
        shares = torch.softmax(self.router(x), self.axis)
        mixed = sum(shares[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))
        return self.head(mixed)  # type: ignore[no-any-return]


def mixture(*biases: float, axis: int = -1, seed: int = 0) -> Built:
    torch.manual_seed(seed)
    return Mixture(biases, axis), torch.randn(32, 6, 16)


def classifier(seed: int = 0) -> Built:
    """A prior of 30 for one class, and probabilities as outputs."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4), nn.Softmax(-1))
    with torch.no_grad():
        module[2].bias[0] = 30.0
    return module, torch.randn(64, 16)


@cases(
    Good("focal prior", focal_prior, exporters=LEGACY),
    Good("gpt-2", gpt, exporters=LEGACY),
    Good("zero biases", partial(mixture, 0.0, 0.0, 0.0, 0.0)),
    Good("near miss: biases of up to 2", partial(mixture, 2.0, -2.0, 0.0, 1.0)),
    Good("near miss: one branch of four starts shut", partial(mixture, 0.0, 0.0, 0.0, -30.0)),
    Good("near miss: the same bias for all", partial(mixture, 30.0, 30.0, 30.0, 30.0)),
    Good("near miss: a softmax over places", partial(mixture, 30.0, 0.0, 0.0, 0.0, axis=1)),
    Good("near miss: a class prior", classifier),
    Bad("40 for the first expert", partial(mixture, 40.0, 0.0, 0.0, 0.0), ["router.bias"], ERROR),
    Bad("12 for the first expert", partial(mixture, 12.0, 0.0, 0.0, 0.0), ["router.bias"], WARNING),
)
def test_certain_routing(case: Case) -> None:
    check("certain-routing", case)
