"""Rows outside of layers, which attention treats alike: registers, latents, prompts, queries, slots, prefixes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from .attention import Block
from .initialised import Built, seeded

WIDTH = 32


class Cross(nn.Module):
    """Attention of ``x`` to ``context``, one head; over the queries instead of the keys where they ``compete``."""

    def __init__(self, compete: bool = False) -> None:
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.compete = compete

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        keys, values = self.kv(context).chunk(2, -1)
        logits = self.q(x) @ keys.transpose(1, 2) / WIDTH**0.5
        return self.out((logits.softmax(1) if self.compete else logits.softmax(-1)) @ values)


class Registers(nn.Module):
    """A ViT with register tokens and a zero table of positions; ``dropout`` in front of the blocks."""

    def __init__(self, count: int, dropout: float) -> None:
        super().__init__()
        self.patch, self.drop = nn.Conv2d(3, WIDTH, 4, 4), nn.Dropout(dropout)
        self.position = nn.Parameter(torch.zeros(1, 16, WIDTH))
        self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.registers = nn.Parameter(torch.zeros(1, count, WIDTH))
        self.blocks = nn.Sequential(Block(WIDTH, 4), Block(WIDTH, 4))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.position
        several = (each.expand(len(x), -1, -1) for each in (self.cls, self.registers))
        return self.head(self.norm(self.blocks(self.drop(torch.cat([*several, tokens], 1))))[:, 0])


@seeded
def registers(count: int = 4, dropout: float = 0.0, frozen: bool = False, value: float = 0.0) -> Built:
    module = Registers(count, dropout)
    nn.init.constant_(module.registers, value).requires_grad_(not frozen)
    return module, (torch.randn(4, 3, 16, 16),)


class Latents(nn.Module):
    """Learnt rows that read the data by cross-attention; their mean is the answer, or they are, one by one."""

    def __init__(self, pooled: bool, compete: bool, embedding: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(6, WIDTH)
        self.latents = nn.Embedding(8, WIDTH) if embedding else nn.Parameter(torch.zeros(8, WIDTH))
        self.cross, self.block = Cross(compete), Block(WIDTH, 4)
        self.norm, self.head, self.pooled = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10), pooled
        if embedding:
            nn.init.zeros_(self.latents.weight)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.latents.weight if isinstance(self.latents, nn.Embedding) else self.latents
        rows = rows.expand(len(x), -1, -1)
        rows = self.norm(self.block(rows + self.cross(rows, self.stem(x))))
        return self.head(rows.mean(1) if self.pooled else rows)


@seeded
def latents(pooled: bool = True, compete: bool = False, embedding: bool = False) -> Built:
    """A Perceiver's latents; slots where they ``compete``; DETR's queries as an ``embedding``'s weight."""
    return Latents(pooled, compete, embedding), (torch.randn(4, 20, 6),)


class Prompt(nn.Module):
    """Soft prompts that are looked up and put in front of the tokens; their own places are not read."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.tokens, self.prompt = nn.Embedding(50, WIDTH), nn.Embedding(6, WIDTH)
        self.blocks = nn.Sequential(Block(WIDTH, 4), Block(WIDTH, 4))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 50)
        nn.init.constant_(self.prompt.weight, value)

    def forward(self, ids: Tensor) -> Tensor:
        prompt = self.prompt(torch.arange(6, device=ids.device).expand(len(ids), -1))
        return self.head(self.norm(self.blocks(torch.cat([prompt, self.tokens(ids)], 1)))[:, 6:])


@seeded
def prompt(value: float = 0.0) -> Built:
    return Prompt(value), (torch.randint(50, (4, 12)),)


class Prefix(nn.Module):
    """Prefixes of keys and values in one parameter (layers, 2, heads, tokens, width); ``gated`` as LLaMA-Adapter's."""

    def __init__(self, gated: bool, value: float) -> None:
        super().__init__()
        self.prefix = nn.Parameter(torch.full((2, 2, 4, 5, WIDTH // 4), value))
        self.stem, self.head = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 10)
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.gates = nn.Parameter(torch.zeros(2, 4, 1, 1)) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number, layer in enumerate(self.qkv):
            q, k, v = (each.unflatten(-1, (4, -1)).transpose(1, 2) for each in layer(x).chunk(3, -1))
            keys, values = (each.expand(len(x), -1, -1, -1) for each in self.prefix[number])
            if self.gates is None:
                mixed = functional.scaled_dot_product_attention(q, torch.cat([keys, k], 2), torch.cat([values, v], 2))
            else:
                own = functional.scaled_dot_product_attention(q, k, v)
                mixed = own + self.gates[number] * functional.scaled_dot_product_attention(q, keys, values)
            x = x + mixed.transpose(1, 2).flatten(2)
        return self.head(x.mean(1))


@seeded
def prefix(gated: bool = False, value: float = 0.0) -> Built:
    return Prefix(gated, value), (torch.randn(4, 12, 6),)


class Tables(nn.Module):
    """Tables that start at zero, and whose rows the data tell apart: positions, shifts of positions, kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions, self.kinds = (nn.Embedding(rows, WIDTH) for rows in (50, 16, 2))
        self.shifts = nn.Parameter(torch.zeros(31, 4))
        self.qkv, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 10)
        nn.init.zeros_(self.positions.weight)
        nn.init.zeros_(self.kinds.weight)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.tokens(ids) + self.positions(places) + self.kinds((ids > 25).long())
        q, k, v = (each.unflatten(-1, (4, -1)).transpose(1, 2) for each in self.qkv(x).chunk(3, -1))
        logits = q @ k.transpose(-1, -2) + self.shifts[places[:, None] - places + 15].permute(2, 0, 1)
        return self.head((logits.softmax(-1) @ v).transpose(1, 2).flatten(2).mean(1))


@seeded
def tables(ids: Callable[..., Tensor] | None = None) -> Built:
    return Tables(), (torch.randint(50, (4, 12)) if ids is None else ids(4, 12, dtype=torch.long),)


class Roles(nn.Module):
    """Rows that start equal and have roles of their own: an empty key and its value, two tokens with a head each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.cross, self.block = nn.Linear(6, WIDTH), Cross(), Block(WIDTH, 4)
        self.tokens, self.empty = nn.Parameter(torch.zeros(1, 2, WIDTH)), nn.Parameter(torch.zeros(2, WIDTH))
        self.first, self.second = nn.Linear(WIDTH, 10), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.tokens.expand(len(x), -1, -1), self.stem(x)], 1)
        key, value = self.empty.expand(len(x), 1, -1, -1).unbind(2)
        logits = x @ torch.cat([key, x], 1).transpose(1, 2) / WIDTH**0.5
        x = self.block(x + logits.softmax(-1) @ torch.cat([value, x], 1))
        return self.first(x[:, 0]), self.second(x[:, 1])


@seeded
def roles() -> Built:
    return Roles(), (torch.randn(4, 12, 6),)
