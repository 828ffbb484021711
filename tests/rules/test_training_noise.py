"""Noise of training mode that drowns the outputs, or makes them NaN, is told; usual noise is not, and costs nothing."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from models import Built, relu_mlp
from models.initialised import seeded
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity
from initlint.probe.training_mode import _draws_in_training
from initlint.testing import Bad, Case, Good, cases, check


class NoisyLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int, sigma: float) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.sigma = nn.Parameter(torch.full((outputs, inputs), sigma))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        noise = self.sigma * torch.randn_like(self.sigma) if self.training else 0.0
        return nn.functional.linear(x, self.weight + noise, self.bias)


@seeded
def noisy(sigma_0: float = 0.5) -> Built:
    layers = [NoisyLinear(16, 32, sigma_0 / 4), nn.ReLU(), NoisyLinear(32, 4, sigma_0 / math.sqrt(32))]
    return nn.Sequential(*layers), (torch.randn(32, 16),)


def _dropped(x: Tensor, keep: float, training: bool) -> Tensor:
    return x / keep * (torch.rand(len(x), 1) < keep) if training else x


class Deep(nn.Module):
    """Stochastic depth written by hand."""

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.stem, self.branch, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + _dropped(torch.tanh(self.branch(x)), self.keep, self.training)
        out: Tensor = self.head(x)
        return out


@seeded
def deep(keep: float = 0.5) -> Built:
    return Deep(keep), (torch.randn(32, 16),)


class Variational(nn.Module):
    """Samples in training alone, and leaves impossible classes at minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread, self.head = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        mean, spread = self.mean(x), (0.5 * self.spread(x)).exp()
        if self.training:
            mean = torch.distributions.Normal(mean, spread).rsample()
        out: Tensor = self.head(mean)
        return out.masked_fill(torch.arange(4) == 3, -math.inf)


@seeded
def variational() -> Built:
    return Variational(), (torch.randn(32, 16),)


@cases(
    Good("he-initialised mlp", relu_mlp),
    Good("noisy layers as published", noisy, notes_ok=True, exporters=()),
    Good("near miss: noise as large as the weights allow", partial(noisy, sigma_0=4.0), notes_ok=True, exporters=()),
    Good("stochastic depth", deep),
    Good("near miss: a branch that is nearly always dropped", partial(deep, keep=0.05)),
    Good("noise of order one behind masked logits", variational, notes_ok=True, exporters=()),
    Bad("sigma without the root of the fan-in", partial(noisy, sigma_0=200.0), at=["0.sigma"], exporters=()),
    Bad("a keep probability of zero", partial(deep, keep=0.0), at=[""], exporters=()),
)
def test_training_noise(case: Case) -> None:
    check("training-noise", case, seeds=(0, 1))


@pytest.mark.parametrize("build", [partial(noisy, sigma_0=200.0), partial(deep, keep=0.0)])
def test_it_is_an_error_and_the_only_one(build: partial[Built]) -> None:
    module, inputs = build()
    (finding,) = (each for each in initlint.check(module, *inputs).headlines if each.severity > Severity.NOTE)
    assert (finding.rule, finding.severity) == ("training-noise", Severity.ERROR)


def test_a_bias_that_makes_the_noise_loud_is_the_cause() -> None:
    module, inputs = variational()
    nn.init.constant_(module.spread.bias, 16.0)
    (finding,) = (each for each in initlint.check(module, *inputs).headlines if each.severity > Severity.NOTE)
    assert (finding.rule, finding.address, finding.severity) == ("oversized-bias", "spread.bias", Severity.ERROR)


def test_what_has_no_noise_but_dropout_is_not_run_in_training_mode() -> None:
    plain = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.TransformerEncoderLayer(8, 2, 16))
    assert not _draws_in_training(plain)
    assert _draws_in_training(deep()[0])  # through a function beside it
    assert _draws_in_training(nn.Sequential(noisy()[0]))


def test_a_forward_that_wants_targets_in_training_is_said() -> None:
    class Detector(Deep):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise ValueError("targets should not be none")
            return super().forward(x)

    report = initlint.check(Detector(0.5), torch.randn(32, 16))
    assert [each.rule for each in report.findings] == []
    assert any(each.at == "training mode" for each in report.not_checked)
