"""A default export in evaluation mode folds batch norms into convolutions; an honest one keeps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
from models import Built, batchnorm_resnet, mobilenet, relu_cnn
from models.graphs import Graph, mlp

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Exporter, Good, cases, check, default_export

NOTE = Severity.NOTE


def by_default(build: Callable[..., Built], exporter: Exporter, **options: Any) -> Callable[..., onnx.ModelProto]:
    def exported(seed: int = 0) -> onnx.ModelProto:
        return default_export(*build(seed, **options), exporter)

    return exported


def zero_biases(seed: int = 0) -> onnx.ModelProto:
    """Convolutions with biases of zero that nobody folded, named as PyTorch names them."""
    graph = Graph(seed)
    x = graph.input("x", ["batch", 3, 8, 8])
    for index, inputs in enumerate([3, 8]):
        weight = graph.normal(f"{index}.weight", 8, inputs, 3, 3, std=0.1)
        bias = graph.tensor(f"{index}.bias", 0 * graph.rng.standard_normal(8).astype("float32"))
        x = graph.op("Relu", graph.op("Conv", x, weight, bias, pads=[1, 1, 1, 1]))
    return graph.model(x)


def renamed(weight: str, bias: str, producer: str) -> Callable[[int], onnx.ModelProto]:
    """The same, with names as another exporter, or nobody in particular, gives them."""

    def build(seed: int = 0) -> onnx.ModelProto:
        proto = zero_biases(seed)
        proto.producer_name = producer
        for index, node in enumerate(node for node in proto.graph.node if node.op_type == "Conv"):
            for tensor in proto.graph.initializer:
                if tensor.name in (node.input[1], node.input[2]):
                    tensor.name = (weight if tensor.name == node.input[1] else bias).format(2 * index, 2 * index + 1)
            node.input[1], node.input[2] = (name.format(2 * index, 2 * index + 1) for name in (weight, bias))
        return proto

    return build


@cases(
    Good("no batch norm at all", mlp, notes_ok=False),
    Good("honest export of a residual net", batchnorm_resnet, notes_ok=False),
    Good("near miss: default export without a batch norm", by_default(relu_cnn, "dynamo"), notes_ok=False),
    Good("near miss: convolutions with zero biases of their own", zero_biases, notes_ok=False),
    Good("near miss: zero biases beside numbered weights", renamed("const_{0}", "bias_{0}", "mine"), notes_ok=False),
    Good("near miss: exporter that numbers all", renamed("const_{0}", "const_{1}", "jax2onnx"), notes_ok=False),
    Good("near miss: names with a suffix", renamed("w{0}", "w{0}_bias", ""), notes_ok=False),
    Bad("default export of a residual net, legacy", by_default(batchnorm_resnet, "legacy"), [""], NOTE),
    Bad("default export of a residual net, dynamo", by_default(batchnorm_resnet, "dynamo"), [""], NOTE),
    Bad("default export of a MobileNet, legacy", by_default(mobilenet, "legacy"), [""], NOTE),
)
def test_folded_norm(case: Case) -> None:
    check("folded-norm", case, seeds=(0,))


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
def test_rules_of_scale_and_signal_give_way_and_say_so(exporter: Exporter) -> None:
    report = initlint.check(by_default(batchnorm_resnet, exporter)(0))
    assert [(finding.rule, finding.severity) for finding in report.headlines] == [("folded-norm", NOTE)]
    silenced = {entry.rule for entry in report.skipped_rules if entry.reason == "gives way to folded-norm"}
    assert {"variance-mismatch", "exploding-signal", "vanishing-signal", "dead-units"} <= silenced
    assert "optimize=False" in report.headlines[0].fix.code
