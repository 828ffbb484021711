"""Models whose published initialisation looks like a fault."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from .initialised import Built, seeded


@seeded
def class_attention(scale: float = 1e-5) -> Built:
    """The class token of CaiT (Touvron et al. 2021): nearly the same for all inputs behind a small layer scale."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
            self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
            self.scale1, self.scale2 = (nn.Parameter(torch.full((32,), scale)) for _ in range(2))

        def forward(self, token: Tensor, patches: Tensor) -> Tensor:
            both = self.norm1(torch.cat([token, patches], 1))
            token = token + self.scale1 * self.attend(both[:, :1], both, both, need_weights=False)[0]
            return token + self.scale2 * self.mlp(self.norm2(token))

    class Cait(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 32, 4, 4)
            self.token = nn.Parameter(torch.randn(1, 1, 32) * 0.02)
            self.blocks = nn.ModuleList(Block() for _ in range(2))
            self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            patches = self.patches(x).flatten(2).transpose(1, 2)
            token = self.token.expand(len(x), -1, -1)
            for block in self.blocks:
                token = block(token, patches)
            out: Tensor = self.head(self.norm(torch.cat([token, patches], 1))[:, 0])
            return out

    return Cait(), (torch.randn(8, 3, 16, 16),)


@seeded
def forecaster(parts: int = 1) -> Built:
    """NLinear and DLinear (Zeng et al. 2023): linear maps of the past that start as its mean."""

    class Forecaster(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.ModuleList(nn.Linear(24, 6) for _ in range(parts))
            for each in self.maps:
                nn.init.constant_(each.weight, 1 / 24)

        def forward(self, x: Tensor) -> Tensor:
            last = x[..., -1:].detach()
            split = (x - last).split(x.shape[1] // parts, 1)
            return sum((each(part) for each, part in zip(self.maps, split, strict=True)), last[:, : 4 // parts])

    return Forecaster(), (torch.randn(16, 4, 24),)


@seeded
def skip_gram(batch: int = 1) -> Built:
    """word2vec with negative samples (Mikolov et al. 2013), whose output table starts at zero; it gives its losses."""

    class SkipGram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.contexts = nn.Embedding(100, 32), nn.Embedding(100, 32)
            nn.init.uniform_(self.words.weight, -0.5 / 32, 0.5 / 32)
            nn.init.zeros_(self.contexts.weight)

        def forward(self, word: Tensor, context: Tensor, others: Tensor) -> Tensor:
            meant = self.words(word)
            near = logsigmoid((meant * self.contexts(context)).sum(-1))
            far = logsigmoid(-(self.contexts(others) @ meant.unsqueeze(-1)).squeeze(-1)).sum(-1)
            return -(near + far)

    return SkipGram(), (
        torch.randint(1, 100, (batch,)),
        torch.randint(1, 100, (batch,)),
        torch.randint(1, 100, (batch, 5)),
    )
