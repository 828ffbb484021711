"""Finite weights whose first forward pass is not finite: the finding names the tensor to blame."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from judging import findings
from models import relu_mlp, weight_norm_mlp
from models.altered import altered
from models.deadlocks import tokens
from models.graphs import Graph, mlp
from torch import nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR = Severity.ERROR


def zero_row(module: nn.Module) -> None:
    module[2].parametrizations.weight.original1[3] = 0.0


def masked(seed: int = 0) -> onnx.ModelProto:
    graph = Graph(seed)
    x = graph.input("x", ["batch", 8, 8])
    mask = np.triu(np.full((8, 8), -np.inf, np.float32), 1)
    scores = graph.op("Add", x, graph.tensor("mask", mask))
    return graph.model(graph.matmul("head", graph.op("Softmax", scores, axis=-1), 8, 4))


def logarithm(seed: int = 0, offset: float = 0.0) -> onnx.ModelProto:
    graph = Graph(seed)
    x = graph.op("Relu", graph.linear("first", graph.input("x", ["batch", 32]), 32, 16))
    if offset:
        x = graph.op("Add", x, graph.tensor("offset", np.array(offset, np.float32)))
    return graph.model(graph.linear("head", graph.op("Log", x), 16, 4))


@cases(
    Good("he-initialised mlp", relu_mlp, exporters=("legacy",)),
    Good("weight norm", weight_norm_mlp, exporters=("legacy",)),
    Good(
        "near miss: a tiny row under weight norm",
        altered(weight_norm_mlp, lambda m: m[2].parametrizations.weight.original1[3].mul_(1e-6)),
        exporters=("legacy",),
    ),
    Good("near miss: a mask of -inf that leaves one entry per row", masked),
    Good("near miss: the logarithm of a small number", partial(logarithm, offset=1e-6)),
    Good("near miss: outputs of 1e30", partial(mlp, changes={"6.weight": lambda w: w * 1e30})),
    Bad("a zero row under weight norm", altered(weight_norm_mlp, zero_row), ["2.weight"], ERROR),
    Bad("the logarithm of zero", logarithm, ["head"], ERROR),
    Bad(
        "outputs that outgrow float32",
        partial(mlp, changes={"4.weight": lambda w: w * 1e25, "6.weight": lambda w: w * 1e25}),
        ["6.weight"],
        ERROR,
    ),
)
def test_non_finite_activations(case: Case) -> None:
    check("non-finite-activations", case, seeds=(0,))


def test_a_tensor_too_large_to_be_squared_is_named_where_a_norm_overflows() -> None:
    found = findings(tokens, select=["non-finite-activations"])
    assert [(finding.address, finding.severity) for finding in found] == [("tokens", ERROR)]
