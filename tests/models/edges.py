"""Functions at points where they are finite and their slopes are not."""

from __future__ import annotations

import torch
from torch import nn

from .initialised import Built, seeded


class Pairs(nn.Module):
    """Distances between all points of a set, each to itself included."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.embed, self.head, self.way = nn.Linear(8, 16), nn.Linear(36, 10), way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        points = self.embed(x)
        if self.way == "cdist":
            return self.head(torch.cdist(points, points).flatten(1))
        squares = (points[:, :, None] - points[:, None]).square().sum(-1)
        return self.head((squares + (1e-6 if self.way == "epsilon" else 0.0)).sqrt().flatten(1))


@seeded
def pairs(way: str = "root") -> Built:
    return Pairs(way), (torch.randn(4, 6, 8),)


class Root(nn.Module):
    """The root of what is positive, zero elsewhere: a NaN that is left out has a gradient all the same."""

    def __init__(self, guarded: bool) -> None:
        super().__init__()
        self.first, self.head, self.guarded = nn.Linear(8, 32), nn.Linear(32, 4), guarded

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        inner = torch.where(hidden > 0, hidden, 1.0) if self.guarded else hidden
        return self.head(torch.where(hidden > 0, inner.sqrt(), 0.0))


@seeded
def positive_root(guarded: bool = False) -> Built:
    return Root(guarded), (torch.randn(16, 8),)


class Direction(nn.Module):
    """A zero vector divided by its length, with the guard that torch has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 32), nn.Linear(32, 4)
        nn.init.zeros_(self.first.weight)
        nn.init.zeros_(self.first.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.repeat(1, 4) + nn.functional.normalize(self.first(x), dim=-1))


@seeded
def direction() -> Built:
    return Direction(), (torch.randn(16, 8),)
