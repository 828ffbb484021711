"""Loops over stacked layers are written out: every round's matrix is a layer of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from loading import Array, node, normal, opened, proto
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

import initlint
from initlint.load import unrolled
from initlint.load.from_onnx import open_onnx
from initlint.plugin import Severity

SIZE, DEPTH = 16, 4


def stack(changed: int = -1, factor: float = 0.0, seed: int = 0) -> Array:
    """He-initialised matrices of ``DEPTH`` layers, one of them multiplied."""
    weights = normal(DEPTH, SIZE, SIZE, seed=seed) * np.float32((2 / SIZE) ** 0.5)
    if changed >= 0:
        weights[changed] *= np.float32(factor)
    return weights


def body(nodes: list[NodeProto], inputs: dict[str, int], outputs: dict[str, int], **stored: Array) -> GraphProto:
    def told(values: dict[str, int]) -> list[Any]:
        flat = (TensorProto.INT64, TensorProto.BOOL)
        return [
            helper.make_tensor_value_info(name, kind, [] if kind in flat else None) for name, kind in values.items()
        ]

    tensors = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    return helper.make_graph(nodes, "body", told(inputs), told(outputs), tensors)


F, N, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
ROUND = [node("MatMul", ["h", "w"], ["m"], name="fc"), node("Add", ["m", "b"], ["a"]), node("Relu", ["a"], ["n"])]
HEAD = {"head": normal(SIZE, 3, seed=9) / np.float32(4), "bs": np.zeros((DEPTH, SIZE), np.float32)}


def scanned(weights: Array, axis: int = 0, backward: int = 0) -> ModelProto:
    """What ``lax.scan`` over layers becomes; every round's activations are an output too."""
    inner = body([*ROUND, node("Identity", ["n"], ["each"])], {"h": F, "w": F, "b": F}, {"n": F, "each": F})
    orders = {"scan_input_axes": [axis, 0], "scan_input_directions": [backward, backward]}
    orders |= {"scan_output_axes": [1], "scan_output_directions": [backward]}
    nodes = [
        node("Scan", ["x", "ws", "bs"], ["r", "all"], body=inner, num_scan_inputs=2, **orders),
        node("MatMul", ["r", "head"], ["y"]),
    ]
    stored = np.ascontiguousarray(np.moveaxis(weights, 0, axis))
    return proto(nodes, {"ws": stored, **HEAD}, {"x": ["batch", SIZE]}, ["y", "all"])


def counted(weights: Array, carried: bool = False) -> ModelProto:
    """A Loop that looks its matrix up: by the number of the round, or by a counter of its own (``fori_loop``)."""
    place = "k" if carried else "i"
    steps = [
        node("Identity", ["go"], ["on"]),
        node("Gather", ["ws", place], ["w"], axis=0),
        node("Gather", ["bs", place], ["b"], axis=0),
        *ROUND,
    ]
    inputs, outputs, starts, ends = {"i": N, "go": B, "h": F}, {"on": B, "n": F}, ["x"], ["r"]
    if carried:
        steps += [node("Constant", [], ["one"], value_int=1), node("Add", ["k", "one"], ["next"])]
        inputs, outputs, starts, ends = inputs | {"k": N}, outputs | {"next": N}, ["x", "none"], ["r", "last"]
    nodes = [
        node("Loop", ["rounds", "yes", *starts], ends, body=body(steps, inputs, outputs)),
        node("MatMul", ["r", "head"], ["y"]),
    ]
    weights = {"ws": weights, "rounds": np.array(DEPTH), "yes": np.array(True), "none": np.array(0), **HEAD}
    return proto(nodes, weights, {"x": ["batch", SIZE]})


def branching(weights: Array) -> ModelProto:
    """The body's own branches read the round's matrix; its own tensors are stored once."""
    straight = body([node("Gemm", ["h", "w", "b"], ["m"])], {}, {"m": F})
    doubled = body([node("Gemm", ["h", "w", "two"], ["m"])], {}, {"m": F})
    steps = [
        node("If", ["yes"], ["c"], then_branch=straight, else_branch=doubled),
        node("Mul", ["c", "unit"], ["d"]),
        node("Relu", ["d"], ["n"]),
    ]
    inner = body(steps, {"h": F, "w": F, "b": F}, {"n": F}, unit=np.ones(SIZE, np.float32), two=HEAD["bs"][0])
    nodes = [
        node("Scan", ["x", "ws", "bs"], ["r"], body=inner, num_scan_inputs=2),
        node("MatMul", ["r", "head"], ["y"]),
    ]
    return proto(nodes, {"ws": weights, "yes": np.array(True), **HEAD}, {"x": ["batch", SIZE]})


def along_another_axis(weights: Array) -> ModelProto:
    return scanned(weights, axis=1)


def from_the_last_to_the_first(weights: Array) -> ModelProto:
    return scanned(weights, backward=1)


def with_a_counter(weights: Array) -> ModelProto:
    return counted(weights, carried=True)


WAYS = [scanned, along_another_axis, from_the_last_to_the_first, counted, with_a_counter, branching]


