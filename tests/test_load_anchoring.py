"""A weight that is transposed or reshaped anew for every use is changed for all of its uses."""

from __future__ import annotations

import numpy as np
import pytest
from models.graphs import Array, Graph
from onnx import ModelProto

import initlint
from initlint.load.from_onnx import open_onnx

SIZE, USES = 24, 3


def shared(way: str, broken: bool = False) -> ModelProto:
    def damage(weight: Array) -> Array:
        weight.flat[7] = np.nan
        return weight

    graph = Graph(changes={"core.weight": damage} if broken else {})
    x = graph.input("x", ["batch", 5, SIZE])
    shape = {"transpose": (SIZE, SIZE), "reshape": (SIZE * SIZE,), "both": (1, SIZE, SIZE)}[way]
    weight = graph.normal("core.weight", *shape, std=(2 / SIZE) ** 0.5)
    square = graph.tensor("square", np.array([SIZE, SIZE]))
    for _ in range(USES):
        own = weight if way == "transpose" else graph.op("Reshape", weight, square)
        own = own if way == "reshape" else graph.op("Transpose", own, perm=[1, 0])
        x = graph.op("Relu", graph.op("MatMul", x, own))
    return graph.model(graph.matmul("head", x, SIZE, 4))


@pytest.mark.parametrize("way", ["transpose", "reshape", "both"])
def test_the_stored_value_is_changed(way: str) -> None:
    opened = open_onnx(shared(way).SerializeToString())
    rows = np.concatenate(list(opened.chunks("core.weight")))
    name, stored = opened.stored("core.weight", rows + 1)
    assert name == "core.weight"
    original = opened.constants.array("core.weight")
    assert original is not None
    np.testing.assert_allclose(stored, original + 1)


@pytest.mark.parametrize("way", ["transpose", "reshape", "both"])
def test_a_fix_of_a_shared_weight_cures_all_of_its_uses(way: str) -> None:
    (headline,) = initlint.check(shared(way, broken=True)).headlines
    assert (headline.rule, headline.address, headline.verified) == ("non-finite-weights", "core.weight", True)


def test_a_weight_of_one_layer_stays_with_the_value_that_it_reads() -> None:
    """Its gradient steps then need no transposition of their own."""
    graph = Graph()
    x, weight = graph.input("x", ["batch", SIZE]), graph.normal("only.weight", SIZE, SIZE, std=0.1)
    turned = graph.op("Transpose", weight, perm=[1, 0])
    opened = open_onnx(graph.model(graph.op("MatMul", x, turned)).SerializeToString())
    assert opened.stored("only.weight", np.zeros((SIZE, SIZE), np.float32))[0] == turned
