"""Weights that several parameters make up: joined, stacked, added, combined."""

from __future__ import annotations

import torch
from models.initialised import he
from torch import Tensor, nn
from torch.nn import functional

from .case import Bug, Idiom

CLASSES = 10
ROWS = 8
"""A digit is read as eight tokens of eight pixels."""


class FusedAttention(nn.Module):
    """Queries, keys and values by one product of joined parameters."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(ROWS, width), nn.Linear(width, CLASSES)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.stem(x.unflatten(-1, (ROWS, -1))))
        weight = torch.cat([self.q.weight, self.k.weight, self.v.weight])
        bias = torch.cat([self.q.bias, self.k.bias, self.v.bias])
        q, k, v = functional.linear(hidden, weight, bias).chunk(3, -1)
        return self.head((torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v).mean(1))


def fused(broken: bool) -> nn.Module:
    net = FusedAttention()
    if broken:
        for zero in (net.v.weight, net.v.bias, net.head.weight):
            nn.init.zeros_(zero)
    return net


class MergedLora(nn.Module):
    """W + B A in front of the product, on a frozen base."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.head = nn.Linear(64, 64), nn.Linear(64, CLASSES)
        self.lora_a, self.lora_b = nn.Parameter(torch.empty(8, 64)), nn.Parameter(torch.zeros(64, 8))
        nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)
        he(self.base)
        self.base.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.base.weight + self.lora_b @ self.lora_a
        return self.head(functional.relu(functional.linear(x, weight, self.base.bias)))


def merged(broken: bool) -> nn.Module:
    net = MergedLora()
    if broken:
        nn.init.zeros_(net.lora_a)
    return net


class Ensemble(nn.Module):
    """Members multiplied at once."""

    def __init__(self, members: int = 4) -> None:
        super().__init__()
        self.members = nn.ModuleList(nn.Linear(64, 32).apply(he) for _ in range(members))
        self.head = nn.Linear(32 * members, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.stack([member.weight for member in self.members])
        bias = torch.stack([member.bias for member in self.members])
        hidden = functional.relu(torch.einsum("bi,eoi->beo", x, weight) + bias)
        return self.head(hidden.flatten(1))


def ensemble(broken: bool) -> nn.Module:
    """One member drowns the others."""
    net = Ensemble()
    if broken:
        with torch.no_grad():
            net.members[2].weight.mul_(1e4)
    return net


class Relational(nn.Module):
    """Schlichtkrull et al. 2018: the matrix of every relation is a combination of a few bases."""

    def __init__(self, relations: int = 3, bases: int = 4, width: int = 32) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(ROWS, width).apply(he), nn.Linear(width, CLASSES)
        self.own = nn.Linear(width, width)
        self.bases = nn.Parameter(torch.empty(bases, width, width))
        self.shares = nn.Parameter(torch.empty(relations, bases))
        nn.init.xavier_uniform_(self.bases)
        nn.init.xavier_uniform_(self.shares)
        nodes = torch.arange(ROWS)
        edges = torch.stack([(nodes[:, None] - nodes + shift) % ROWS == 0 for shift in range(relations)])
        self.register_buffer("edges", edges.float())

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.stem(x.unflatten(-1, (ROWS, -1))))
        weights = torch.einsum("rb,bio->rio", self.shares, self.bases)
        sent = sum(edges @ hidden @ weight for edges, weight in zip(self.edges, weights, strict=True))
        return self.head(functional.relu(self.own(hidden) + sent).mean(1))


BUGS = (
    Bug(
        "values and head zero, projections joined",
        "flat",
        fused,
        ("v.*", "head.*"),
        "one product for q, k and v",
    ),
    Bug(
        "merged LoRA, both factors zero",
        "flat",
        merged,
        ("lora_*",),
        "merged before the product",
    ),
    Bug("one of stacked members too large", "flat", ensemble, ("members.2*",), "an ensemble"),
)

IDIOMS = (
    Idiom("joined projections", lambda: fused(False), "flat"),
    Idiom("merged LoRA", lambda: merged(False), "flat"),
    Idiom("stacked members", lambda: ensemble(False), "flat"),
    Idiom("relations made of bases", Relational, "flat"),
)
