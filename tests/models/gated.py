"""Networks with gates and waves of their own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .initialised import Built, seeded
from .plain import mlp


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30.0 * x)


@seeded
def siren(width: int = 64, depth: int = 4) -> Built:
    """Sitzmann et al. 2020: omega 30, first layer uniform in 1 / fan_in, others in sqrt(6 / fan_in) / 30."""
    module = mlp(Sine, depth, width, 2, 3)
    for index, layer in enumerate(linear for linear in module if isinstance(linear, nn.Linear)):
        bound = 1 / layer.in_features if index == 0 else math.sqrt(6.0 / layer.in_features) / 30.0
        nn.init.uniform_(layer.weight, -bound, bound)
    return module, (torch.rand(64, 2) * 2 - 1,)


class Highway(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x).sigmoid()
        return gate * functional.relu(self.transform(x)) + (1 - gate) * x


@seeded
def highway(width: int = 48, depth: int = 4, classes: int = 10) -> Built:
    """Srivastava et al. 2015: negative gate biases, so that a layer starts by carrying its input."""
    layers = [Highway(width) for _ in range(depth)]
    return nn.Sequential(*layers, nn.Linear(width, classes)), (torch.randn(32, width),)
