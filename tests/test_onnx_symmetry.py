"""Units of a file's layer that stay equal are found among many that do not: block by block, at a bounded cost."""

from __future__ import annotations

import pytest
from models.graphs import Array, Graph
from onnx import ModelProto

import initlint
from initlint.plugin import Severity

UNITS = 192


def constant(alike: int) -> ModelProto:
    """All units of a layer are equal; of the next one, all weights that read the first ``alike`` of them."""

    def join(weight: Array) -> Array:
        weight[:, :alike] = weight[:, :1]
        return weight

    graph = Graph(changes={"0.weight": 0.03, "2.weight": join})
    x = graph.op("Relu", graph.linear("0", graph.input("x", ["batch", 16]), 16, UNITS))
    x = graph.op("Relu", graph.linear("2", x, UNITS, 24))
    return graph.model(graph.linear("4", x, 24, 4))


@pytest.mark.parametrize(("alike", "found"), [(UNITS, 191), (96, 95), (48, 47), (16, 11)])
def test_blocks_of_equal_units_are_found(alike: int, found: int) -> None:
    """Halves of 192 end at 12, so that of 16 equal units a block of 12 is seen, and what the budget leaves of 4."""
    (finding,) = initlint.check(constant(alike), select=["constant-weights"]).findings
    assert finding.severity is Severity.ERROR
    assert found <= int(str(finding.data["equal"])) < alike


def test_units_that_all_separate_cost_a_bounded_search() -> None:
    (finding,) = initlint.check(constant(1), select=["constant-weights"]).findings
    assert finding.severity is Severity.WARNING
    assert "equal" not in finding.data
