"""Tangents go through the bodies of If, Loop and Scan, with the slopes of what is in them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from probing import Opened, graph, probe

from initlint.probe.inputs import feeder_of
from initlint.probe.on_onnx import OnnxProbe
from initlint.probe.setup import Setup
from initlint.probe.signals import Forward
from initlint.probe.tangents import TangentRuns
from initlint.settings import ProbeSettings

BODIES = {
    "branch": """y = If (yes) <
        then_branch = b () => (float[m, n] o) { i = MatMul(x, weight)  o = Tanh(i) },
        else_branch = c () => (float[m, n] p) { p = Relu(x) }>""",
    "branch that hands on what is outside": """y = If (yes) <
        then_branch = b () => (float[m, n] o) { o = Identity(x) },
        else_branch = c () => (float[m, n] p) { p = Relu(x) }>""",
    "loop": """last, all = Loop (rounds, yes, x) <
        body = b (int64 i, bool go, float[m, n] h) => (bool on, float[m, n] s, float[m, n] t) {
            on = Identity(go)  product = MatMul(h, weight)  s = Relu(product)  t = Tanh(s) }>
        total = ReduceSum <keepdims=0> (all, first)  y = Add(total, last)""",
    "loop with a counter": """count, y = Loop (rounds, yes, number, x) <
        body = b (int64 i, bool go, int64 c, float[m, n] h) => (bool on, int64 d, float[m, n] s) {
            on = Identity(go)  d = Add(c, i)  q = Sin(h)  s = Mul(h, q) }>""",
    "scan": """last, all = Scan <num_scan_inputs=1, scan_input_axes=[1], scan_output_directions=[1],
        body = b (float[n] h, float[n] e) => (float[n] s, float[n] t) {
            r = Add(h, e)  s = Tanh(r)  t = Mul(s, e) }> (row, x)
        y = Mul(all, last)""",
    "scan whose state alone moves": """last = Scan <num_scan_inputs=1, body = b (float[n] h, float[n] e)
            => (float[n] s) { r = Mul(h, e)  s = Sin(r) }> (moving, weight)
        y = Add(last, last)""",
    "loop in a branch": """y = If (yes) <
        then_branch = b () => (float[m, n] o) { o = Loop (rounds, yes, x) <
            body = d (int64 i, bool go, float[m, n] h) => (bool on, float[m, n] s) {
                on = Identity(go)  w = MatMul(h, weight)  s = Tanh(w) }> },
        else_branch = c () => (float[m, n] p) { p = Relu(x) }>""",
}


@pytest.mark.parametrize("text", BODIES.values(), ids=BODIES)
def test_a_tangent_is_the_derivative(text: str) -> None:
    values = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    constants = {
        "weight": values[::-1] * 0.5, "yes": np.array(True), "rounds": np.array(3), "number": np.array(2),
        "first": np.array([0]), "row": values[1],
    }  # fmt: skip
    moving = "zero = Constant <value_int=0> ()  moving = Gather <axis=0> (x, zero)" if "moving" in text else ""
    used = {name: value for name, value in constants.items() if name in text}
    model = graph(f"g (float[4, 4] x) => (float[m, k] y) {{ {moving} {text} }}", 18, **used)
    direction = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)
    runs = _runs(model, values)
    found = runs.run({"x": direction}, 0).moves["y"]
    ends = [runs.run({}, 0, {"x": values + sign * 1e-3 * direction}).outputs["y"] for sign in (1.0, -1.0)]
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-3, atol=5e-3 * np.abs(found).max() + 1e-3)


def test_a_relu_in_a_loop_has_no_slope_at_zero() -> None:
    model = graph(
        """g (float[2, 2] x) => (float[2, 2] y) { y = Loop (rounds, yes, x) <
            body = b (int64 i, bool go, float[m, n] h) => (bool on, float[m, n] s) {
                on = Identity(go)  s = Relu(h) }> }""",
        18,
        rounds=np.array(2),
        yes=np.array(True),
    )
    moved = _runs(model, np.array([[0, 0], [0, -1]], np.float32)).run({"x": np.ones((2, 2), np.float32)}, 0)
    assert not moved.moves["y"].any()


def _runs(model: onnx.ModelProto, values: np.ndarray) -> TangentRuns:
    prepared = OnnxProbe(Opened(model, ()))._rewritten()
    feeder = feeder_of(prepared, ProbeSettings(inputs={"x": values}))
    setup = Setup(prepared, feeder, next(iter(feeder.attempts())), {}, None)
    setup.prepare()
    return TangentRuns(setup, ["x"], ["y"])


def test_nodes_may_share_a_name() -> None:
    """Names of nodes are optional, and exporters write the bodies of both branches alike."""
    model = graph(
        """g (float[4, 4] x) => (float[m, n] y) { h = MatMul(x, weight)  t = If (yes) <
        then_branch = b () => (float[m, n] o) { i = Tanh(h)  o = Relu(i) },
        else_branch = c () => (float[m, n] p) { p = Relu(h) }>  y = Relu(t) }""",
        18,
        weight=np.eye(4, dtype=np.float32),
        yes=np.array(True),
    )
    for each in (*model.graph.node, *(n for a in model.graph.node[1].attribute for n in a.g.node)):
        each.name = "node"
    assert probe(model).forward is Forward.MEASURED
