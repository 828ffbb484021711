"""Maps that share one tensor: critics, experts, grouped convolutions, equal at the start or drawn one by one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .initialised import Built, seeded


def stack(copied: bool, members: int, *shape: int) -> nn.Parameter:
    drawn = torch.randn(1, *shape).repeat(members, *(1 for _ in shape)) if copied else torch.randn(members, *shape)
    return nn.Parameter(drawn / shape[0] ** 0.5)


class Critics(nn.Module):
    """Chen et al. 2021 (REDQ) in tensors (critic, in, out); ``way`` is how they are multiplied."""

    def __init__(self, width: int, way: str, inner: bool, outer: bool) -> None:
        super().__init__()
        self.way = way
        self.inner, self.outer = stack(inner, 4, 8, width), stack(outer, 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "einsum":
            hidden = torch.einsum("bi,eio->ebo", x, self.inner).relu()
            return torch.einsum("ebi,eio->ebo", hidden, self.outer)
        if self.way == "mean":
            return (torch.relu(x @ self.inner) @ self.outer).mean(0)
        return torch.bmm(torch.relu(torch.bmm(x.expand(4, -1, -1), self.inner)), self.outer)


@seeded
def critics(width: int = 16, way: str = "bmm", inner: bool = True, outer: bool = True) -> Built:
    return Critics(width, way, inner, outer), (torch.randn(16, 8),)


class Experts(nn.Module):
    """Komatsuzaki et al. 2023: experts up-cycled from one, in one tensor; a router with ``top`` choices."""

    def __init__(self, width: int, top: int) -> None:
        super().__init__()
        self.top, self.router = top, nn.Linear(8, 4)
        self.up, self.down = stack(True, 4, 8, width), stack(True, 4, width, 4)

    def forward(self, x: Tensor) -> Tensor:
        share = self.router(x).softmax(-1)
        if self.top < 4:
            share = share * torch.zeros_like(share).scatter(1, share.topk(self.top).indices, 1.0)
        hidden = torch.einsum("bi,eih->beh", x, self.up).relu()
        return torch.einsum("beh,eho,be->bo", hidden, self.down, share)


@seeded
def experts(width: int = 16, top: int = 1) -> Built:
    return Experts(width, top), (torch.randn(16, 8),)


class Grouped(nn.Module):
    """An ensemble as the groups of convolutions; ``repeated`` is whether all of them see the same channels."""

    def __init__(self, width: int, repeated: bool) -> None:
        super().__init__()
        self.repeated = repeated
        self.one, self.two = nn.Conv1d(6, 2 * width, 3, groups=2), nn.Conv1d(2 * width, 2, 3, groups=2)
        for layer in (self.one, self.two):
            half = len(layer.weight) // 2
            layer.weight.data[half:], layer.bias.data[half:] = layer.weight[:half], layer.bias[:half]

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x.repeat(1, 2, 1) if self.repeated else x)))


@seeded
def grouped_convolutions(width: int = 8, repeated: bool = True) -> Built:
    return Grouped(width, repeated), (torch.randn(8, 3 if repeated else 6, 12),)
