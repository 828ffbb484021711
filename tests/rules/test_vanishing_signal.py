"""PyTorch's default is enough for three ReLU layers, slow at eight and hopeless at twenty."""

from __future__ import annotations

from functools import partial
from typing import Any

import models
import numpy as np
import onnx
import pytest
import torch
from models import batchnorm_resnet, gpt, rms_norm_mlp, selu_mlp, sigmoid_mlp, tanh_mlp, torch_default_mlp
from models.altered import altered
from models.graphs import mlp, residual
from models.messages import messages
from models.messages import scaled as quiet
from torch import nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Build, Case, Good, cases, check, honest_export

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
LEGACY = ("legacy",)
TORCH = 1 / np.sqrt(3.0)
"""PyTorch's default has a variance of 1 / (3 fan_in)."""


class Scaled(nn.Module):
    """A learned scale behind each ReLU, or behind each branch of a sum."""

    def __init__(self, value: float, size: int = 1, beside: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(6))
        self.scales = nn.ParameterList(nn.Parameter(torch.full((size,), value)) for _ in self.layers)
        self.head, self.beside = nn.Linear(32, 4), beside
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer, scale in zip(self.layers, self.scales, strict=True):
            x = scale * torch.relu(layer(x)) + (x if self.beside else 0.0)
        return self.head(x)


