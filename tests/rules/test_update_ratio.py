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


@cases(
    Good("residual net", batchnorm_resnet, notes_ok=False, exporters=LEGACY),
    Good("normed cnn", normed_cnn, notes_ok=False, exporters=LEGACY),
    Good("vit", vit, notes_ok=False, exporters=LEGACY),
    Good("weight norm", weight_norm_mlp, notes_ok=False, exporters=LEGACY),
    Good("healthy", normed, notes_ok=False, exporters=LEGACY),
    Good("near miss: five times too large", partial(normed, factor=5.0), notes_ok=False, exporters=LEGACY),
    Good("near miss: two of five", partial(normed, factor=100.0, layers=2, depth=6), exporters=LEGACY),
    Good("near miss: ten times too large, three layers", partial(normed, factor=12.0), exporters=LEGACY),
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
