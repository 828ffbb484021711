"""Schemes drawn with another layer's idea of fans: told where no norm hides it, loud where it adds up."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import onnx
from models.graphs import Array, Graph, mlp

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING, NOTE = Severity.WARNING, Severity.NOTE


def redrawn(variance: float, uniform: bool = False) -> object:
    def change(weight: Array) -> Array:
        rng = np.random.default_rng(weight.size + 1)
        values = (
            rng.uniform(-math.sqrt(3), math.sqrt(3), weight.shape) if uniform else rng.standard_normal(weight.shape)
        )
        return (values * math.sqrt(variance)).astype(np.float32)

    return change


def separable(
    seed: int = 0, variance: float = 2 / 9, group: int = 32, depth: int = 4, norm: bool = False, uniform: bool = False
) -> onnx.ModelProto:
    """Grouped convolutions of the given variance and pointwise ones in turn, 32 channels wide."""
    graph = Graph(seed, {f"group.{i}.weight": redrawn(variance, uniform) for i in range(depth)})
    x = graph.op("Relu", graph.conv("stem", graph.input("x", ["batch", 3, 8, 8]), 3, 32))
    for i in range(depth):
        x = graph.conv(f"group.{i}", x, 32, 32, group=group)
        x = graph.op("Relu", graph.norm(f"norm.{i}", x, 32) if norm else x)
        x = graph.op("Relu", graph.conv(f"point.{i}", x, 32, 32, kernel=1))
    return graph.model(graph.conv("head", x, 32, 4, kernel=1))


def decoder(seed: int = 0, swapped: bool = False) -> onnx.ModelProto:
    """Transposed convolutions (in, out, 4, 4) of stride 2: four positions of the kernel meet in one output."""
    graph = Graph(seed)
    x, inputs = graph.input("x", ["batch", 64, 2, 2]), 64
    for outputs in (32, 16, 1):
        fan = (outputs if swapped else inputs) * 4
        weight = graph.normal(f"up.{outputs}.weight", inputs, outputs, 4, 4, std=math.sqrt(2 / fan))
        x = graph.op("Relu", graph.op("ConvTranspose", x, weight, strides=[2, 2], pads=[1] * 4))
        inputs = outputs
    return graph.model(x)


groups = [f"group.{i}.weight" for i in range(4)]


@cases(
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("depthwise convolutions by their own fans", separable, notes_ok=False),
    Good("LeCun's scheme", partial(separable, variance=1 / 9), notes_ok=False),
    Good("transposed convolutions by their own fans", decoder, notes_ok=False),
    Good("PyTorch's default", partial(separable, variance=1 / 27, uniform=True), notes_ok=False),
    Good("near miss: a norm hides the scale", partial(separable, variance=2 / 288, norm=True), notes_ok=False),
    Good("near miss: nobody's scheme", partial(separable, variance=1 / 60, group=1), notes_ok=False),
    Good("near miss: half the groups, two layers", partial(separable, variance=2 / 288, group=2, depth=2)),
    Bad("depthwise, the fan-out of all groups", partial(separable, variance=2 / 288), groups[:1], WARNING),
    Bad("one such layer", partial(separable, variance=2 / 288, depth=1), groups[:1], NOTE),
    Bad("grouped", partial(separable, variance=2 / 288, group=16, depth=4), groups[:1], WARNING),
    Bad(
        "swapped fans of transposed convolutions",
        partial(decoder, swapped=True),
        ["up.32.weight"],
        WARNING,
    ),
)
def test_fan_mismatch(case: Case) -> None:
    check("fan-mismatch", case, seeds=(0,))
