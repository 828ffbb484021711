"""Units that start identical separate if a neighbour tells them apart, and never do if it is constant too."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from models import Fault, batchnorm_resnet, lstm, relu_mlp, vit
from models.altered import altered, planted
from models.graphs import Graph, mlp
from models.published import forecaster

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def all_constant(seed: int = 0) -> onnx.ModelProto:
    """Weights that come from ConstantOfShape nodes, as in the onnx package's own test models."""
    graph = Graph(seed)
    x = graph.input("x", ["batch", 3, 8, 8])
    for index, (inputs, units) in enumerate([(3, 8), (8, 8), (8, 4)]):
        shape = graph.tensor(f"shape{index}", np.array([units, inputs, 3, 3]))
        value = onnx.numpy_helper.from_array(np.array([0.02], np.float32))
        weight = graph.op("ConstantOfShape", shape, value=value)
        graph.nodes[-1].output[0] = weight = f"conv{index}.weight"
        x = graph.op("Conv", x, weight, pads=[1, 1, 1, 1])
        if index < 2:
            x = graph.op("Relu", x)
    return graph.model(x)


def box_filter(seed: int = 0) -> onnx.ModelProto:
    graph = Graph(seed, {"blur.weight": 1 / 9})
    x = graph.op("Relu", graph.conv("conv1", graph.input("x", ["batch", 3, 8, 8]), 3, 8))
    return graph.model(graph.conv("conv2", graph.conv("blur", x, 8, 8, group=8), 8, 4))


def through_norm(seed: int = 0) -> onnx.ModelProto:
    graph = Graph(seed, {"conv1.weight": 0.1, "conv2.weight": 0.2})
    x = graph.norm("norm", graph.conv("conv1", graph.input("x", ["batch", 3, 8, 8]), 3, 8), 8)
    return graph.model(graph.conv("conv2", graph.op("Relu", x), 8, 4))


@cases(
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("biases, gains and shifts are constant by design", batchnorm_resnet, notes_ok=False, exporters=("legacy",)),
    Good("near miss: a head of one unit", partial(mlp, outputs=1, changes={"6.weight": 0.1}), notes_ok=False),
    Good(
        "near miss: one value differs",
        partial(mlp, changes={"2.weight": lambda w: np.full_like(w, 0.1) + 0.1 * (w == w.max())}),
    ),
    Good(
        "near miss: zeros are another rule's", partial(mlp, changes={"2.weight": 0.0, "4.weight": 0.0}), notes_ok=False
    ),
    Good(
        "near miss: a recurrence of one unit",
        planted(lstm, Fault.CONSTANT, "cell.weight_ih_l0", "cell.weight_hh_l0", width=1),
        exporters=("legacy",),
    ),
    Bad("a box filter per channel", box_filter, ["blur.weight"], NOTE),
    Good("near miss: a linear forecaster at one over its length", forecaster),
    Good("near miss: two of them, summed", partial(forecaster, parts=2)),
    Bad("one layer between drawn ones", planted(relu_mlp, Fault.CONSTANT, "2.weight"), ["2.weight"], WARNING),
    Bad("the first layer", partial(mlp, changes={"0.weight": 0.1}), ["0.weight"], WARNING),
    Bad("a head of ten units", partial(mlp, changes={"6.weight": -0.1}), ["6.weight"], WARNING),
    Bad("two neighbours", partial(mlp, changes={"2.weight": 0.1, "4.weight": 0.2}), ["2.weight", "4.weight"], ERROR),
    Bad(
        "two that are no neighbours",
        partial(mlp, depth=5, changes={"0.weight": 0.1, "4.weight": 0.1}),
        ["0.weight", "4.weight"],
        WARNING,
    ),
    Bad("two neighbours with a norm between", through_norm, ["conv1.weight", "conv2.weight"], ERROR),
    Bad("all layers, from ConstantOfShape", all_constant, ["conv0.weight", "conv1.weight", "conv2.weight"], ERROR),
    Bad(
        "both halves of a recurrence",
        planted(lstm, Fault.CONSTANT, "cell.weight_ih_l0", "cell.weight_hh_l0"),
        ["cell.weight_ih_l0", "cell.weight_hh_l0"],
        WARNING,
    ),
    Bad(
        "the input half of a recurrence",
        planted(lstm, Fault.CONSTANT, "cell.weight_ih_l0"),
        ["cell.weight_ih_l0"],
        WARNING,
        exporters=("legacy",),
    ),
    Bad(
        "query, key and value",
        altered(vit, lambda m: m.blocks[0].attention.qkv.weight.fill_(0.02)),
        ["blocks.0.attention.qkv.weight"],
        ERROR,
        exporters=(),  # in a file a packed projection has no rows of its own
    ),
    Bad(
        "a table",
        planted(lstm, Fault.CONSTANT, "embedding.weight"),
        ["embedding.weight"],
        WARNING,
        exporters=("legacy",),
    ),
)
def test_constant_weights(case: Case) -> None:
    check("constant-weights", case, seeds=(0,))
