"""A bias is to blame if it alone keeps units of a ReLU off; biases of gates and outputs are none of its business."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from models import Fault, batchnorm_resnet, focal_prior, highway, relu_mlp
from models.altered import planted
from models.graphs import Array, Graph, mlp, residual

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
LEGACY = ("legacy",)


def first(share: float, value: float) -> object:
    """A change that sets the first ``share`` of a vector."""

    def change(bias: Array) -> Array:
        bias = bias.copy()
        bias[: int(share * len(bias))] = value
        return bias

    return change


def default_bias(bias: Array) -> Array:
    """Within the bounds of PyTorch's default for 64 inputs, 1/8, and mostly negative."""
    return bias + np.linspace(-0.12, 0.02, bias.size, dtype=bias.dtype)


def squeeze_excite(seed: int = 0) -> onnx.ModelProto:
    """The bias of -10 belongs to the gate, whose sigmoid starts closed."""
    graph = Graph(seed, {"gate.bias": -10.0})
    x = graph.input("x", ["batch", 32])
    gate = graph.op("Sigmoid", graph.linear("gate", x, 32, 32))
    x = graph.op("Relu", graph.op("Mul", gate, graph.linear("value", x, 32, 32)))
    return graph.model(graph.linear("head", x, 32, 10))


@cases(
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("focal prior on the output", focal_prior, notes_ok=False, exporters=LEGACY),
    Good("highway gates", highway, notes_ok=False, exporters=LEGACY),
    Good("closed gate in front of a ReLU", squeeze_excite, notes_ok=False),
    Good("near miss: -1 leaves units that fire", partial(mlp, changes={"2.bias": -1.0})),
    Good(
        "near miss: -10 is small beside the weights",
        partial(mlp, changes={"2.bias": -10.0, "2.weight": lambda w: w * 20}),
    ),
    Good("near miss: +10 is open", partial(mlp, changes={"2.bias": 10.0}), notes_ok=False),
    Good(
        "near miss: in front of leaky ReLU",
        partial(mlp, activation="LeakyRelu", changes={"2.bias": -10.0}),
        notes_ok=False,
    ),
    Good("near miss: -1.5 in front of GELU", partial(mlp, activation="Gelu", changes={"2.bias": -1.5})),
    Good(
        "near miss: default biases, weights ten thousand times too small",
        partial(
            mlp, changes={"2.bias": lambda b: b + np.linspace(-1, 0.2, b.size) / 64, "2.weight": lambda w: w * 1e-4}
        ),
    ),
    Bad("-10 in front of ReLU", planted(relu_mlp, Fault.RELU_BIAS, "2.bias"), ["2.bias"], ERROR),
    Bad("all units off by -20", partial(mlp, changes={"2.bias": -20.0}), ["2.bias"], ERROR),
    Bad(
        "every layer off: each by its own bias, also where nothing arrives any more",
        partial(mlp, depth=5, changes={f"{2 * layer}.bias": -20.0 for layer in range(4)}),
        [f"{2 * layer}.bias" for layer in range(4)],
    ),
    Bad("all units off by three deviations", partial(mlp, changes={"2.bias": -4.0}), ["2.bias"], WARNING),
    Bad("-10 in half of the units", partial(mlp, changes={"2.bias": first(0.6, -10.0)}), ["2.bias"], WARNING),
    Bad("-10 in a quarter of the units", partial(mlp, changes={"2.bias": first(0.3, -10.0)}), ["2.bias"], NOTE),
    Bad(
        "in a residual branch, which does not cut the net, but never learns",
        partial(residual, changes={"blocks.1.fc1.bias": -20.0}),
        ["blocks.1.fc1.bias"],
        ERROR,
    ),
    Bad("the shift of a batch norm", planted(batchnorm_resnet, Fault.RELU_BIAS, "norm.bias"), ["norm.bias"], ERROR),
)
def test_dead_relu_bias(case: Case) -> None:
    check("dead-relu-bias", case, seeds=(0,))
