"""Deliberate initialisations that look like faults: networks of the tests, and ends of branches, gates and adapters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import models
import torch
from models import deadlocks
from models.attention import Block
from models.initialised import he
from models.plain import mlp
from torch import Tensor, nn
from torch.nn import functional

from .case import Idiom
from .zeros import (
    DiT,
    lora_attention,
    lora_embedding,
    norm3,
    packed_zero_query_and_key,
    relora,
    zero_branch,
    zero_query_and_key,
)


def built(build: Callable[..., models.Built], **options: object) -> Callable[[], models.Built]:
    """A builder of the tests, which seeds itself, drawn from the caller's generator."""

    def draw() -> models.Built:
        return build(torch.initial_seed() % 1000, **options)

    return draw


def zero_gamma() -> models.Built:
    return models.batchnorm_resnet(torch.initial_seed() % 1000, zero_gamma=True)


def logistic_regression() -> nn.Module:
    layer = nn.Linear(64, 10)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Readout(nn.Module):
    """muP (Yang et al. 2022): zero readout with a multiplier, zero query."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Linear(8, 32), Block(32, 4), nn.Linear(256, 10)
        with torch.no_grad():
            self.block.attention.qkv.weight[:32] = 0.0
            self.head.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x)).flatten(1)) / 4.0


class Transformer(nn.Module):
    """Spatial transformer: the localisation ends in a zero weight and the identity as its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 6))
        self.classify = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
        nn.init.zeros_(self.locate[3].weight)
        self.locate[3].bias.data = torch.tensor([1.0, 0, 0, 0, 1, 0])

    def forward(self, x: Tensor) -> Tensor:
        grid = functional.affine_grid(self.locate(x).view(-1, 2, 3), list(x.shape), align_corners=False)
        return self.classify(functional.grid_sample(x, grid, align_corners=False))


class Deformable(nn.Module):
    """Deformable attention: zero weights of offsets and of attention; the offsets' bias is a fan of directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.value = nn.Conv2d(1, 16, 3, 1, 1), nn.Conv2d(16, 16, 1)
        self.offsets, self.attention, self.head = nn.Linear(16, 8), nn.Linear(16, 4), nn.Linear(1024, 10)
        for layer in (self.offsets, self.attention):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        turn = torch.arange(4) * math.pi / 2
        self.offsets.bias.data = torch.stack([turn.cos(), turn.sin()], -1).flatten() * 0.2

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        query, base = x.flatten(2).transpose(1, 2), torch.linspace(-1, 1, 8)
        points = torch.stack(torch.meshgrid(base, base, indexing="xy"), -1).view(1, 64, 1, 2)
        where = points + self.offsets(query).view(-1, 64, 4, 2)
        values = functional.grid_sample(self.value(x), where, align_corners=True)
        return self.head((values * self.attention(query).softmax(-1).unsqueeze(1)).sum(-1).flatten(1))


class NonLocal(nn.Module):
    """Wang et al. 2018: the last convolution, or its norm, is zero."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.theta, self.phi, self.g, self.w = (nn.Conv2d(8, 8, 1) for _ in range(4))
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        nn.init.zeros_((self.norm if norm else self.w).weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).flatten(2).transpose(1, 2) for f in (self.theta, self.phi, self.g))
        mixed = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return x + self.norm(self.w(mixed.transpose(1, 2).view_as(x)))


def non_local(norm: bool) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), NonLocal(norm), nn.Flatten(), nn.Linear(512, 10))


class GlobalContext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend, self.fc1, self.fc2 = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.norm = nn.GroupNorm(1, 4)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.attend(x).flatten(2).softmax(-1)
        context = (x.flatten(2) * weights).sum(-1)[..., None, None]
        return x + self.fc2(torch.relu(self.norm(self.fc1(context))))


def global_context() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), GlobalContext(), nn.Flatten(), nn.Linear(512, 10))


class SpatialGating(nn.Module):
    """gMLP (Liu et al. 2021): weights of 1e-6 and biases of 1 across positions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up = nn.LayerNorm(16), nn.Linear(16, 64)
        self.inner, self.spatial, self.down = nn.LayerNorm(32), nn.Linear(8, 8), nn.Linear(32, 16)
        nn.init.normal_(self.spatial.weight, std=1e-6)
        nn.init.ones_(self.spatial.bias)

    def forward(self, x: Tensor) -> Tensor:
        u, v = functional.gelu(self.up(self.norm(x))).chunk(2, -1)
        v = self.spatial(self.inner(v).transpose(1, 2)).transpose(1, 2)
        return x + self.down(u * v)


def gmlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), SpatialGating(), SpatialGating(), nn.Flatten(), nn.Linear(128, 10))


class Swin(nn.Module):
    """Zero table of relative positions, zero class token, position table zero, -inf mask in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Linear(8, 32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.position = nn.Parameter(torch.zeros(1, 9, 32))
        self.table = nn.Parameter(torch.zeros(17, 4))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(288, 10)
        self.register_buffer("index", torch.arange(9)[:, None] - torch.arange(9)[None] + 8)
        self.register_buffer("mask", torch.full((9, 9), -math.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1) + self.position
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-1, -2) / 8**0.5 + self.table[self.index].permute(2, 0, 1) + self.mask
        return self.head((x + self.out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))).flatten(1))


