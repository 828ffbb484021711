"""More networks of the benchmark of truth that read sequences, of the second split."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .sequences import Attention


class PatchBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches of 4 x 4 pixels, a class token, torch's own attention (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 4, 4)
        self.token, self.positions = nn.Parameter(0.02 * torch.randn(width)), nn.Parameter(torch.empty(5, width))
        self.blocks = nn.Sequential(*(PatchBlock(width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, -1), patches], 1) + self.positions
        return self.head(self.norm(self.blocks(x)[:, 0]))


class PostNormBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.norm1 = Attention(width, packed=False, causal=False), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.fc2(torch.relu(self.fc1(x))))


class PostNorm(nn.Module):
    """As in Vaswani et al. 2017; classifies images that are read as tokens."""

    def __init__(self, width: int = 24, depth: int = 2) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(17, width), nn.Parameter(torch.empty(16, width))
        self.blocks = nn.Sequential(*(PostNormBlock(width) for _ in range(depth)))
        self.head = nn.Linear(16 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x) + self.positions).flatten(1))


class Reader(nn.Module):
    """Latents that read the rows by cross-attention, twice (Jaegle et al. 2021)."""

    def __init__(self, width: int = 24, latents: int = 6) -> None:
        super().__init__()
        self.embed, self.positions = nn.Linear(8, width), nn.Parameter(torch.empty(8, width))
        self.latents = nn.Parameter(torch.empty(latents, width))
        self.reads = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width),
                    "query": nn.Linear(width, width, bias=False),
                    "key": nn.Linear(width, width, bias=False),
                    "value": nn.Linear(width, width),
                    "proj": nn.Linear(width, width),
                }
            )
            for _ in range(2)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(latents * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.positions
        latents = self.latents.expand(len(x), -1, -1)
        for read in self.reads:
            query = read["query"](read["norm"](latents))
            mixed = functional.scaled_dot_product_attention(query, read["key"](x), read["value"](x))
            latents = latents + read["proj"](mixed)
        return self.head(self.norm(latents).flatten(1))


class Recurrent(nn.Module):
    """Elman 1990, written out: tanh(W x + U h)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inputs, self.recurrent = nn.Linear(8, width), nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(len(x), self.recurrent.in_features)
        for row in self.inputs(x).unbind(1):
            hidden = torch.tanh(row + self.recurrent(hidden))
        return self.head(hidden)


class Pooled(nn.Module):
    """A GRU that reads both ways; which of its states count is learnt (Bahdanau et al. 2015)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.cell = nn.GRU(8, width, batch_first=True, bidirectional=True)
        self.inner, self.score = nn.Linear(2 * width, width), nn.Linear(width, 1, bias=False)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        states = self.cell(x)[0]
        shares = self.score(torch.tanh(self.inner(states))).softmax(1)
        return self.head((shares * states).sum(1))


class StateSpace(nn.Module):
    """A diagonal linear recurrence (Gupta et al. 2022, real) between a map in and a gated map out, twice."""

    def __init__(self, width: int = 24, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width),
                    "enter": nn.Linear(width, width),
                    "gate": nn.Linear(width, width),
                    "leave": nn.Linear(width, width),
                }
            )
            for _ in range(depth)
        )
        # shares that are kept a step: from 0.12 to 0.95
        self.decays = nn.ParameterList(torch.linspace(-2.0, 3.0, width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block, decay in zip(self.blocks, self.decays, strict=True):
            normed = block["norm"](x)
            kept, state, states = torch.sigmoid(decay), torch.zeros_like(x[:, 0]), []
            for entered in block["enter"](normed).unbind(1):
                state = kept * state + (1 - kept) * entered
                states.append(state)
            x = x + block["leave"](torch.stack(states, 1) * functional.silu(block["gate"](normed)))
        return self.head(self.norm(x[:, -1]))


class Dilated(nn.Module):
    """A causal convolution over time, on a residual stream (Bai et al. 2018)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv, self.fc = nn.Conv1d(width, width, 2, dilation=dilation), nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(torch.relu(self.conv(functional.pad(x, (self.dilation, 0)))))


class Temporal(nn.Module):
    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, width)
        self.blocks = nn.Sequential(*(Dilated(width, dilation) for dilation in (1, 2, 4)))
        self.head = nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x).transpose(1, 2)).transpose(1, 2))


class Bag(nn.Module):
    """A mean of embeddings, one for each value of each place, and a perceptron behind it."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.register_buffer("offsets", 17 * torch.arange(16))
        self.embed = nn.Embedding(16 * 17, width)
        self.fc, self.norm, self.head = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.fc(self.embed(x + self.offsets).mean(1)))))


class GatedDecoder(nn.Module):
    """LLaMA-like (Touvron et al. 2023): RMS norms, SwiGLU, no biases; the table is the head as well."""

    def __init__(self, width: int = 24, depth: int = 2) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(8, width), nn.Parameter(torch.empty(10, width))
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.RMSNorm(width),
                    "qkv": nn.Linear(width, 3 * width, bias=False),
                    "proj": nn.Linear(width, width, bias=False),
                    "norm2": nn.RMSNorm(width),
                    "gate": nn.Linear(width, 2 * width, bias=False),
                    "up": nn.Linear(width, 2 * width, bias=False),
                    "down": nn.Linear(2 * width, width, bias=False),
                }
            )
            for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.positions
        for block in self.blocks:
            parts = block["qkv"](block["norm1"](x)).chunk(3, -1)
            query, key, value = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts)
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + block["proj"](mixed.transpose(1, 2).flatten(2))
            normed = block["norm2"](x)
            x = x + block["down"](functional.silu(block["gate"](normed)) * block["up"](normed))
        return functional.linear(self.norm(x), self.embed.weight)
