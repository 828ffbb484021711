"""A zero gain ends a residual branch; in front of a ReLU it ends learning."""

from __future__ import annotations

from functools import partial

import onnx
import pytest
from judging import check_module
from models import batchnorm_resnet, gpt
from models.altered import altered
from models.graphs import Graph
from torch import nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def last_of_branch(module: nn.Module) -> None:
    for block in module.blocks:
        block.bn2.weight.zero_()


def but_one(module: nn.Module) -> None:
    module.blocks[0].bn1.weight[1:] = 0.0


def open_relu(module: nn.Module) -> None:
    module.blocks[0].bn1.weight.zero_()
    module.blocks[0].bn1.bias.fill_(0.5)


MODULES = (
    Good("gains of one", batchnorm_resnet, notes_ok=False),
    Good("gains of layer norms", gpt, notes_ok=False),
    Good("last norms of residual branches", altered(batchnorm_resnet, last_of_branch)),
    Good("near miss: one gain is left", altered(batchnorm_resnet, but_one), notes_ok=False),
    Bad(
        "in front of ReLU",
        altered(batchnorm_resnet, lambda m: m.blocks[0].bn1.weight.zero_()),
        ["blocks.0.bn1.weight"],
        ERROR,
    ),
    Bad("a positive shift keeps the ReLU open", altered(batchnorm_resnet, open_relu), ["blocks.0.bn1.weight"], WARNING),
    Bad(
        "the idiom is noted",
        altered(batchnorm_resnet, lambda m: m.blocks[1].bn2.weight.zero_()),
        ["blocks.1.bn2.weight"],
        NOTE,
    ),
)


@cases(*MODULES)
def test_zero_norm_gain(case: Case) -> None:
    check_module("zero-norm-gain", case)


def normed(seed: int = 0, gain: float = 0.0, shift: float = 0.0) -> onnx.ModelProto:
    graph = Graph(seed, {"norm.weight": gain, "norm.bias": shift})
    x = graph.op("Relu", graph.conv("conv1", graph.input("x", ["batch", 3, 8, 8]), 3, 16))
    x = graph.op("Relu", graph.norm("norm", graph.conv("conv2", x, 16, 16), 16))
    return graph.model(graph.conv("conv3", x, 16, 4))


@pytest.mark.parametrize(
    "case",
    [
        Good("a small gain", partial(normed, gain=0.01), notes_ok=False),
        Bad("in front of ReLU", normed, ["norm.weight"], ERROR),
        Bad("a positive shift", partial(normed, shift=0.5), ["norm.weight"], WARNING),
    ],
    ids=lambda case: case.name,
)
def test_graphs(case: Case) -> None:
    check("zero-norm-gain", case)
