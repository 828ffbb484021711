"""Transformers, and what is put into them: experts, adaLN-Zero, LoRA."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .initialised import Built, gpt2, he, seeded


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm: x + attention(norm(x)), then x + mlp(norm(x)); ``feedforward`` replaces the MLP."""

    def __init__(self, width: int, heads: int, causal: bool = False, feedforward: nn.Module | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = feedforward or Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 17, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.position, std=0.02)
        nn.init.normal_(self.cls, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(x.shape[0], -1, -1), patches], dim=1) + self.position
        return self.head(self.norm(self.blocks(tokens))[:, 0])


@seeded
def vit(width: int = 48, depth: int = 3, heads: int = 3, classes: int = 10) -> Built:
    """Dosovitskiy et al. 2021 with timm's defaults: truncated normal of std 0.02, biases zero."""
    return ViT(width, depth, heads, classes), (torch.randn(8, 3, 16, 16),)


class GPT(nn.Module):
    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, tied: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(16, width)
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.apply(gpt2)
        for block in self.blocks:
            for residual_end in (block.attention.proj, block.mlp.fc2):
                nn.init.normal_(residual_end.weight, std=0.02 / math.sqrt(2 * depth))
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.blocks(x)))


@seeded
def gpt(vocabulary: int = 100, width: int = 48, depth: int = 3, heads: int = 3, tied: bool = False) -> Built:
    """GPT-2: pre-norm, std 0.02, the ends of residual branches smaller by sqrt(2 * depth)."""
    return GPT(vocabulary, width, depth, heads, tied), (torch.randint(vocabulary, (4, 16)),)


@seeded
def torch_encoder(width: int = 48, depth: int = 2, heads: int = 3, classes: int = 10) -> Built:
    """torch.nn's own encoder layers (packed ``in_proj_weight``), built one by one instead of deep-copied."""
    layers = [
        nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        for _ in range(depth)
    ]
    return nn.Sequential(*layers, nn.LayerNorm(width), nn.Linear(width, classes)), (torch.randn(4, 12, width),)


class Experts(nn.Module):
    """A soft mixture: every expert runs, the router's softmax weighs them (packed weights (experts, in, out))."""

    def __init__(self, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, width, hidden) / math.sqrt(width))
        self.down = nn.Parameter(torch.randn(experts, hidden, width) / math.sqrt(hidden))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.router(x).softmax(-1)
        hidden = functional.gelu(torch.einsum("btd,edh->bteh", x, self.up))
        return torch.einsum("bteh,ehd,bte->btd", hidden, self.down, weights)


@seeded
def mixture_of_experts(width: int = 32, experts: int = 4, classes: int = 10) -> Built:
    blocks = [Block(width, 2, feedforward=Experts(width, 2 * width, experts)) for _ in range(2)]
    return nn.Sequential(*blocks, nn.LayerNorm(width), nn.Linear(width, classes)), (torch.randn(4, 12, width),)


class AdaLNZeroBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = Mlp(width, 4 * width)
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(functional.silu(condition)).chunk(3, dim=-1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


class DiT(nn.Module):
    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.condition = nn.Linear(8, width)
        self.blocks = nn.ModuleList(AdaLNZeroBlock(width) for _ in range(depth))
        self.head = nn.Linear(width, inputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x, condition = self.embed(x), self.condition(condition)
        for block in self.blocks:
            x = block(x, condition)
        return self.head(x)


@seeded
def adaln_zero(inputs: int = 16, width: int = 32, depth: int = 2) -> Built:
    """Peebles & Xie 2023: zero modulation and zero head; every branch wakes up within three steps."""
    return DiT(inputs, width, depth), (torch.randn(16, inputs), torch.randn(16, 8))


class LoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Linear(base.in_features, rank, bias=False)
        self.b = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(x))


@seeded
def lora(width: int = 48, rank: int = 4, depth: int = 3) -> Built:
    """Hu et al. 2021: exactly one of a low-rank pair is zero."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        base = nn.Linear(width, width)
        he(base)
        layers += [LoRALinear(base, rank), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10)), (torch.randn(32, width),)
