"""A zero gain ends a residual branch; in front of a ReLU it ends learning."""

from __future__ import annotations

from functools import partial

import onnx
import pytest
import torch
from judging import check_module
from models import Built, batchnorm_resnet, gpt, seeded
from models.altered import altered
from models.graphs import Graph
from torch import nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
LEGACY = ("legacy",)


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


class Normed(nn.Module):
    """Layers with a norm and a ReLU behind each."""

    def __init__(self, depth: int, norm: type[nn.Module]) -> None:
        super().__init__()
        blocks = (nn.Sequential(nn.Linear(32, 32), norm(32), nn.ReLU()) for _ in range(depth))
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x))


@seeded
def row(gains: float | tuple[float, ...], depth: int = 4, norm: type[nn.Module] = nn.LayerNorm) -> Built:
    net = Normed(depth, norm)
    for block, gain in zip(net.blocks, gains if isinstance(gains, tuple) else depth * (gains,), strict=True):
        nn.init.normal_(block[1].weight, std=-gain) if gain < 0 else nn.init.constant_(block[1].weight, gain)
    return net, (torch.randn(32, 32),)


@seeded
def encoder(std: float, norm_first: bool = False) -> Built:
    """Every parameter from one loop, as `for p in model.parameters(): nn.init.normal_(p, std=0.02)`."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=norm_first)
    net = nn.Sequential(
        nn.Linear(16, 32), nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), nn.Linear(32, 4)
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=std)
    return net, (torch.randn(16, 6, 16),)


FIRST = "1.layers.0.norm1.weight"

QUIET = (
    Good("near miss: gains of 0.3", partial(row, gains=0.3), notes_ok=False),
    Good("near miss: only the last one is small", partial(row, gains=(1.0, 1.0, 1.0, 1e-3)), notes_ok=False),
    Good("near miss: batch norms bring it back", partial(row, gains=0.02, norm=nn.BatchNorm1d), notes_ok=False),
    Good(
        "near miss: a way leads around them", partial(encoder, std=0.02, norm_first=True), notes_ok=False, exporters=()
    ),
    Bad("gains of 0.02", partial(row, gains=0.02), ["blocks.0.1.weight"], WARNING),
    Bad("drawn around zero", partial(row, gains=-0.02), ["blocks.0.1.weight"], WARNING, exporters=LEGACY),
    Bad("all of a post-norm encoder drawn from N(0, 0.02)", partial(encoder, std=0.02), [FIRST], WARNING, exporters=()),
)


@cases(*QUIET)
def test_gains_that_multiply(case: Case) -> None:
    check("zero-norm-gain", case, seeds=(0,))


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
