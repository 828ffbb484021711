"""Attention that starts as a choice of one position has queries and keys without gradient; masks make short rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from models import Built, gpt, mixture_of_experts, seeded, torch_encoder, vit
from models.altered import altered
from torch import Tensor, nn
from torch.nn import functional

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING = Severity.WARNING
LEGACY = ("legacy",)
DYNAMO = ("dynamo",)


class Explicit(nn.Module):
    """Attention as written by hand: a softmax over q k^T / sqrt(width), with ``mask`` put on the logits."""

    def __init__(self, mask: Callable[[Tensor], Tensor], scaled: bool, lengths: int = 12) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.mask, self.scale = mask, 32**-0.5 if scaled else 1.0
        for layer in (self.q, self.k, self.v, self.out):
            nn.init.xavier_normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.q(x) @ self.k(x).transpose(1, 2) * self.scale
        return x + self.out(self.mask(logits).softmax(-1) @ self.v(x))


def none(logits: Tensor) -> Tensor:
    return logits


def causal(logits: Tensor) -> Tensor:
    return logits + torch.full((12, 12), -torch.inf).triu(1)


def bert(logits: Tensor) -> Tensor:
    """All but the first three positions are padding."""
    return logits + torch.where(torch.arange(12) < 3, 0.0, -10000.0)


def itself(logits: Tensor) -> Tensor:
    """Every position sees itself and one other only."""
    return logits + torch.where(torch.eye(12).bool() | (torch.arange(12) < 1), 0.0, torch.finfo(torch.float32).min)


@seeded
def explicit(mask: Callable[[Tensor], Tensor] = none, factor: float = 1.0, scaled: bool = True) -> Built:
    module = nn.Sequential(Explicit(mask, scaled), nn.LayerNorm(32), nn.Linear(32, 10))
    with torch.no_grad():
        module[0].q.weight.mul_(factor)
    return module, (torch.randn(8, 12, 32),)


class Relative(nn.Module):
    """Cosine attention with a learned scale, held as its logarithm, and a learned bias by distance."""

    def __init__(self, scale: float, bias: float) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.scale, self.bias = nn.Parameter(torch.full((1,), scale)), nn.Parameter(torch.randn(23) * bias)
        self.index: Tensor
        self.register_buffer("index", torch.arange(12)[:, None] - torch.arange(12) + 11)

    def forward(self, x: Tensor) -> Tensor:
        cosines = functional.normalize(self.q(x), dim=-1) @ functional.normalize(self.k(x), dim=-1).transpose(1, 2)
        logits = cosines * self.scale.exp() + self.bias[self.index]
        return x + self.out(logits.softmax(-1) @ self.v(x))


@seeded
def relative(scale: float = 2.3, bias: float = 0.02) -> Built:
    module = nn.Sequential(Relative(scale, bias), nn.LayerNorm(32), nn.Linear(32, 10))
    return module, (torch.randn(8, 12, 32),)


class Router(nn.Module):
    """A softmax over eight experts that is sharp."""

    def __init__(self) -> None:
        super().__init__()
        self.route, self.experts = nn.Linear(32, 8), nn.Linear(32, 8 * 10)
        nn.init.normal_(self.route.weight, std=20.0)

    def forward(self, x: Tensor) -> Tensor:
        return (self.route(x).softmax(-1)[..., None] * self.experts(x).unflatten(-1, (8, 10))).sum(-2)


@seeded
def router() -> Built:
    return Router(), (torch.randn(16, 32),)


@cases(
    Good("gpt", gpt, notes_ok=False, exporters=LEGACY),
    Good("vit", vit, notes_ok=False, exporters=LEGACY),
    Good("torch's encoder", torch_encoder, notes_ok=False, exporters=LEGACY),
    Good("mixture of experts", mixture_of_experts, notes_ok=False, exporters=LEGACY),
    Good("by hand", explicit, notes_ok=False),
    Good("near miss: queries three times too large", partial(explicit, factor=3.0), notes_ok=False, exporters=LEGACY),
    Good("near miss: a causal mask", partial(explicit, mask=causal), notes_ok=False),
    Good("near miss: BERT's mask leaves three", partial(explicit, mask=bert), notes_ok=False, exporters=LEGACY),
    Good("near miss: one leaves two", partial(explicit, mask=itself, factor=100.0), notes_ok=False, exporters=LEGACY),
    Good("near miss: a sharp router is no attention", router, notes_ok=False, exporters=LEGACY),
    Good("cosine attention with biases by distance", relative, notes_ok=False, exporters=DYNAMO),
    Good("near miss: the largest scale of Swin v2", partial(relative, scale=4.6), exporters=DYNAMO),
    Good("near miss: biases of order one", partial(relative, bias=1.0), notes_ok=False, exporters=DYNAMO),
    Bad("a scale of e^11", partial(relative, scale=11.0), ["0.scale"], WARNING, DYNAMO),
    Bad("biases of 100", partial(relative, bias=100.0), ["0.bias"], WARNING, DYNAMO),
    Bad("queries 100 times too large", partial(explicit, factor=100.0), ["0.q.weight"], WARNING),
    Bad("the same under a causal mask", partial(explicit, mask=causal, factor=100.0), ["0.q.weight"], WARNING, LEGACY),
    Bad(
        "a packed projection",
        altered(vit, lambda m: m.blocks[1].attention.qkv.weight.mul_(1000.0)),
        ["blocks.1.attention.qkv.weight"],
        WARNING,
    ),
    Bad(
        "torch's encoder, packed queries, keys and values",
        altered(torch_encoder, lambda m: m[0].self_attn.in_proj_weight.mul_(30.0)),
        ["0.self_attn.in_proj_weight"],
        WARNING,
        LEGACY,
    ),
)
def test_saturated_attention(case: Case) -> None:
    check("saturated-attention", case, seeds=(0,))
