"""Weights that norms hide and that no step changes; one such layer, or two, are worth a note."""

from __future__ import annotations

from functools import partial

import torch
from models import Built, batchnorm_resnet, normed_cnn, seeded, vit, weight_norm_mlp
from models.initialised import he
from torch import nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
LEGACY = ("legacy",)


@seeded
def normed(factor: float = 1.0, layers: int = 3, depth: int = 4, norm: type[nn.Module] = nn.BatchNorm1d) -> Built:
    """He weights in front of norms; the first ``layers`` of them times ``factor``."""
    net = nn.Sequential()
    for number in range(depth - 1):
        net.extend([nn.Linear(64, 64, bias=False), norm(64), nn.ReLU()])
        he(net[-3])
        if number < layers:
            with torch.no_grad():
                net[-3].weight.mul_(factor)
    return net.append(nn.Linear(64, 10)), (torch.randn(32, 64),)


@seeded
def transformer(factor: float = 1.0, head: float = 1.0) -> Built:
    """Pre-norm residual blocks, whose maps have no norm right behind them; LeCun weights times ``factor``."""
    net = PreNorm()
    with torch.no_grad():
        for each in net.modules():
            if isinstance(each, nn.Linear):
                each.weight.normal_(0.0, each.in_features**-0.5).mul_(head if each is net.head else factor)
    return net, (torch.randn(32, 48),)


class PreNorm(nn.Module):
    def __init__(self, width: int = 48, depth: int = 3) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(width, width), nn.Linear(width, 10)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))


@cases(
    Good("residual net", batchnorm_resnet, notes_ok=False, exporters=LEGACY),
    Good("normed cnn", normed_cnn, notes_ok=False, exporters=LEGACY),
    Good("vit", vit, notes_ok=False, exporters=LEGACY),
    Good("weight norm", weight_norm_mlp, notes_ok=False, exporters=LEGACY),
    Good("healthy", normed, notes_ok=False, exporters=LEGACY),
    Good("near miss: five times too large", partial(normed, factor=5.0), notes_ok=False, exporters=LEGACY),
    Good("near miss: two of five", partial(normed, factor=100.0, layers=2, depth=6), exporters=LEGACY),
    Good("near miss: ten times too large, three layers", partial(normed, factor=12.0), exporters=LEGACY),
    Good("pre-norm blocks", transformer, notes_ok=False, exporters=LEGACY),
    Good(
        "near miss: pre-norm blocks four times too large", partial(transformer, factor=4.0, head=4.0), exporters=LEGACY
    ),
    Good("near miss: all but the head", partial(transformer, factor=20.0), exporters=LEGACY),
    Bad(
        "pre-norm blocks, eight times too large",
        partial(transformer, factor=8.0, head=8.0),
        [""],
        WARNING,
        exporters=(),
    ),
    Bad(
        "pre-norm blocks, twenty times too large",
        partial(transformer, factor=20.0, head=20.0),
        [""],
        ERROR,
        exporters=(),
    ),
    Bad("one layer", partial(normed, factor=100.0, layers=1), ["0.weight"], NOTE, exporters=LEGACY),
    Bad("all layers", partial(normed, factor=100.0), ["0.weight"], ERROR, exporters=LEGACY),
    Bad(
        "five layers, ten times too large",
        partial(normed, factor=15.0, layers=5, depth=6),
        ["0.weight", "3.weight", "6.weight", "9.weight", "12.weight"],
        WARNING,
        exporters=(),
    ),
    Bad(
        "layer norms",
        partial(normed, factor=100.0, norm=nn.LayerNorm),
        ["0.weight"],
        ERROR,
        exporters=(),
    ),
)
def test_update_ratio(case: Case) -> None:
    check("update-ratio", case, seeds=(0,))