class Momentum(nn.Module):
    """MoCo: a frozen copy of the encoder; the loss reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.query = mlp(nn.ReLU, 3, 48, 64, 10)
        self.key = copy.deepcopy(self.query).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.key(x)
        return self.query(x) + 0.1 * target


class TopExperts(nn.Module):
    """Sparse up-cycling (Komatsuzaki et al. 2023): copies of one MLP behind a drawn router."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(64, 4, bias=False)
        expert = mlp(nn.ReLU, 2, 48, 64, 64)
        self.experts = nn.ModuleList(copy.deepcopy(expert) for _ in range(4))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2)
        mixed = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, slot = (chosen == number).nonzero(as_tuple=True)
            mixed = mixed.index_add(0, rows, expert(x[rows]) * weights[rows, slot, None])
        return self.head(x + mixed)


class FrozenBackbone(nn.Module):
    """A pre-trained backbone, frozen, under a zero head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = mlp(nn.ReLU, 3, 48, 64, 48).apply(he).requires_grad_(False)
        self.head = nn.Linear(48, 10)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class Flamingo(nn.Module):
    """open_flamingo: tanh(0) gates on cross-attention and its feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.media, self.head = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(256, 10)
        self.attend, self.feed = nn.MultiheadAttention(32, 4, batch_first=True), mlp(nn.GELU, 2, 64, 32, 32)
        self.attend_gate, self.feed_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        media, x = self.media(x.flip(1)), self.embed(x)
        x = x + self.attend(x, media, media, need_weights=False)[0] * self.attend_gate.tanh()
        return self.head((x + self.feed(x) * self.feed_gate.tanh()).flatten(1))


class PromptAdapter(nn.Module):
    """Houlsby adapters (a zero up-projection), prefix of std 0.02, (IA)^3 vectors of ones, all on a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(32, 32).requires_grad_(False)
        self.scale, self.prefix = nn.Parameter(torch.ones(32)), nn.Parameter(torch.randn(1, 2, 32) * 0.02)
        self.down, self.up = nn.Linear(32, 8), nn.Linear(8, 32)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], 1)
        x = x + torch.relu(self.base(x)) * self.scale
        return x + self.up(functional.gelu(self.down(x)))


def adapters() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), PromptAdapter(), nn.Flatten(), nn.Linear(320, 10))


IDIOMS = (
    Idiom("LoRA", partial(relora, False), "flat"),
    Idiom("LoRA on attention", partial(lora_attention, False), "rows"),
    Idiom("LoRA on a table", partial(lora_embedding, False), "tokens"),
    Idiom("adaLN-Zero DiT", DiT, "denoise"),
    Idiom("adaLN-Zero, small", built(models.adaln_zero)),
    Idiom("ControlNet", built(deadlocks.control_net)),
    Idiom("ReZero", built(models.re_zero)),
    Idiom("LayerScale", built(models.layer_scale)),
    Idiom("Fixup", built(models.fixup)),
    Idiom("zero last gain", zero_gamma),
    Idiom("pre-activation, zero conv3", partial(norm3, False), "image"),
    Idiom("zero end of a ReLU branch", partial(zero_branch, False), "image"),
    Idiom("zero query alone", partial(zero_query_and_key, False), "rows"),
    Idiom("zero head", built(models.zero_head)),
    Idiom("muP readout and query", Readout, "rows"),
    Idiom("logistic regression", logistic_regression, "flat"),
    Idiom("focal prior", built(models.focal_prior)),
    Idiom("spatial transformer", Transformer, "image"),
    Idiom("deformable attention", Deformable, "image"),
    Idiom("non-local, zero convolution", partial(non_local, False), "image"),
    Idiom("non-local, zero norm", partial(non_local, True), "image"),
    Idiom("global context", global_context, "image"),
    Idiom("gMLP", gmlp, "rows"),
    Idiom("tables, tokens, masks", Swin, "rows"),
    Idiom("squeeze and excite", built(models.squeeze_excite)),
    Idiom("momentum encoder", Momentum, "flat"),
    Idiom("up-cycled experts", TopExperts, "flat"),
    Idiom("frozen backbone, zero head", FrozenBackbone, "flat"),
    Idiom("Flamingo gates", Flamingo, "rows"),
    Idiom("adapters and prefixes", adapters, "rows"),
    Idiom("multi-head attention", partial(packed_zero_query_and_key, False), "rows"),
    Idiom("GPT-2", built(models.gpt)),
    Idiom("ViT", built(models.vit)),
    Idiom("mixture of experts", built(models.mixture_of_experts)),
    Idiom("sparse experts", built(deadlocks.sparse_experts)),
)
