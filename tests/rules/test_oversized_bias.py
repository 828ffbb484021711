"""A bias that drowns the input-dependent part of a hidden layer; priors, gates and what a norm removes are fine."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from models import focal_prior, highway, relu_cnn, squeeze_excite
from models.altered import altered
from models.graphs import Array, Graph, mlp, residual

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING = Severity.WARNING
LEGACY = ("legacy",)
FCS = ("fc1", "fc2")


def alternating(size: float) -> object:
    def change(bias: Array) -> Array:
        bias = bias.copy()
        bias[::2], bias[1::2] = size, -size
        return bias

    return change


def times(factor: float) -> object:
    def change(weight: Array) -> Array:
        return weight * factor

    return change


def everywhere(size: float) -> dict[str, object]:
    return {"0.bias": size, "2.bias": size, "4.bias": size}


def normed(seed: int = 0, size: float = 100.0, at: str = "conv.bias") -> onnx.ModelProto:
    """Convolution with a bias, batch norm, ReLU."""
    graph = Graph(seed, {at: size})
    x, zeros = graph.conv("conv", graph.input("x", ["batch", 3, 8, 8]), 3, 16), 0 * graph.rng.random(16, "float32")
    x = graph.op("Add", x, graph.op("Reshape", graph.tensor("conv.bias", zeros), graph.tensor("s", _column())))
    return graph.model(graph.conv("conv2", graph.op("LeakyRelu", graph.norm("norm", x, 16)), 16, 4))


def forget(seed: int = 0, weight: float = 0.0) -> onnx.ModelProto:
    """Beck et al. 2024 (xLSTM): cumulated gates that do not depend on the input yet; here added to a layer."""
    graph = Graph(seed, {"forget.weight": lambda drawn: weight * drawn, "forget.bias": np.linspace(3, 6, 32)})
    x = graph.input("x", ["batch", 32])
    x = graph.op("Add", graph.linear("data", x, 32, 32), graph.linear("forget", x, 32, 32))
    return graph.model(graph.linear("head", graph.op("Relu", x), 32, 10))


def _column() -> Array:
    return np.array([16, 1, 1], np.int64)


@cases(
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("he-initialised cnn", relu_cnn, notes_ok=False, exporters=LEGACY),
    Good("focal prior", focal_prior, notes_ok=False, exporters=LEGACY),
    Good("highway", altered(highway, lambda m: m[1].gate.bias.fill_(-20.0)), notes_ok=False, exporters=LEGACY),
    Good("squeeze and excite", squeeze_excite, notes_ok=False, exporters=LEGACY),
    Good("near miss: a prior of -100 on the output", partial(mlp, changes={"6.bias": -100.0}), notes_ok=False),
    Good("a forget gate of xLSTM: weight zero, bias 3 to 6", forget, notes_ok=False),
    Good("near miss: a bias of 5", partial(mlp, changes={"2.bias": 5.0}), notes_ok=False),
    Good("near miss: 50 beside weights as loud", partial(mlp, changes={"2.bias": 50.0, "2.weight": times(20.0)})),
    Good("near miss: negative before ReLU, which is dead-relu-bias", partial(mlp, changes={"2.bias": -50.0})),
    Good("near miss: a batch norm takes it away", normed, notes_ok=False),
    Good("near miss: a bias of 3 in all layers", partial(mlp, changes=everywhere(3.0)), notes_ok=False),
    Bad("near miss: a weight that is small, not zero", partial(forget, weight=0.01), ["forget.bias"], WARNING),
    Bad("+9 in all layers", partial(mlp, changes=everywhere(9.0)), ["0.bias"], WARNING),
    Bad("+20 in all layers", partial(mlp, changes=everywhere(20.0)), ["0.bias"], Severity.ERROR),
    Bad("+30 before ReLU", partial(mlp, changes={"2.bias": 30.0}), ["2.bias"], WARNING),
    Bad("+-50 before ReLU", partial(mlp, changes={"2.bias": alternating(50.0)}), ["2.bias"], WARNING),
    Bad("-30 before GELU's leaky kin", partial(mlp, activation="LeakyRelu", changes={"2.bias": -30.0}), ["2.bias"]),
    Bad("+3000 before ReLU", partial(mlp, changes={"2.bias": 3000.0}), ["2.bias"], Severity.ERROR),
    Bad("in a residual branch", partial(residual, changes={"blocks.1.fc1.bias": 30.0}), ["blocks.1.fc1.bias"], WARNING),
    Bad(
        "+-20 in every layer of a residual net",
        partial(residual, changes={f"blocks.{n}.{each}.bias": alternating(20.0) for n in range(3) for each in FCS}),
        ["blocks.0.fc2.bias"],
        Severity.ERROR,
    ),
    Bad("the shift of a norm", partial(normed, at="norm.bias"), ["norm.bias"], WARNING),
)
def test_oversized_bias(case: Case) -> None:
    check("oversized-bias", case, seeds=(0,))
