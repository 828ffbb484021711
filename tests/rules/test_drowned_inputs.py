"""Learned positions that drown what they are added to, seen behind a norm; small tokens and class tokens are fine."""

from __future__ import annotations

import math
from functools import partial

import torch
from models import Built, gpt, relu_mlp
from torch import Tensor, nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING = Severity.ERROR, Severity.WARNING
PLACES, WIDTH = 6, 16


class Placed(nn.Module):
    """norm(tokens + positions), or the two side by side, an encoder layer, a head."""

    def __init__(self, tokens: float, positions: Tensor, way: str) -> None:
        super().__init__()
        self.tokens = nn.Embedding(10, WIDTH)
        nn.init.normal_(self.tokens.weight, std=tokens)
        self.way = way
        if way == "table":
            self.positions = nn.Embedding.from_pretrained(positions, freeze=False)
        elif way == "buffer":
            self.register_buffer("positions", positions)
        else:
            self.positions = nn.Parameter(positions)
        width = 2 * WIDTH if way == "beside" else WIDTH
        self.norm = nn.LayerNorm(width)
        self.body = nn.TransformerEncoderLayer(width, 2, 32, 0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, 4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        places = self.positions(torch.arange(ids.shape[1])) if self.way == "table" else self.positions
        joined = torch.cat([x, places.expand(x.shape)], -1) if self.way == "beside" else x + places
        return self.head(self.body(self.norm(joined)).mean(1))  # type: ignore[no-any-return]


def placed(positions: float, tokens: float = 1.0, way: str = "added", seed: int = 0) -> Built:
    torch.manual_seed(seed)
    drawn = torch.randn(PLACES, WIDTH) * positions
    return Placed(tokens, drawn, way), torch.randint(10, (32, PLACES))


def sines(seed: int = 0) -> Built:
    torch.manual_seed(seed)
    angles = torch.arange(PLACES)[:, None] * torch.exp(torch.arange(0, WIDTH, 2) * (-math.log(1e4) / WIDTH))
    return Placed(0.002, torch.cat([angles.sin(), angles.cos()], 1), "buffer"), torch.randint(10, (32, PLACES))


class Classed(nn.Module):
    """A class token in front of patches, which alone is read in the end."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.enter, self.norm, self.head = nn.Linear(8, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH) * size)
        self.body = nn.TransformerEncoderLayer(WIDTH, 2, 32, 0.0, batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.token.expand(len(x), -1, -1), self.enter(x)], 1)
        return self.head(self.norm(self.body(joined))[:, 0])  # type: ignore[no-any-return]


def classed(size: float, seed: int = 0) -> Built:
    torch.manual_seed(seed)
    return Classed(size), torch.randn(32, PLACES, 8)


@cases(
    Good("no positions", relu_mlp, exporters=("legacy",)),
    Good("gpt-2", gpt, exporters=("legacy",)),
    Good("positions and tokens of one size", partial(placed, 1.0)),
    Good("near miss: positions of order one beside tokens of 0.02", partial(placed, 1.0, 0.02)),
    Good("near miss: sines beside tokens of 0.002", sines),
    Good("near miss: loud positions beside tokens as loud", partial(placed, 100.0, 100.0)),
    Good("near miss: loud tokens", partial(placed, 1.0, 100.0)),
    Good("near miss: a class token of order one", partial(classed, 1.0)),
    Bad("positions of 10^4", partial(placed, 1e4), ["positions"], ERROR),
    Bad("a table of positions of 10^4", partial(placed, 1e4, way="table"), ["positions.weight"], ERROR),
    Bad("positions of 10^4 beside tokens", partial(placed, 1e4, way="beside"), ["positions"], ERROR),
    Bad("positions of 30: SGD fails", partial(placed, 30.0), ["positions"], WARNING),
)
def test_drowned_inputs(case: Case) -> None:
    check("drowned-inputs", case)
