"""Models with parameters that have no gradient for other reasons than their values."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .initialised import Built, seeded


class ClassToken(nn.Module):
    """Wu et al. 2021 (CvT), last layer: queries of patches have a projection of their own, and the head reads none.

    With ``dead``, a second branch behind the attention that two zero layers hold at zero.
    """

    def __init__(self, width: int, dead: bool) -> None:
        super().__init__()
        self.first, self.patches = nn.Linear(8, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, 4)
        if dead:
            nn.init.zeros_(self.inner.weight)
            nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        query = torch.cat([x[:, :1], torch.relu(self.patches(x[:, 1:]))], 1)
        x = functional.scaled_dot_product_attention(query, self.key(x), self.value(x))
        return self.head(x[:, 0] + self.outer(torch.relu(self.inner(x[:, 0]))))


@seeded
def class_token(width: int = 16, dead: bool = False) -> Built:
    return ClassToken(width, dead), (torch.randn(8, 6, 8),)


class Codec(nn.Module):
    """Defossez et al. 2022 (EnCodec): the decoder sees codes, whose vectors are a buffer of moving averages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width))
        self.decode = nn.Linear(width, 4)
        self.register_buffer("codes", torch.zeros(12, width))

    def forward(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(self.encode(x), self.codes).argmin(-1)
        return self.decode(functional.embedding(nearest, self.codes))


@seeded
def codec(width: int = 16) -> Built:
    return Codec(width), (torch.randn(16, 8),)


class Gated(nn.Module):
    """A branch times a zero ``gate``: "frozen" (a parameter), "buffer" (a warm-up schedule's state) or "rounded"."""

    def __init__(self, width: int, gate: str) -> None:
        super().__init__()
        self.inner, self.branch, self.head = nn.Linear(8, width), nn.Linear(width, width), nn.Linear(width, 4)
        self.kind, zero = gate, torch.zeros(1)
        if gate == "frozen":
            self.gate = nn.Parameter(zero, requires_grad=False)
        else:
            self.register_buffer("gate", zero)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inner(x))
        branch = self.branch(x)
        return self.head(x + (branch.round() if self.kind == "rounded" else self.gate * branch))


@seeded
def gated(width: int = 16, gate: str = "frozen") -> Built:
    return Gated(width, gate), (torch.randn(16, 8),)


class Masked(nn.Module):
    """Positions beyond the mask are read by nothing; their rows start at zero as all others do not."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(8, width), nn.Linear(width, 4)
        self.positions = nn.Parameter(torch.randn(6, width))
        nn.init.zeros_(self.positions[4:])

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.arange(6).lt(4).float()[:, None]
        return self.head(((self.inner(x) + self.positions) * mask).relu().sum(1))


@seeded
def masked(width: int = 16) -> Built:
    return Masked(width), (torch.randn(16, 6, 8),)
