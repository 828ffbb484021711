"""Finite weights whose first forward pass is not finite: the finding names the tensor to blame."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import torch
from judging import findings
from models import relu_mlp, weight_norm_mlp
from models.altered import altered
from models.deadlocks import tokens
from models.graphs import Graph, mlp
from torch import nn

import initlint
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


class Attention(nn.Module):
    """Causal attention whose mask hides the positions from ``hidden`` after each one's own on."""

    def __init__(self, hidden: int, zero: bool = False) -> None:
        super().__init__()
        self.query, self.key, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.hidden, self.zero = hidden, zero

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(self.hidden)
        mixed = scores.masked_fill(mask, -torch.inf).softmax(-1) @ x
        return self.out(mixed / (0.0 * mixed.abs()) if self.zero else mixed)


def test_a_mask_that_hides_all_of_a_row_is_what_is_told() -> None:
    torch.manual_seed(0)
    (finding,) = initlint.check(Attention(0), torch.randn(4, 6, 8)).findings
    assert (finding.rule, finding.severity) == ("non-finite-activations", ERROR)
    assert "NaN at Softmax: a row of what it reads is -inf throughout" in finding.message


def test_a_mask_that_hides_less_is_not_taken_for_the_origin() -> None:
    torch.manual_seed(0)
    assert not initlint.check(Attention(1), torch.randn(4, 6, 8), select=["non-finite-activations"]).findings
    (finding,) = initlint.check(
        Attention(1, zero=True), torch.randn(4, 6, 8), select=["non-finite-activations"]
    ).findings
    assert "infinity at Div" in finding.message