class Duelling(nn.Module):
    """Wang et al. 2016: two heads that are added up, here small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(part for _ in range(4) for part in (nn.Linear(64, 64), nn.ReLU())))
        self.value, self.advantage = nn.Linear(64, 1), nn.Linear(64, 6)
        for head in (self.value, self.advantage):
            head.weight.data.mul_(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.body(x)
        advantage = self.advantage(state)
        out: torch.Tensor = self.value(state) + advantage - advantage.mean(1, keepdim=True)
        return out


def duelling(seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(seed)
    return Duelling(), torch.randn(32, 64)


def scaled(seed: int = 0, **options: Any) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(seed)
    return Scaled(**options), torch.randn(32, 32)


@cases(
    Good("he-initialised, 20 layers", partial(mlp, depth=20), notes_ok=False),
    Good("PyTorch's default, 3 layers", torch_default_mlp, notes_ok=False, exporters=LEGACY),
    Good("selu", selu_mlp, notes_ok=False, exporters=LEGACY),
    Good("xavier tanh", tanh_mlp, notes_ok=False, exporters=LEGACY),
    Good("xavier sigmoid, 3 layers", sigmoid_mlp, notes_ok=False, exporters=LEGACY),
    Good("std 0.02 and residual branches", gpt, notes_ok=False, exporters=LEGACY),
    Good("message passing, two maps side by side", messages, notes_ok=False),
    Good("near miss: small heads side by side", duelling, notes_ok=False, exporters=("dynamo",)),
    Good("near miss: a third of it", altered(messages, partial(quiet, factor=1 / 3)), notes_ok=False),
    Bad("message passing, far too small", altered(messages, partial(quiet, factor=0.01)), ["own.2"], ERROR),
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
    Good("LayerScale", partial(scaled, value=1e-4, size=32, beside=True), notes_ok=False, exporters=LEGACY),
    Good("near miss: scales of a half", partial(scaled, value=0.5), notes_ok=False),
    Bad("learned numbers of 0.02 between layers", partial(scaled, value=0.02), ["scales.0"], WARNING),
    Bad("learned vectors of 0.02", partial(scaled, value=0.02, size=32), ["scales.0"], WARNING, LEGACY),
    Bad("PyTorch's default, 8 layers", partial(torch_default_mlp, depth=9), ["14"], WARNING),
    Bad("near miss: 3e-4 after seven layers", partial(mlp, depth=8, gain=0.47), ["12"], WARNING),
    Bad("3e-4 after twelve layers", partial(mlp, depth=13, gain=0.77), ["22"], ERROR),
    Bad("PyTorch's default, 20 layers", partial(torch_default_mlp, depth=20), ["36"], ERROR, LEGACY),
    Bad("std 0.01, 8 layers", partial(mlp, depth=8, width=256, inputs=256, gain=0.16), ["12"], ERROR),
    Bad("tanh with small weights", partial(mlp, depth=10, activation="Tanh", gain=0.25), ["16"], ERROR),
    Bad(
        "biases keep the size, not the signal",
        partial(mlp, depth=20, gain=TORCH, changes={"20.bias": 1.0}),
        ["36"],
        ERROR,
    ),
)
def test_vanishing_signal(case: Case) -> None:
    check("vanishing-signal", case, seeds=(0, 1))


# Without a probe ------------------------------------------------------------------------------------------------------


def predicted(model: onnx.ModelProto) -> list[tuple[str, Severity]]:
    report = initlint.check(model, no_probe=True, select=["vanishing-signal"])
    assert report.skipped_rules == ()
    assert all(finding.message.startswith("the weights predict that") for finding in report.findings)
    return [(finding.address, finding.severity) for finding in report.findings]


@pytest.mark.parametrize(
    ("build", "severity"),
    [
        (partial(mlp, depth=9, gain=TORCH), NOTE),  # measured: a warning
        (partial(mlp, depth=15, gain=TORCH), WARNING),  # measured: an error
        (partial(mlp, depth=20, width=256, inputs=256, gain=0.16), ERROR),  # beyond every doubt: 1e-18
        (partial(mlp, depth=10, activation="Tanh", gain=0.3), WARNING),
        (partial(mlp, depth=20, gain=TORCH, changes={f"{i}.bias": 1.0 for i in range(0, 36, 2)}), WARNING),
    ],
    ids=["default, 9 layers", "default, 15 layers", "std 0.01, 20 layers", "tanh", "biases"],
)
def test_a_prediction_counts_a_step_less(build: Build, severity: Severity) -> None:
    for seed in range(3):
        ((_, found),) = predicted(build(seed=seed))
        assert found is severity


@pytest.mark.parametrize(
    "build",
    [
        partial(mlp, depth=20),
        partial(mlp, depth=5, gain=TORCH),
        partial(mlp, depth=3, width=256, inputs=256, gain=0.16),
        partial(mlp, depth=10, changes={"8.weight": lambda w: w / 1000}),
        partial(mlp, depth=10, changes={"8.weight": 0.0}),
        partial(mlp, changes={"6.weight": lambda w: w * 1e-8}),
        partial(mlp, depth=8, activation="Tanh", gain=1.0),
        partial(residual, blocks=20),
    ],
    ids=["he", "default, 5 layers", "std 0.01", "one layer", "zeros", "tiny head", "tanh", "residual"],
)
def test_near_misses_are_not_predicted_either(build: Build) -> None:
    assert predicted(build(seed=0)) == []


def test_a_factor_behind_the_non_linearity_is_seen() -> None:
    """StyleGAN's mapping network: PyTorch's default would fade, were not each output multiplied."""

    class Scaled(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(16))
            self.factor = factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = torch.nn.functional.leaky_relu(layer(x), 0.2) * self.factor
            return x

    torch.manual_seed(0)
    for factor, findings in ((1.0, 1), (2.4, 0)):
        assert len(predicted(honest_export(Scaled(factor), torch.randn(2, 64)))) == findings


def test_the_message_says_why_and_what_would_help() -> None:
    (finding,) = initlint.check(mlp(depth=9, gain=TORCH), select=["vanishing-signal"]).findings
    assert "per layer less than 0.5 % is left from layer 6 on; He initialisation keeps 0.9" in finding.message
    assert finding.data["predicted_per_layer"] == pytest.approx(finding.data["per_layer"], rel=0.1)
    assert finding.data["survives"] == 6


HEALTHY = (
    models.adaln_zero,
    models.autoencoder,
    models.batchnorm_resnet,
    models.fixup,
    models.gan_generator,
    models.gelu_mlp,
    models.gpt,
    models.highway,
    models.mobilenet,
    models.normed_cnn,
    models.relu_cnn,
    models.selu_mlp,
    models.sigmoid_mlp,
    models.siren,
    models.squeeze_excite,
    models.unet,
    models.weight_norm_mlp,
)


@pytest.mark.parametrize("build", HEALTHY, ids=lambda build: build.__name__)
def test_healthy_nets_are_predicted_to_be_healthy(build: Build) -> None:
    proto = honest_export(*build(seed=0))
    report = initlint.check(proto, no_probe=True, select=["signal"])
    assert report.findings == ()
