"""PyTorch's default is enough for three ReLU layers, slow at eight and hopeless at twenty."""

from __future__ import annotations

from functools import partial

import numpy as np
from models import batchnorm_resnet, gpt, rms_norm_mlp, selu_mlp, sigmoid_mlp, tanh_mlp, torch_default_mlp
from models.graphs import mlp, residual

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING = Severity.ERROR, Severity.WARNING
LEGACY = ("legacy",)
TORCH = 1 / np.sqrt(3.0)
"""PyTorch's default has a variance of 1 / (3 fan_in)."""


@cases(
    Good("he-initialised, 20 layers", partial(mlp, depth=20), notes_ok=False),
    Good("PyTorch's default, 3 layers", torch_default_mlp, notes_ok=False, exporters=LEGACY),
    Good("selu", selu_mlp, notes_ok=False, exporters=LEGACY),
    Good("xavier tanh", tanh_mlp, notes_ok=False, exporters=LEGACY),
    Good("xavier sigmoid, 3 layers", sigmoid_mlp, notes_ok=False, exporters=LEGACY),
    Good("std 0.02 and residual branches", gpt, notes_ok=False, exporters=LEGACY),
    Good("batch norm", batchnorm_resnet, notes_ok=False, exporters=LEGACY),
    Good(
        "PyTorch's default with normalisation", partial(rms_norm_mlp, depth=20), notes_ok=False, exporters=("dynamo",)
    ),
    Good("PyTorch's default, 20 residual blocks", partial(residual, blocks=20), notes_ok=False),
    Good("near miss: PyTorch's default, 5 layers", partial(mlp, depth=5, gain=TORCH), notes_ok=False),
    Good("near miss: std 0.01, 3 layers", partial(mlp, depth=3, width=256, inputs=256, gain=0.16), notes_ok=False),
    Good(
        "near miss: one layer alone is another rule's",
        partial(mlp, depth=10, changes={"8.weight": lambda w: w / 1000}),
        notes_ok=False,
    ),
    Good("near miss: a tiny head", partial(mlp, changes={"6.weight": lambda w: w * 1e-8}), notes_ok=False),
    Bad("PyTorch's default, 8 layers", partial(torch_default_mlp, depth=9), ["14"], WARNING),
    Bad("PyTorch's default, 20 layers", partial(torch_default_mlp, depth=20), ["36"], ERROR, LEGACY),
    Bad("std 0.01, 8 layers", partial(mlp, depth=8, width=256, inputs=256, gain=0.16), ["12"], ERROR),
    Bad("tanh with small weights", partial(mlp, depth=10, activation="Tanh", gain=0.3), ["16"], ERROR),
    Bad(
        "biases keep the size, not the signal",
        partial(mlp, depth=20, gain=TORCH, changes={"20.bias": 1.0}),
        ["36"],
        ERROR,
    ),
)
def test_vanishing_signal(case: Case) -> None:
    check("vanishing-signal", case, seeds=(0, 1))
