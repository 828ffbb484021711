"""Exact zeros all over a layer: a note, unless hardly an input is left."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from models import Built
from models.graphs import Array, mlp
from torch import Tensor, nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING, NOTE = Severity.WARNING, Severity.NOTE


def pruned(share: float) -> object:
    def change(weight: Array) -> Array:
        kept = np.random.default_rng(1).random(weight.shape) >= share
        return (weight * kept / np.sqrt(1 - share)).astype(np.float32)

    return change


def half_of_the_units(weight: Array) -> Array:
    weight = weight.copy()
    weight[: len(weight) * 3 // 4] = 0.0
    return weight


class Dirac(nn.Module):
    """More filters than channels: the others are zero, in front of a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 32, 3), nn.Linear(32, 10)
        nn.init.zeros_(self.second.bias)
        nn.init.dirac_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))  # type: ignore[no-any-return]


def dirac(seed: int = 0) -> Built:
    torch.manual_seed(seed)
    return Dirac(), torch.randn(16, 1, 8, 8)


@cases(
    Good("near miss: more filters than channels, one for each of these", dirac, notes_ok=False),
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("near miss: a third", partial(mlp, changes={"2.weight": pruned(0.3)}), notes_ok=False),
    Good("near miss: the identity", partial(mlp, changes={"2.weight": np.eye(64)}), notes_ok=False),
    Good("near miss: whole units", partial(mlp, changes={"2.weight": half_of_the_units}), notes_ok=False),
    Good("near miss: ten inputs left", partial(mlp, changes={"2.weight": pruned(0.85)})),
    Bad("ten inputs left, noticed", partial(mlp, changes={"2.weight": pruned(0.85)}), ["2.weight"], NOTE),
    Bad(
        "half an input left in all, through which nothing gets",
        partial(mlp, depth=6, changes={f"{i}.weight": pruned(0.995) for i in (0, 2, 4, 6, 8)}),
        ["0.weight", "2.weight", "4.weight", "6.weight", "8.weight"],
        exporters=(),
    ),
    Bad("half an input left", partial(mlp, changes={"2.weight": pruned(0.99)}), ["2.weight"], WARNING),
)
def test_pruned_weights(case: Case) -> None:
    check("pruned-weights", case, seeds=(0,))
