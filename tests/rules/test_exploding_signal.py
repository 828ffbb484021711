"""Factors that multiply from layer to layer end in absurd outputs."""

from __future__ import annotations

from functools import partial

import numpy as np
from models import batchnorm_resnet, fixup, gpt, relu_cnn
from models.altered import altered
from models.graphs import mlp, residual

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING = Severity.ERROR, Severity.WARNING
LEGACY = ("legacy",)
HE = np.sqrt(2.0)


@cases(
    Good("he-initialised, 20 layers", partial(mlp, depth=20), notes_ok=False),
    Good("he-initialised cnn", relu_cnn, notes_ok=False, exporters=LEGACY),
    Good("fixup", fixup, notes_ok=False, exporters=LEGACY),
    Good("gpt", gpt, notes_ok=False, exporters=LEGACY),
    Good("near miss: twice the scale, 4 layers", partial(mlp, gain=2 * HE), notes_ok=False),
    Good(
        "near miss: batch norm forgets the scale",
        altered(batchnorm_resnet, lambda m: [p.mul_(100) for n, p in m.named_parameters() if "conv" in n]),
        notes_ok=False,
        exporters=LEGACY,
    ),
    Good(
        "near miss: a loud layer that a quiet one makes up for",
        partial(mlp, changes={"2.weight": lambda w: w * 100, "4.weight": lambda w: w / 100}),
        notes_ok=False,
    ),
    Bad("twice the scale, 8 layers", partial(mlp, depth=8, gain=2 * HE), ["14"]),
    Bad(
        "four times the scale, 12 layers",
        altered(relu_cnn, lambda m: [p.mul_(4) for p in m.parameters()], depth=8),
        ["15"],
        ERROR,
        exporters=("legacy",),
    ),
    Bad("a head 40 times too large", partial(mlp, changes={"6.weight": lambda w: w * 40}), ["6"], WARNING),
    Bad(
        "two layers of std 100",
        partial(mlp, depth=2, gain=800.0, changes={"2.weight": lambda w: w * 100}),
        ["2"],
        ERROR,
    ),
    Bad(
        "residual blocks that double the signal",
        partial(residual, blocks=16, changes={f"blocks.{i}.fc2.weight": lambda w: w * 8 for i in range(16)}),
        ["head"],
        ERROR,
    ),
)
def test_exploding_signal(case: Case) -> None:
    check("exploding-signal", case, seeds=(0,))
