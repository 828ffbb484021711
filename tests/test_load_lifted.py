"""Weights inside the bodies of If, Loop and Scan can be changed like all others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from loading import Array, node, normal, proto
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

import initlint
from initlint.load.from_onnx import open_onnx
from initlint.plugin import Severity

SIZE = 16


def he(seed: int) -> Array:
    return normal(SIZE, SIZE, seed=seed) * np.float32((2 / SIZE) ** 0.5)


def body(
    nodes: list[onnx.NodeProto], weights: dict[str, Array], inputs: dict[str, int], outputs: list[str]
) -> GraphProto:
    return helper.make_graph(
        nodes,
        "body",
        [
            helper.make_tensor_value_info(name, kind, None if kind == TensorProto.FLOAT else [])
            for name, kind in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )


def branches(change: float = 1.0, way: str = "initializer") -> ModelProto:
    """x W, then relu and V in one of two branches, whose values have the same names."""

    def branch(seed: int) -> GraphProto:
        weight = he(seed) * np.float32(change if seed == 2 else 1)
        nodes = [node("Relu", ["m"], ["r"]), node("MatMul", ["r", "inner"], ["o"])]
        if way == "constant":
            nodes.insert(0, node("Constant", [], ["inner"], value=numpy_helper.from_array(weight)))
        if way == "transposed":
            nodes = [node("Transpose", ["stored"], ["inner"], perm=[1, 0]), *nodes]
        stored = {"initializer": {"inner": weight}, "transposed": {"stored": weight}}.get(way, {})
        return body(nodes, stored, {}, ["o"])

    nodes = [
        node("MatMul", ["x", "outer"], ["m"]),
        node("If", ["yes"], ["c"], then_branch=branch(2), else_branch=branch(3)),
        node("Relu", ["c"], ["d"]),
        node("MatMul", ["d", "head"], ["y"]),
    ]
    weights = {"outer": he(0), "head": he(1), "yes": np.array(True)}
    return proto(nodes, weights, {"x": ["batch", SIZE]})


def loop(change: float = 1.0, handed_in: bool = False) -> ModelProto:
    """relu(h W) three times; W is the body's own, or goes round as a state that never changes."""
    weight = he(2) * np.float32(change)
    steps = [node("Identity", ["go"], ["on"]), node("MatMul", ["h", "w"], ["m"]), node("Relu", ["m"], ["n"])]
    given = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "h": TensorProto.FLOAT}
    results, ends = ["n"], ["r"]
    if handed_in:
        steps.append(node("Identity", ["w"], ["kept"]))
        given |= {"w": TensorProto.FLOAT}
        results, ends = ["n", "kept"], ["r", "same"]
    inner = body(steps, {} if handed_in else {"w": weight}, given, results)
    inner.output.insert(0, helper.make_tensor_value_info("on", TensorProto.BOOL, []))
    nodes = [
        node("MatMul", ["x", "outer"], ["a"]),
        node("Loop", ["rounds", "yes", "a", *(["w0"] if handed_in else [])], ends, body=inner),
        node("MatMul", ["r", "head"], ["y"]),
    ]
    weights = {"outer": he(0), "head": he(1), "rounds": np.array(3), "yes": np.array(True)}
    return proto(nodes, weights | ({"w0": weight} if handed_in else {}), {"x": ["batch", SIZE]})


@pytest.mark.parametrize("way", ["initializer", "constant", "transposed"])
def test_the_fix_of_a_weight_in_a_branch_is_tried(way: str) -> None:
    report = initlint.check(branches(0.0, way))
    (headline,) = report.headlines
    assert (headline.rule, headline.severity, headline.verified) == ("zero-weights", Severity.ERROR, True)
    assert "then_branch" in headline.address
    assert not [entry for entry in report.not_checked if entry.at == "the fixes"]


@pytest.mark.parametrize("handed_in", [False, True], ids=["the body's own", "handed in"])
def test_the_fix_of_a_weight_in_a_loop_is_tried(handed_in: bool) -> None:
    report = initlint.check(loop(float("nan"), handed_in))
    (headline,) = report.headlines
    assert (headline.rule, headline.verified) == ("non-finite-weights", True)


@pytest.mark.parametrize("build", [branches, loop])
def test_healthy_bodies_stay_clean(build: object) -> None:
    assert not initlint.check(build()).headlines  # type: ignore[operator]


def test_addresses_stay_and_branches_keep_their_own_weights() -> None:
    opened = open_onnx(branches().SerializeToString())
    inner = [tensor.address for tensor in opened.model.tensors if tensor.address.endswith("/inner")]
    assert [address.split("/")[1] for address in inner] == ["else_branch", "then_branch"] or len(inner) == 2
    for address in inner:
        np.testing.assert_array_equal(
            np.concatenate(list(opened.chunks(address))), he(2 if "then" in address else 3).T, err_msg=address
        )


def test_what_a_body_computes_cannot_be_changed_and_says_so() -> None:
    model = branches()
    branch = next(attribute.g for attribute in model.graph.node[1].attribute if attribute.name == "then_branch")
    branch.initializer[0].name = "half"
    branch.node.insert(0, node("Add", ["half", "half"], ["inner"]))
    report = initlint.check(model)
    assert any("no fix can be tried" in entry.reason for entry in report.not_checked)
    assert not [entry for entry in report.not_checked if entry.at == "the fixes"]
