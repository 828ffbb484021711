"""Write the two example models: a small classifier with typical initialisation mistakes, and the same one repaired.

    python examples/make_examples.py [FOLDER]

Both are multilayer perceptrons for 8x8 digits, named and shaped as ``torch.onnx.export`` would write this module:

    self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), ..., nn.Linear(64, 10))

The same files come out on every machine: opset, IR version and random seed are fixed.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (64, 64, 64, 64, 64, 10)
OPSET = 17
IR_VERSION = 8  # the oldest that opset 17 allows, so that old tools can open the files too
SEED = 20

Parameters = dict[str, NDArray[np.float32]]


def healthy_parameters() -> Parameters:
    """He-normal weights (He et al. 2015) and zero biases."""
    rng = np.random.default_rng(SEED)
    parameters: Parameters = {}
    for position, (fan_in, units) in enumerate(pairwise(WIDTHS)):
        weight = rng.standard_normal((units, fan_in)) * np.sqrt(2.0 / fan_in)
        parameters[f"layers.{2 * position}.weight"] = weight.astype(np.float32)
        parameters[f"layers.{2 * position}.bias"] = np.zeros(units, np.float32)
    return parameters


def broken_parameters() -> Parameters:
    """The healthy ones with four mistakes, each in a layer of its own."""
    parameters = healthy_parameters()
    parameters["layers.0.bias"][16:] = -10.0  # a prior for rare classes, given to the wrong layer: its ReLUs never open
    parameters["layers.2.weight"] *= 100.0  # nn.init.normal_(weight, std=17) for std=0.17
    parameters["layers.4.weight"][:] = 0.01  # nn.init.constant_(weight, 0.01): all units compute the same
    parameters["layers.6.weight"][:] = 0.0  # nn.init.zeros_(weight) in a hidden layer
    return parameters


def classifier(parameters: Parameters) -> onnx.ModelProto:
    """The network as a chain of Gemm and Relu nodes with the given parameters."""
    nodes = []
    value = "x"
    last = len(WIDTHS) - 2
    for position in range(last + 1):
        scope = f"/layers/layers.{2 * position}"
        weight, bias = f"layers.{2 * position}.weight", f"layers.{2 * position}.bias"
        output = "logits" if position == last else f"{scope}/Gemm_output_0"
        nodes.append(helper.make_node("Gemm", [value, weight, bias], [output], name=f"{scope}/Gemm", transB=1))
        value = output
        if position < last:
            scope = f"/layers/layers.{2 * position + 1}"
            nodes.append(helper.make_node("Relu", [value], [f"{scope}/Relu_output_0"], name=f"{scope}/Relu"))
            value = f"{scope}/Relu_output_0"
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTHS[0]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", WIDTHS[-1]])],
        [numpy_helper.from_array(values, name) for name, values in parameters.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="initlint-examples")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


EXAMPLES = {"broken_mlp.onnx": broken_parameters, "healthy_mlp.onnx": healthy_parameters}


def write(folder: Path) -> None:
    """Write every example into ``folder``."""
    for name, parameters in EXAMPLES.items():
        (folder / name).write_bytes(classifier(parameters()).SerializeToString(deterministic=True))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
