"""A layer without any live unit cuts the net; part of a layer being off is normal."""

from __future__ import annotations

from functools import partial

import numpy as np
from models import batchnorm_resnet, relu_cnn, relu_mlp
from models.altered import altered
from models.graphs import Array, mlp, residual

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def negative(weight: Array) -> Array:
    """With the non-negative outputs of a ReLU every pre-activation is negative."""
    return -np.abs(weight)


def negative_but(units: int, weight: Array) -> Array:
    return np.concatenate([weight[:units], negative(weight[units:])])


@cases(
    Good("he-initialised mlp of depth 8", partial(mlp, depth=8)),
    Good("he-initialised cnn", relu_cnn, exporters=("legacy",)),
    Good("batch norm", batchnorm_resnet, notes_ok=False, exporters=("legacy",)),
    Good("near miss: four units live", partial(mlp, changes={"2.weight": partial(negative_but, 8)})),
    Good("near miss: four units, all off", partial(mlp, width=4, changes={"2.weight": negative})),
    Good(
        "near miss: negative weights on inputs of both signs",
        partial(mlp, changes={"0.weight": negative}),
        notes_ok=False,
    ),
    Good(
        "near miss: in front of leaky ReLU",
        partial(mlp, activation="LeakyRelu", changes={"2.weight": negative}),
        notes_ok=False,
    ),
    Bad("four of 64 units live", partial(mlp, changes={"2.weight": partial(negative_but, 4)}), ["2"], NOTE),
    Bad("all weights negative", altered(relu_mlp, lambda m: m[4].weight.abs_().neg_()), ["4"], ERROR),
    Bad(
        "in a residual branch, which does not cut the net",
        partial(residual, changes={"blocks.1.fc1.bias": -30.0}),
        ["blocks.1.fc1"],
        WARNING,
    ),
)
def test_dead_units(case: Case) -> None:
    check("dead-units", case, seeds=(0,))
