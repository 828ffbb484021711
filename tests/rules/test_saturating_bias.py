"""Biases that hold bounded units where they are flat; gates and outputs may be held there."""

from __future__ import annotations

from functools import partial

import torch
from models import Built, Fault, focal_prior, highway, lstm, sigmoid_mlp, squeeze_excite, tanh_mlp
from models.altered import altered, planted
from models.graphs import Array, mlp
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
LEGACY = ("legacy",)


def first(share: float, value: float) -> object:
    def change(bias: Array) -> Array:
        bias = bias.copy()
        bias[: int(share * len(bias))] = value
        return bias

    return change


def times(factor: float) -> object:
    def change(weight: Array) -> Array:
        return weight * factor

    return change


tanh = partial(mlp, activation="Tanh", gain=1.0)


class Scaled(nn.Module):
    """A tanh of a fixed multiple of what a layer gives, as in a soft cap 15 tanh(x / 15), or of it less a constant."""

    def __init__(self, bias: float, factor: float, offset: float = 0.0) -> None:
        super().__init__()
        self.first, self.last, self.factor, self.offset = nn.Linear(16, 16), nn.Linear(16, 3), factor, offset
        nn.init.constant_(self.first.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x) * self.factor + self.offset) / self.factor)  # type: ignore[no-any-return]


def scaled(bias: float, factor: float, offset: float, seed: int = 0) -> Built:
    torch.manual_seed(seed)
    return Scaled(bias, factor, offset), torch.randn(64, 16)


@cases(
    Good("xavier tanh mlp", tanh_mlp, notes_ok=False, exporters=LEGACY),
    Good("xavier sigmoid mlp", sigmoid_mlp, notes_ok=False, exporters=LEGACY),
    Good("lstm", lstm, notes_ok=False, exporters=LEGACY),
    Good("squeeze and excite", squeeze_excite, notes_ok=False, exporters=LEGACY),
    Good(
        "near miss: a gate that starts closed",
        altered(highway, lambda m: m[1].gate.bias.fill_(-20.0)),
        False,
        False,
        LEGACY,
    ),
    Good(
        "near miss: a prior on the output", altered(focal_prior, lambda m: m[5].bias.fill_(-20.0)), False, False, LEGACY
    ),
    Good("near miss: a bias of 2", partial(tanh, changes={"2.bias": 2.0}), notes_ok=False),
    Good("near miss: 10 beside weights as loud", partial(tanh, changes={"2.bias": 10.0, "2.weight": times(20.0)})),
    Good("near miss: +10 in front of ReLU", partial(mlp, changes={"2.bias": 10.0}), notes_ok=False),
    Good("near miss: 10 under a soft cap of 15", partial(scaled, 10.0, 1 / 15, 0.0), notes_ok=False),
    Good("near miss: a constant takes the bias away again", partial(scaled, 10.0, 1.0, -10.0), notes_ok=False),
    Good("a constant holds them, not the bias", partial(scaled, 0.0, 1.0, -13.0)),
    Bad("100 under a soft cap of 15", partial(scaled, 100.0, 1 / 15, 0.0), ["first.bias"], ERROR),
    Bad("10 in front of tanh(-x)", partial(scaled, 10.0, -1.0, 0.0), ["first.bias"], ERROR),
    Bad("+10 in front of a sigmoid", planted(sigmoid_mlp, Fault.SIGMOID_BIAS, "2.bias"), ["2.bias"], ERROR, LEGACY),
    Bad("-10 in front of tanh", partial(tanh, changes={"2.bias": -10.0}), ["2.bias"], ERROR),
    Bad(
        "5 in front of a hard sigmoid",
        partial(mlp, activation="HardSigmoid", changes={"2.bias": 9.0}),
        ["2.bias"],
        ERROR,
    ),
    Bad("10 for nine units of ten", partial(tanh, changes={"2.bias": first(0.9, 10.0)}), ["2.bias"], WARNING),
    Bad("10 for half of the units", partial(tanh, changes={"2.bias": first(0.5, 10.0)}), ["2.bias"], NOTE),
)
def test_saturating_bias(case: Case) -> None:
    check("saturating-bias", case, seeds=(0,))


def test_without_a_probe_the_bias_and_the_weights_decide() -> None:
    model = partial(tanh, changes={"2.bias": -10.0})()
    (finding,) = initlint.check(model, select=["saturating-bias"], no_probe=True).findings
    assert (finding.tensor, finding.severity) == ("2.bias", WARNING)


def test_the_saturation_that_follows_is_no_finding_of_its_own() -> None:
    module, inputs = planted(sigmoid_mlp, Fault.SIGMOID_BIAS, "2.bias")(0)
    report = initlint.check(module, inputs, select=["saturating-bias", "saturated-activations"])
    assert [(f.rule, f.tensor) for f in report.headlines] == [("saturating-bias", "2.bias")]
