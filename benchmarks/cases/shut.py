"""Non-linearities that values far out hold where they are flat, numbers that drown the rest; and what only looks so."""

from __future__ import annotations

import torch
from models.initialised import he
from models.plain import mlp
from torch import Tensor, nn
from torch.nn import functional

from .case import Bug, Idiom

CLASSES = 10


class Dueling(nn.Module):
    """Wang et al. 2016: a value and advantages, each behind a hidden layer of its own."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).apply(he)
        self.value, self.advantage = mlp(nn.ReLU, 2, 32, 64, 1), mlp(nn.ReLU, 2, 32, 64, CLASSES)
        for head in (self.value, self.advantage):
            nn.init.constant_(head.apply(he)[0].bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.body(x)
        advantage = self.advantage(shared)
        return self.value(shared) + advantage - advantage.mean(1, keepdim=True)


def dueling(broken: bool) -> nn.Module:
    return Dueling(-30.0 if broken else 0.0)


class Mixture(nn.Module):
    """Learned shares of four nets, whatever the input."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.tensor([first, 0.0, 0.0, 0.0]))
        self.nets = nn.ModuleList(mlp(nn.ReLU, 2, 32, 64, CLASSES).apply(he) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return sum(share * net(x) for share, net in zip(self.mix.softmax(0), self.nets, strict=True))


def mixture(broken: bool) -> nn.Module:
    return Mixture(1e4 if broken else 0.0)


class Gru(nn.Module):
    def __init__(self, update: float) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(8, 32, batch_first=True), nn.Linear(32, CLASSES)
        nn.init.constant_(self.cell.bias_ih_l0[32:64], update)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


def update_gate(broken: bool) -> nn.Module:
    """sigmoid(50) is 1: the state is kept as it is, for ever zero."""
    with torch.no_grad():
        return Gru(50.0 if broken else 0.0)


class Scaled(nn.Module):
    """Cosines to class vectors, over a temperature of which the logarithm is learned."""

    def __init__(self, log_scale: float) -> None:
        super().__init__()
        self.body = mlp(nn.ReLU, 2, 64, 64, 32).apply(he)
        self.proxies = nn.Parameter(torch.randn(CLASSES, 32))
        self.log_scale = nn.Parameter(torch.tensor(log_scale))

    def forward(self, x: Tensor) -> Tensor:
        directions = self.log_scale.exp() * functional.normalize(self.body(x), dim=1)
        return directions @ functional.normalize(self.proxies, dim=1).T


def log_scale(broken: bool) -> nn.Module:
    """The temperature was meant, 1 / 0.07, and its logarithm is 2.66."""
    return Scaled(1 / 0.07 if broken else 2.6592)


class HardConcrete(nn.Module):
    """Louizos et al. 2018: stretched gates that start at 1 exactly, where clamping them has no slope but for noise."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(64, 64), nn.Linear(64, CLASSES)
        self.gates = nn.Parameter(torch.full((64,), 2.5))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.gates
        if self.training:
            drawn = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            logits = (logits + drawn.log() - (1 - drawn).log()) / (2 / 3)
        gates = (1.2 * torch.sigmoid(logits) - 0.1).clamp(0.0, 1.0)
        return self.head(torch.relu(self.inner(x)) * gates)


class Thresholds(nn.Module):
    """Most units stay below their threshold for a small batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = mlp(nn.ReLU, 2, 64, 64, 256).apply(he), nn.Linear(256, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x) - 1.5))


class Margins(nn.Module):
    """Deng et al. 2019: cosines, times a fixed scale that is a parameter here."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(nn.ReLU, 2, 64, 64, 32).apply(he)
        self.proxies, self.scale = nn.Parameter(torch.randn(CLASSES, 32)), nn.Parameter(torch.tensor(30.0))

    def forward(self, x: Tensor) -> Tensor:
        cosines = functional.normalize(self.body(x), dim=1) @ functional.normalize(self.proxies, dim=1).T
        return self.scale * cosines


BUGS = (
    Bug("dueling heads, both dead", "flat", dueling, ("value.0.bias", "advantage.0.bias")),
    Bug("mixture with one share of 1", "flat", mixture, ("mix",)),
    Bug("update gate that keeps all", "rows", update_gate, ("cell.bias_ih_l0*",)),
    Bug("scale for its logarithm", "flat", log_scale, ("log_scale",)),
)

IDIOMS = (
    Idiom("hard concrete gates", HardConcrete, "flat"),
    Idiom("thresholds", Thresholds, "flat"),
    Idiom("scaled cosines", Margins, "flat"),
)
