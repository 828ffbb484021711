"""Weights on one side of zero: units that all say the same, unless a norm, a softmax or few inputs prevent it."""

from __future__ import annotations

import math
from functools import partial

import torch
from models import batchnorm_resnet, gpt, lstm, relu_mlp, tanh_mlp, torch_default_mlp
from models.altered import altered
from models.graphs import Array, Graph, mlp
from models.initialised import Built, he, seeded
from torch import Tensor, nn
from torch.nn import functional

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
LEGACY = ("legacy",)


def shifted(coherence: float) -> object:
    """Add a mean of so many standard deviations over the root of the fan-in."""

    def change(weight: Array) -> Array:
        return weight + coherence / math.sqrt(weight.shape[1]) * weight.std()

    return change


def one_sided(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.uniform_(parameter)


@seeded
def normed(norm: type[nn.Module], sided: bool = True) -> Built:
    net = nn.Sequential()
    for inputs in (32, 64, 64):
        net.extend([nn.Linear(inputs, 64, bias=False), norm(64), nn.ReLU()])
        if sided:
            nn.init.uniform_(net[-3].weight)
    return net.append(nn.Linear(64, 10)), (torch.randn(64, 32),)


class Monotonic(nn.Module):
    """Positive by design: softplus of a stored matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.randn(64, 64) - 4.0)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(functional.linear(x, functional.softplus(self.raw))))


@seeded
def monotonic() -> Built:
    return Monotonic(), (torch.randn(32, 64),)


@seeded
def small_kernel() -> Built:
    """A smoothing kernel, as a trainable start: with 9 inputs its units are told apart all the same."""
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU())
    net.apply(he)
    nn.init.uniform_(net[0].weight, 0, 1)
    nn.init.uniform_(net[2].weight, 0, 1)
    return net.extend([nn.Flatten(), nn.Linear(512, 10)]), (torch.randn(32, 1, 8, 8),)


class Block(nn.Module):
    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.branch = nn.Sequential(norm(64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


@seeded
def residual(norm: type[nn.Module], sided: slice = slice(None)) -> Built:
    """Shortcuts around blocks, some with weights on one side; the maps at both ends are healthy."""
    blocks = [Block(norm) for _ in range(3)]
    for block in blocks[sided]:
        block.apply(one_sided)
    return nn.Sequential(nn.Linear(64, 64), *blocks, norm(64), nn.Linear(64, 10)), (torch.randn(64, 64),)


def gate(seed: int = 0) -> object:
    """Weights that only scale another signal: they are a factor, and no layer reads them."""
    graph = Graph(seed, {"gate.weight": shifted(30.0)})
    x = graph.input("x", ["batch", 32])
    scale = graph.op("Sigmoid", graph.linear("gate", x, 32, 32))
    return graph.model(graph.op("Mul", scale, graph.linear("body", x, 32, 32)))


@cases(
    Good("he-initialised mlp", relu_mlp, notes_ok=False, exporters=LEGACY),
    Good("PyTorch's default", torch_default_mlp, notes_ok=False, exporters=LEGACY),
    Good("GPT-2", gpt, notes_ok=False, exporters=LEGACY),
    Good("LSTM with forget-gate bias", lstm, notes_ok=False, exporters=LEGACY),
    Good("near miss: half of what one layer bears", partial(mlp, changes={"2.weight": shifted(4.0)}), notes_ok=False),
    Good("near miss: the head alone", partial(mlp, changes={"6.weight": shifted(20.0)})),
    Good("near miss: layer norm takes away what units share", partial(normed, norm=nn.LayerNorm), exporters=LEGACY),
    Good("near miss: a gate", gate),
    Good("near miss: positive by design", monotonic, notes_ok=False, exporters=LEGACY),
    Good("near miss: small positive kernels", small_kernel, exporters=LEGACY),
    Good("near miss: layer norms in a residual net", partial(residual, norm=nn.LayerNorm), exporters=LEGACY),
    Bad(
        "every branch around shortcuts",
        partial(residual, norm=nn.BatchNorm1d),
        [f"{block}.branch.{layer}.weight" for block in (1, 2, 3) for layer in (1, 3)],
        ERROR,
        LEGACY,
    ),
    Bad("one branch", partial(residual, norm=nn.BatchNorm1d, sided=slice(1)), ["1.branch.3.weight"], exporters=LEGACY),
    Bad("one layer", partial(mlp, changes={"2.weight": shifted(12.0)}), ["2.weight"], WARNING),
    Bad("one negative layer", partial(mlp, changes={"2.weight": shifted(-12.0)}), ["2.weight"], WARNING),
    Bad("one layer, noticed but bearable", partial(mlp, changes={"2.weight": shifted(8.5)}), ["2.weight"], NOTE),
    Bad(
        "uniform(0, 1) everywhere",
        altered(relu_mlp, one_sided, inputs=64),
        ["0.weight", "2.weight", "4.weight"],
        ERROR,
        LEGACY,
    ),
    Bad("behind tanh", altered(tanh_mlp, one_sided, width=256), ["0.weight", "2.weight", "4.weight"], ERROR, LEGACY),
    Bad(
        "in front of batch norm",
        partial(normed, norm=nn.BatchNorm1d),
        ["0.weight", "3.weight", "6.weight"],
        ERROR,
        LEGACY,
    ),
    Bad(
        "recurrent weights of an LSTM",
        altered(lstm, lambda m: m.cell.weight_hh_l0.uniform_(0, 1)),
        ["cell.weight_hh_l0"],
        ERROR,
        LEGACY,
    ),
    Bad(
        "a residual net",
        altered(batchnorm_resnet, lambda m: m.blocks[0].conv2.weight.uniform_(0, 1)),
        ["blocks.0.conv2.weight"],
        WARNING,
        LEGACY,
    ),
)
def test_shifted_mean(case: Case) -> None:
    check("shifted-mean", case, seeds=(0,))
