"""A tied table of std 1: certain logits, unless something in front of the head makes up for it."""

from __future__ import annotations

from functools import partial

import torch
from models.attention import Block
from models.initialised import Built, seeded
from torch import Tensor, nn
from torch.nn import functional

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING = Severity.WARNING
LEGACY = ("legacy",)


class LanguageModel(nn.Module):
    def __init__(self, width: int, std: float, tied: bool, divided: bool) -> None:
        super().__init__()
        self.tokens, self.block, self.norm = nn.Embedding(100, width), Block(width, 4), nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=std)
        self.head = None if tied else nn.Linear(width, 100, bias=False)
        self.factor = width**-0.5 if divided else 1.0

    def forward(self, ids: Tensor) -> Tensor:
        states = self.norm(self.block(self.tokens(ids))) * self.factor
        return functional.linear(states, self.tokens.weight) if self.head is None else self.head(states)


@seeded
def language_model(width: int = 256, std: float = 1.0, tied: bool = True, divided: bool = False) -> Built:
    return LanguageModel(width, std, tied, divided), (torch.randint(100, (4, 12)),)


@cases(
    Good("GPT-2's std", partial(language_model, std=0.02), notes_ok=False, exporters=LEGACY),
    Good("near miss: N(0, 1), not tied", partial(language_model, tied=False), notes_ok=False, exporters=LEGACY),
    Good("near miss: T5 divides the states", partial(language_model, divided=True), notes_ok=False, exporters=LEGACY),
    Good("near miss: N(0, 1) over 32 columns", partial(language_model, width=32), notes_ok=False, exporters=LEGACY),
    Bad("N(0, 1), tied", language_model, ["tokens.weight"], WARNING, LEGACY),
    Bad("N(0, 100), tied", partial(language_model, std=10.0), ["tokens.weight"], WARNING, LEGACY),
)
def test_embedding_scale(case: Case) -> None:
    check("embedding-scale", case, seeds=(0,))
