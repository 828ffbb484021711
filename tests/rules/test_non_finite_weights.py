"""NaN is a fault wherever it stands; infinity is one in a parameter, and none in an attention mask."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
import torch
from models import Fault, batchnorm_resnet, relu_mlp
from models.altered import altered, planted
from models.graphs import Graph, mlp

import initlint
from initlint.plugin import Fill, Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR = Severity.ERROR


def masked_attention(seed: int = 0) -> onnx.ModelProto:
    """A causal mask of -inf in a buffer."""
    graph = Graph(seed)
    x = graph.input("x", ["batch", 8, 32])
    q, k, v = (graph.matmul(name, x, 32, 32) for name in ("query", "key", "value"))
    scores = graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 2, 1]))
    mask = graph.tensor("mask", np.triu(np.full((8, 8), -np.inf, np.float32), 1))
    mixed = graph.op("MatMul", graph.op("Softmax", graph.op("Add", scores, mask), axis=-1), v)
    return graph.model(graph.matmul("out", mixed, 32, 10))


def half(seed: int = 0, largest: float = 65504.0) -> onnx.ModelProto:
    """A weight stored as float16 whose largest value is ``largest``."""
    graph = Graph(seed)
    x = graph.input("x", ["batch", 8])
    drawn = graph.rng.standard_normal((16, 8))
    drawn[0, 0] = largest
    with np.errstate(over="ignore"):
        stored = graph.tensor("first.weight", drawn.astype(np.float16))
    return graph.model(graph.op("Gemm", x, graph.op("Cast", stored, to=onnx.TensorProto.FLOAT), transB=1))


def one(value: float) -> object:
    """A change that sets a single value in the middle of a tensor."""

    def change(tensor: np.ndarray) -> np.ndarray:
        tensor = tensor.copy()
        tensor.flat[tensor.size // 2] = value
        return tensor

    return change


@cases(
    Good("he-initialised mlp", relu_mlp, exporters=("legacy",)),
    Good("near miss: a mask of -inf in a buffer", masked_attention),
    Good("near miss: the largest float16", half),
    Good("near miss: the largest float32", partial(mlp, changes={"2.weight": one(3.4e38)})),
    Bad("one NaN in a weight", planted(relu_mlp, Fault.NAN, "2.weight"), ["2.weight"], ERROR),
    Bad("a bias that was never initialised", partial(mlp, changes={"4.bias": np.nan}), ["4.bias"], ERROR),
    Bad("infinity in a weight", partial(mlp, changes={"2.weight": one(np.inf)}), ["2.weight"], ERROR),
    Bad("minus infinity in a bias", partial(mlp, changes={"2.bias": one(-np.inf)}), ["2.bias"], ERROR),
    Bad("a float16 that overflowed", partial(half, largest=65536.0), ["first.weight"], ERROR),
    Bad(
        "a running variance",
        altered(batchnorm_resnet, lambda m: m.norm.running_var.fill_(float("nan"))),
        ["norm.running_var"],
        ERROR,
        exporters=("legacy",),
    ),
    Bad(
        "a norm's gain",
        altered(batchnorm_resnet, lambda m: m.blocks[0].bn1.weight.fill_(float("inf"))),
        ["blocks.0.bn1.weight"],
        ERROR,
        exporters=("legacy",),
    ),
)
def test_non_finite_weights(case: Case) -> None:
    check("non-finite-weights", case, seeds=(0,))


@pytest.mark.parametrize(("name", "value"), [("running_var", 1.0), ("running_mean", 0.0)])
def test_a_running_statistic_is_mended_with_what_a_fresh_norm_has(name: str, value: float) -> None:
    """Also where the probe ran on batch statistics, so that only its name tells what the buffer is for."""
    module = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU())
    getattr(module[1], name).fill_(float("nan"))
    (found,) = [each for each in initlint.check(module, torch.randn(64, 16)).findings if each.severity is ERROR]
    assert (found.rule, found.address) == ("non-finite-weights", f"1.{name}")
    assert found.fix == Fill(f"1.{name}", value)
