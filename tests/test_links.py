"""What stands between two layers, as a function: unknown non-linearities and constant factors are evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from loading import Array, node, normal, opened
from onnx import NodeProto
from torch import nn

from initlint import activations
from initlint.model import Layer
from initlint.paths import expected_gain
from initlint.probe.on_torch import TorchSession


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


def second(nodes: Sequence[NodeProto], constants: dict[str, Array] | None = None) -> Layer:
    """The layer "b" of x -> a -> ``nodes`` from h to z -> b."""
    weights = {"a.weight": normal(4, 4, seed=0), "b.weight": normal(4, 4, seed=1), **(constants or {})}
    ends = node("MatMul", ["x", "a.weight"], ["h"]), node("MatMul", ["z", "b.weight"], ["y"])
    return opened([ends[0], *nodes, ends[1]], weights).model.layer("b")


BELL = [node("Mul", ["h", "h"], ["s"]), node("Neg", ["s"], ["n"]), node("Exp", ["n"], ["z"])]
SNAKE = [node("Sin", ["h"], ["s"]), node("Mul", ["s", "s"], ["q"]), node("Add", ["h", "q"], ["z"])]
LOUD_LEAKY = [node("LeakyRelu", ["h"], ["l"], alpha=0.2), node("Mul", ["l", "root"], ["z"])]
SINE = [node("Mul", ["h", "thirty"], ["t"]), node("Sin", ["t"], ["z"])]
SHIFTED = [node("Sub", ["h", "half"], ["s"]), node("Relu", ["s"], ["z"])]
CONSTANTS = {"root": scalar(math.sqrt(2)), "thirty": scalar(30), "half": scalar(0.5)}


@pytest.mark.parametrize(
    ("nodes", "function"),
    [
        (BELL, lambda z: math.exp(-z * z)),
        (SNAKE, lambda z: z + math.sin(z) ** 2),
        (LOUD_LEAKY, lambda z: math.sqrt(2) * (z if z > 0 else 0.2 * z)),
        (SHIFTED, lambda z: max(0.0, z - 0.5)),
        ([node("LeakyRelu", ["h"], ["z"], alpha=0.3)], lambda z: z if z > 0 else 0.3 * z),
    ],
    ids=["bell", "snake", "StyleGAN's leaky ReLU", "shifted ReLU", "a slope of its own"],
)
def test_what_no_name_tells_is_evaluated(nodes: list[NodeProto], function: Callable[[float], float]) -> None:
    used = {value for each in nodes for value in each.input}
    layer = second(nodes, {name: value for name, value in CONSTANTS.items() if name in used})
    assert layer.input_known
    for z in (-4.0, -1.3, -0.01, 0.0, 0.002, 0.7, 2.0):
        assert layer.input_function(z) == pytest.approx(function(z), abs=0.02 * max(0.1, abs(z)))


@pytest.mark.parametrize("operator", ["Relu", "Tanh", "Sigmoid", "Elu", "LeakyRelu", "Identity"])
def test_known_ones_carry_nothing(operator: str) -> None:
    layer = second([node(operator, ["h"], ["z"])])
    assert (layer.input_values, layer.input_known) == ((), True)


def test_moves_are_looked_through() -> None:
    layer = second([node("Relu", ["h"], ["r"]), node("Reshape", ["r", "s"], ["z"])], {"s": np.array([-1, 4])})
    assert (layer.input_activation, layer.input_values, layer.input_known) == ("relu", (), True)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Softmax", ["h"], ["z"])],
        [node("Mul", ["h", "gamma"], ["z"])],
        [node("CumSum", ["h", "axis"], ["z"])],
        [node("Mul", ["h", "x"], ["z"])],
        [node("Relu", ["h"], ["r"]), node("Add", ["r", "x"], ["z"])],
    ],
    ids=["softmax", "a learned scale", "sum over positions", "gate", "skip connection"],
)
def test_what_is_no_function_of_single_values_is_not_known(nodes: list[NodeProto]) -> None:
    constants: dict[str, Array] = {"gamma": normal(4), "axis": np.array(0)}
    used = {value for each in nodes for value in each.input}
    assert not second(nodes, {name: value for name, value in constants.items() if name in used}).input_known


def test_the_gain_in_front_of_an_unknown_function_is_its_own() -> None:
    class Bell(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(-x * x) * x

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 64), Bell(), nn.Linear(64, 64))
    session = TorchSession(module, (torch.randn(4, 64),), {})
    layer = session.model.layer("2")
    z = torch.randn(100_000)
    power = float((torch.exp(-z * z) * z).square().mean())
    expected = math.sqrt(64 * float(module[2].weight.detach().square().mean()) * power)
    assert layer.input_activation == "elementwise"
    assert expected_gain(layer, session.stats()["2.weight"]) == pytest.approx(expected, rel=0.02)


def test_tables_interpolate_and_go_straight_on() -> None:
    cube = activations.tabulated(tuple(z**3 for z in activations.GRID))
    assert cube(1.0) == pytest.approx(1.0)
    assert cube(-2.03) == pytest.approx(-(2.03**3), rel=0.03)
    assert cube(200.0) > cube(100.0) == pytest.approx(1e6)
