"""Gradients that die away on their way back."""

from __future__ import annotations

from functools import partial

import torch
from models import batchnorm_resnet, fixup, gpt, gru, identity_rnn, lstm, relu_cnn, relu_mlp, tanh_mlp, vit, zero_head
from models.initialised import Built, seeded
from models.plain import mlp
from torch import nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING = Severity.ERROR, Severity.WARNING


@seeded
def sigmoids(depth: int, gain: float = 1.0, shift: float = 0.0, width: int = 64) -> Built:
    module = mlp(nn.Sigmoid, depth, width, width, 10)
    for layer in module:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=gain / width**0.5)
            nn.init.constant_(layer.bias, shift)
    nn.init.zeros_(module[-1].bias)
    return module, (torch.randn(32, width),)


@seeded
def quiet_middle(factor: float) -> Built:
    module, inputs = relu_mlp(0, depth=6)
    with torch.no_grad():
        module[4].weight.mul_(factor)
    return module, inputs


class Highway(nn.Module):
    """Its gate decides between a small map and what came in."""

    def __init__(self, width: int, carry: float) -> None:
        super().__init__()
        self.map, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, carry)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * x + (1 - gate) * torch.sigmoid(self.map(x))


@seeded
def highway(carry: float, depth: int = 12, width: int = 64) -> Built:
    layers = [nn.Linear(width, width), *(Highway(width, carry) for _ in range(depth)), nn.Linear(width, 10)]
    return nn.Sequential(*layers), (torch.randn(32, width),)


class Aside(nn.Module):
    """An encoder that is an output by itself and that the decoder, whose input is another, hardly listens to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.listen, self.decoder, self.head = (nn.Linear(width, width) for _ in range(3))
        nn.init.normal_(self.listen.weight, std=1e-5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = self.norm(self.encoder(x))
        return self.head(self.decoder(x) + self.listen(code)), code


@seeded
def aside(width: int = 64) -> Built:
    return Aside(width), (torch.randn(32, width),)


@cases(
    Good("he-initialised, 30 layers", partial(relu_mlp, depth=30), notes_ok=False),
    Good("xavier in front of tanh, 20 layers", partial(tanh_mlp, depth=20), notes_ok=False),
    Good("cnn", relu_cnn, notes_ok=False),
    Good("residual with batch norm", batchnorm_resnet, notes_ok=False),
    Good("transformer", gpt, notes_ok=False),
    Good("vision transformer", vit, notes_ok=False),
    Good("lstm", lstm, notes_ok=False),
    Good("three stacked grus", partial(gru, layers=3), notes_ok=False),
    Good("identity rnn", identity_rnn, notes_ok=False),
    Good("fixup", fixup, notes_ok=False),
    Good("zero head", zero_head, notes_ok=False),
    Good("near miss: sigmoids, 3 layers", partial(sigmoids, depth=3), notes_ok=False),
    Good("near miss: one layer a hundred times too small", partial(quiet_middle, factor=0.01), notes_ok=False),
    Good("near miss: a highway that carries", partial(highway, carry=3.0), notes_ok=False),
    Good("near miss: an encoder that the decoder hardly listens to", aside, notes_ok=False),
    Bad("sigmoids, 8 layers", partial(sigmoids, depth=8), ["0"], WARNING),
    Bad("sigmoids far from zero", partial(sigmoids, depth=5, shift=5.0), ["0"], ERROR),
    Bad("a highway that lets nothing pass", partial(highway, carry=-8.0), ["0"], ERROR),
)
def test_vanishing_gradient(case: Case) -> None:
    check("vanishing-gradient", case)


def test_a_vanishing_signal_takes_the_finding_over() -> None:
    module, inputs = sigmoids(depth=12)
    report = initlint.check(module, inputs)
    (found,) = [finding for finding in report.findings if finding.rule == "vanishing-gradient"]
    assert found.caused_by is not None and found.caused_by.rule == "vanishing-signal"
    assert found.severity <= next(each.severity for each in report.headlines if each.rule == "vanishing-signal")