def values(model: ModelProto) -> list[Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": normal(5, SIZE, seed=3)}))


def unrolled_kinds(model: ModelProto) -> set[str]:
    unrolled.unroll(model, None)
    return {each.op_type for each in model.graph.node}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_written_out_computes_the_same(way: Any) -> None:
    model = way(stack())
    model.ir_version = 10
    before = values(model)
    assert unrolled_kinds(model).isdisjoint({"Scan", "Loop"})
    for one, other in zip(before, values(model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_healthy_stacks_are_clean(way: Any) -> None:
    report = initlint.check(way(stack()))
    assert (report.headlines, report.not_checked) == ((), ())
    assert len(report.layers) >= DEPTH + 1


@pytest.mark.parametrize("way", [scanned, counted, with_a_counter])
@pytest.mark.parametrize(("factor", "rule"), [(0.0, "zero-weights"), (float("nan"), "non-finite-weights")])
def test_one_bad_matrix_of_a_stack_is_named(way: Any, factor: float, rule: str) -> None:
    (headline,) = initlint.check(way(stack(2, factor))).headlines
    assert (headline.rule, headline.address, headline.severity) == (rule, "ws[2]", Severity.ERROR)
    assert headline.verified


def test_a_zero_gain_is_no_fault_of_the_shift() -> None:
    steps = [node("LayerNormalization", ["h", "g", "zero"], ["l"]), *ROUND, node("Add", ["n", "h"], ["s"])]
    steps[1] = node("MatMul", ["l", "w"], ["m"])
    inner = body(steps, {"h": F, "w": F, "b": F, "g": F}, {"s": F}, zero=np.zeros(SIZE, np.float32))
    nodes = [
        node("Scan", ["x", "ws", "bs", "gs"], ["r"], body=inner, num_scan_inputs=3),
        node("MatMul", ["r", "head"], ["y"]),
    ]
    gains = np.ones((DEPTH, SIZE), np.float32)
    gains[1] = 0
    report = initlint.check(proto(nodes, {"ws": stack(), "gs": gains, **HEAD}, {"x": ["batch", SIZE]}))
    assert [(each.rule, each.address) for each in report.headlines] == [("zero-norm-gain", "gs[1]")]


def recurrence() -> ModelProto:
    """A Scan over time, whose rounds share their weights; a code of the position is scanned beside the inputs."""
    steps = [node("Add", ["t", "p"], ["q"]), node("MatMul", ["q", "w"], ["a"]), node("MatMul", ["h", "v"], ["c"])]
    steps += [node("Add", ["a", "c"], ["s"]), node("Tanh", ["s"], ["n"])]
    nodes = [
        node("Scan", ["h0", "x", "ps"], ["r"], body=body(steps, {"h": F, "t": F, "p": F}, {"n": F}), num_scan_inputs=2),
        node("MatMul", ["r", "head"], ["y"]),
    ]
    weights = {"w": stack()[0], "v": stack()[1], "ps": HEAD["bs"], "h0": np.zeros((2, SIZE), np.float32), **HEAD}
    return proto(nodes, weights, {"x": [DEPTH, 2, SIZE]})


def until_told(weights: Array) -> ModelProto:
    """The data say when to stop."""
    model = counted(weights)
    inner = model.graph.node[0].attribute[0].g
    del inner.node[0]
    for each in (node("ReduceMax", ["n"], ["top"], keepdims=0), node("Less", ["top", "most"], ["on"])):
        inner.node.append(each)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1e3), "most"))
    return model


def test_loops_that_share_their_weights_stay() -> None:
    assert "Scan" in unrolled_kinds(recurrence())


def test_loops_that_the_data_end_stay() -> None:
    assert "Loop" in unrolled_kinds(until_told(stack()))


def test_too_long_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrolled, "MAX_NODES", 5)
    assert "Scan" in unrolled_kinds(scanned(stack()))


def test_names_that_are_taken_are_not_written_again() -> None:
    model = scanned(stack())
    model.graph.node.append(node("Identity", ["y"], ["Scan_0/body/0/m"]))
    found = open_onnx(model.SerializeToString())
    assert [layer.weight.address for layer in found.model.layers][:DEPTH] == [f"ws[{i}]" for i in range(DEPTH)]


@pytest.mark.parametrize("broken", ["states", "slices", "lengths"])
def test_loops_that_contradict_themselves_do_not_stop_anything(broken: str) -> None:
    model = scanned(stack())
    scan = model.graph.node[0]
    if broken == "states":
        del scan.input[1:]
    elif broken == "slices":
        next(each for each in scan.attribute if each.name == "num_scan_inputs").i = 7
    else:
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(stack()[:2], "ws"))
    open_onnx(model.SerializeToString())


def test_nested_stacks_are_written_out_as_well() -> None:
    inner = body(ROUND, {"h": F, "w": F, "b": F}, {"n": F})
    outer = body(
        [node("Scan", ["g", "wo", "bs"], ["o"], body=inner, num_scan_inputs=2)],
        {"g": F, "wo": F},
        {"o": F},
    )
    both = np.stack([stack(), stack(seed=1)])
    nodes = [
        node("Scan", ["x", "ws"], ["r"], body=outer, num_scan_inputs=1),
        node("MatMul", ["r", "head"], ["y"]),
    ]
    found = opened(nodes, {"ws": both, **HEAD}, {"x": ["batch", SIZE]})
    addresses = {layer.weight.address for layer in found.model.layers}
    assert len([each for each in addresses if each.startswith("ws[")]) == 2 * DEPTH
