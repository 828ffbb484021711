"""Hidden units on the flat part of tanh and sigmoid learn nothing; priors on outputs and gates belong there."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import torch
from models import Fault, focal_prior, highway, lstm, sigmoid_mlp, squeeze_excite, tanh_mlp
from models.altered import altered, planted
from models.graphs import Array, Graph, mlp

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
LEGACY = ("legacy",)


def times(factor: float) -> object:
    def change(weight: Array) -> Array:
        return weight * factor

    return change


def normed_tanh(seed: int = 0, gain: float = 1.0) -> onnx.ModelProto:
    graph = Graph(seed, {"norm.weight": gain})
    x = graph.norm("norm", graph.conv("conv1", graph.input("x", ["batch", 3, 8, 8]), 3, 16), 16)
    return graph.model(graph.conv("conv2", graph.op("Tanh", x), 16, 4))


def actor(seed: int = 0, gain: float = 1.0, end: str = "Tanh", prior: float = 0.0) -> onnx.ModelProto:
    """A policy with bounded actions; the last layer drawn ``gain`` times as large as Xavier has it."""
    graph = Graph(seed, {"head.bias": prior})
    x = graph.op("Relu", graph.linear("hidden", graph.input("x", ["batch", 32]), 32, 64))
    x = graph.op(end, graph.linear("head", x, 64, 4, gain))
    return graph.model(graph.op("Mul", x, graph.tensor("range", np.array(3.0, np.float32))))


@cases(
    Good("xavier tanh mlp", tanh_mlp, notes_ok=False, exporters=LEGACY),
    Good("xavier sigmoid mlp", sigmoid_mlp, notes_ok=False, exporters=LEGACY),
    Good("lstm", lstm, notes_ok=False, exporters=LEGACY),
    Good("focal prior", focal_prior, notes_ok=False, exporters=LEGACY),
    Good("squeeze and excite", squeeze_excite, notes_ok=False, exporters=LEGACY),
    Good(
        "near miss: a gate that starts closed",
        altered(highway, lambda m: m[1].gate.bias.fill_(-10.0)),
        exporters=LEGACY,
    ),
    Good(
        "near miss: a prior of -10 on the output",
        altered(focal_prior, lambda m: m[5].bias.fill_(-10.0)),
        notes_ok=False,
        exporters=LEGACY,
    ),
    Good(
        "near miss: tanh with three times the weights",
        partial(mlp, activation="Tanh", gain=1.0, changes={"2.weight": times(3.0)}),
        notes_ok=False,
    ),
    Good(
        "near miss: tanh, 4 layers with twice the weights",
        partial(mlp, activation="Tanh", depth=4, gain=2.0),
        notes_ok=False,
    ),
    Good("near miss: any scale in front of ReLU", partial(mlp, changes={"2.weight": times(1000.0)}), notes_ok=False),
    Good("near miss: a loud convolution in front of batch norm", normed_tanh, notes_ok=False),
    Good("actions within a tanh", actor, notes_ok=False),
    Good("near miss: actions of twice the scale", partial(actor, gain=2.0), notes_ok=False),
    Good("near miss: a loud output behind a sigmoid", partial(actor, gain=20.0, end="Sigmoid"), notes_ok=False),
    Good("near miss: a bias holds the output tanh", partial(actor, prior=8.0), notes_ok=False),
    Bad("actions that start at the ends of a tanh", partial(actor, gain=20.0), ["head.weight"], ERROR),
    Bad("sigmoid with a bias of +10", planted(sigmoid_mlp, Fault.SIGMOID_BIAS, "2.bias"), ["2.bias"], ERROR),
    Bad(
        "tanh with ten times the weights",
        partial(mlp, activation="Tanh", gain=1.0, changes={"2.weight": times(10.0)}),
        ["2.weight"],
        WARNING,
    ),
    Bad(
        "tanh with a thousand times the weights",
        altered(tanh_mlp, lambda m: m[2].weight.mul_(1000.0)),
        ["2.weight"],
        ERROR,
        exporters=("legacy",),
    ),
    Bad(
        "tanh, 20 layers with four times the weights, less than half of the values saturated",
        partial(mlp, activation="Tanh", depth=20, gain=4.0),
        ["0.weight"],
        ERROR,
    ),
    Bad(
        "tanh, 5 layers with 16 times the weights",
        partial(mlp, activation="Tanh", depth=5, gain=16.0),
        ["0.weight"],
        ERROR,
    ),
    Bad("a norm's gain of 10 in front of tanh", partial(normed_tanh, gain=10.0), ["norm.weight"], WARNING),
)
def test_saturated_activations(case: Case) -> None:
    check("saturated-activations", case, seeds=(0,))


def test_frozen_random_features_may_saturate() -> None:
    """An extreme learning machine: no gradient has to come through."""
    module, inputs = tanh_mlp(0)
    with torch.no_grad():
        module[0].bias.uniform_(2.0, 6.0)
    severities = []
    for frozen in (False, True):
        module[0].requires_grad_(not frozen)
        (finding,) = initlint.check(module, inputs, select=["saturated-activations"]).findings
        severities.append((finding.address, finding.severity))
    assert severities == [("0.bias", WARNING), ("0.bias", NOTE)]
