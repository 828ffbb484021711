"""Networks of the benchmark of truth that read sequences: attention and recurrence."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """``packed``: queries, keys and values from one projection. Two heads."""

    def __init__(self, width: int, packed: bool, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        if packed:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3, -1) if hasattr(self, "qkv") else (self.query(x), self.key(x), self.value(x))
        query, key, value = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, packed: bool, causal: bool) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, packed, causal)
        self.norm2 = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class Encoder(nn.Module):
    """Classifies an image that it reads by rows."""

    def __init__(self, width: int = 24, depth: int = 2) -> None:
        super().__init__()
        self.embed, self.positions = nn.Linear(8, width), nn.Parameter(torch.empty(8, width))
        self.blocks = nn.Sequential(*(Block(width, packed=False, causal=False) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(x) + self.positions)).mean(1))


class Decoder(nn.Module):
    """GPT-like: causal, a prediction at every position."""

    def __init__(self, width: int = 24, depth: int = 2) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(8, width), nn.Parameter(torch.empty(10, width))
        self.blocks = nn.Sequential(*(Block(width, packed=True, causal=True) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(x) + self.positions)))


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])
