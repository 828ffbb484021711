"""Tangents of graphs: each operator's derivative, and what files say of gradients, liveness and symmetry by it."""

from __future__ import annotations

from functools import partial

import models
import numpy as np
import onnx
import pytest
from models import deadlocks, graphs, tokens
from probing import Opened, graph

import initlint
from initlint.plugin import Liveness
from initlint.probe.inputs import feeder_of
from initlint.probe.on_onnx import OnnxProbe
from initlint.probe.onnx_rows import LearntRows
from initlint.probe.runtime import RuntimeFailure
from initlint.probe.setup import Setup
from initlint.probe.signals import Backward, Signals
from initlint.probe.tangents import TangentRuns
from initlint.session import open_session
from initlint.settings import ProbeSettings
from initlint.testing import Build, honest_export

pytestmark = pytest.mark.usefixtures("opened_here")

OPERATORS = {
    "relu": "Relu(x)",
    "leaky relu": "LeakyRelu <alpha=0.2> (x)",
    "sigmoid": "Sigmoid(x)",
    "tanh": "Tanh(x)",
    "erf": "Erf(x)",
    "selu, by differences": "Selu(x)",
    "softplus": "Softplus(x)",
    "exp": "Exp(x)",
    "square root": "Sqrt(positive)",
    "logarithm": "Log(positive)",
    "reciprocal": "Reciprocal(positive)",
    "power": "Pow(positive, three)",
    "absolute value": "Abs(x)",
    "sine": "Sin(x)",
    "cosine": "Cos(x)",
    "product": "Mul(x, positive)",
    "quotient": "Div(x, positive)",
    "difference": "Sub(row, x)",
    "larger of two": "Max(x, positive)",
    "matrix product": "MatMul(x, turned)",
    "gemm": "Gemm <alpha=0.5, beta=2.0> (x, turned, first)",
    "softmax": "Softmax <axis=-1> (x)",
    "softmax over samples": "Softmax <axis=0> (x)",
    "logarithm of softmax": "LogSoftmax <axis=-1> (x)",
    "layer norm": "LayerNormalization <axis=-1> (x, row, row)",
    "sum of squares": "ReduceSumSquare <keepdims=1> (x, one)",
    "maximum, by differences": "ReduceMax <keepdims=1> (x, one)",
    "concatenation": "Concat <axis=0> (x, constant)",
    "choice": "Where(chosen, x, constant)",
    "clamp": "Clip(x, low, high)",
}


@pytest.mark.parametrize("expression", OPERATORS.values(), ids=OPERATORS)
def test_a_tangent_is_the_derivative(expression: str) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    weights = {
        "three": np.float32(3), "one": np.array([1]), "constant": values[::-1] * 2, "low": np.float32(-0.5),
        "high": np.float32(0.7), "chosen": values > 0.1,
    }  # fmt: skip
    model = graph(
        f"""g (float[3, 4] x) => (float[m, n] y) {{
            square = Mul(x, x)  half = Constant <value_float=0.5> ()  positive = Add(square, half)
            turned = Transpose <perm=[1, 0]> (x)
            zero = Constant <value_int=0> ()  row = Gather <axis=0> (x, zero)
            first = ReduceMean <keepdims=1> (x)  y = {expression}
        }}""",
        **weights,
    )
    direction = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    runs = _runs(model, values, ["x"])
    found = runs.run({"x": direction}, 0).moves["y"]
    ends = [runs.run({}, 0, {"x": values + sign * 1e-3 * direction}).outputs["y"] for sign in (1.0, -1.0)]
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-3, atol=2e-2 * np.abs(found).max() + 1e-3)


def test_a_tangent_keeps_its_own_magnitude() -> None:
    """A difference of two runs would round 1e-15 away."""
    model = graph(
        """g (float[2, 2] x) => (float[2, 2] y) {
            small = Constant <value_float=1e-15> ()  quiet = Mul(x, small)
            one = Constant <value_float=1.0> ()  y = Add(quiet, one)
        }"""
    )
    direction = np.ones((2, 2), np.float32)
    assert _runs(model, direction, ["x"]).run({"x": direction}, 0).moves["y"] == pytest.approx(1e-15)


def test_relu_has_no_slope_at_zero() -> None:
    model = graph("g (float[2, 2] x) => (float[2, 2] y) { y = Relu(x) }")
    moved = _runs(model, np.array([[0, 0], [0, -1]], np.float32), ["x"]).run({"x": np.ones((2, 2), np.float32)}, 0)
    assert not moved.moves["y"].any()


OLD = {
    "relu": (7, "Relu(x)"),
    "selu, by differences": (7, "Selu(x)"),
    "leaky relu": (7, "LeakyRelu <alpha=0.2> (x)"),
    "absolute value": (7, "Abs(x)"),
    "larger of two": (8, "Max(x, row)"),
    "gemm": (8, "Gemm <transB=1> (x, x, row)"),
    "clamp": (10, "Clip <min=-0.5, max=0.7> (x)"),
    "clamp from below": (7, "Clip <min=-0.5> (x)"),
    "power": (13, "Pow(x, two)"),
    "power of an integer": (12, "Pow(x, number)"),
}


@pytest.mark.parametrize(("opset", "expression"), OLD.values(), ids=OLD)
def test_tangents_are_written_in_the_operators_of_the_opset(opset: int, expression: str) -> None:
    values = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    constants = {"row": values[0], "two": np.float32(2), "number": np.int32(2)}
    used = {name: value for name, value in constants.items() if name in expression}
    model = graph(f"g (float[3, 3] x) => (float[3, 3] y) {{ y = {expression} }}", opset, **used)
    direction = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)
    runs = _runs(model, values, ["x"])
    found = runs.run({"x": direction}, 0).moves["y"]
    ends = [runs.run({}, 0, {"x": values + sign * 1e-3 * direction}).outputs["y"] for sign in (1.0, -1.0)]
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-3, atol=2e-2 * np.abs(found).max() + 1e-3)


@pytest.mark.parametrize("opset", [7, 8, 9, 18])
@pytest.mark.parametrize("expression", ["Relu(x)", "Sigmoid(x)", "Tanh(x)", "Clip(x)"])
def test_units_are_put_ajar_in_the_operators_of_the_opset(opset: int, expression: str) -> None:
    expression = "Clip <min=-1.0, max=6.0> (x)" if expression == "Clip(x)" and opset < 11 else expression
    values = np.full((2, 3), -9, np.float32) + np.arange(6, dtype=np.float32).reshape(2, 3) / 10
    values[0, 0] = -np.inf
    model = graph(f"g (float[2, 3] x) => (float[2, 3] y) {{ y = {expression} }}", opset)
    moved = _runs(model, values, ["x"], ajar=True).run({"x": np.ones((2, 3), np.float32)}, 0).moves["y"]
    assert np.isfinite(moved[1]).all()
    assert moved[1].all()


def _runs(model: onnx.ModelProto, values: np.ndarray, seeds: list[str], ajar: bool = False) -> TangentRuns:
    prepared = OnnxProbe(Opened(model, ()))._rewritten()
    feeder = feeder_of(prepared, ProbeSettings(inputs={"x": values}))
    setup = Setup(prepared, feeder, next(iter(feeder.attempts())), {}, None)
    setup.prepare()
    return TangentRuns(setup, seeds, ["y"], ajar=ajar)


# -- what files say ---------------------------------------------------------------------------------------------------


def signals(build: Build) -> Signals:
    module, inputs = build(seed=0)
    with open_session(honest_export(module, inputs, "dynamo"), ProbeSettings()) as session:
        return session.probe(ProbeSettings(backward=True, liveness=True))


@pytest.mark.parametrize("build", [models.lora, models.adaln_zero, models.re_zero, models.zero_head, models.fixup])
def test_idioms_of_files_are_live(build: Build) -> None:
    found = signals(build)
    assert found.steps > 0
    assert set(found.liveness.values()) <= {Liveness.LIVE, Liveness.INVARIANT}


@pytest.mark.parametrize(
    ("build", "stuck"),
    [
        (partial(deadlocks.zero_gate, zeros=2), ["1.inner.weight", "1.outer.weight"]),
        (partial(deadlocks.packed_attention, zero=16), ["attention.in_proj_weight[q]", "attention.in_proj_weight[k]"]),
    ],
)
def test_deadlocks_of_files_are_stuck(build: Build, stuck: list[str]) -> None:
    found = signals(build)
    held = {
        address for address, verdict in found.liveness.items() if verdict is Liveness.STUCK
    } | found.stuck_rows.keys()
    assert held >= set(stuck)


def test_a_healthy_file_pays_for_no_steps() -> None:
    found = signals(models.relu_mlp)
    assert (found.backward, found.steps) == (Backward.ESTIMATED, 0)
    assert set(found.liveness.values()) == {Liveness.LIVE}


def test_the_report_says_that_gradients_are_estimated() -> None:
    module, inputs = models.relu_mlp(seed=0)
    report = initlint.check(honest_export(module, inputs, "dynamo"))
    assert report.to_dict()["probe"]["backward"] == "estimated"


@pytest.mark.parametrize(("zero", "most"), [(("2.weight", "4.weight"), 60), (("2.weight",), 100)])
def test_equal_units_cost_few_runs(monkeypatch: pytest.MonkeyPatch, zero: tuple[str, ...], most: int) -> None:
    """Units that move nothing are not compared one by one, others with one run each."""
    runs = []
    run = TangentRuns.run
    monkeypatch.setattr(TangentRuns, "run", lambda self, *given: runs.append(1) or run(self, *given))
    activation = "Relu" if len(zero) > 1 else "Tanh"
    model = graphs.mlp(depth=4, width=48, activation=activation, changes=dict.fromkeys(zero, 0.0))
    with open_session(model, ProbeSettings()) as session:
        session.probe(ProbeSettings(backward=True, liveness=True))
    assert 0 < len(runs) <= most


def test_tables_of_zeros_that_the_data_part_cost_two_runs_an_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    moved = LearntRows._moved
    monkeypatch.setattr(LearntRows, "_moved", lambda self, *given: runs.append(1) or moved(self, *given))
    assert signals(tokens.tables).alike == ()
    assert 0 < len(runs) <= 2 * 4  # positions, kinds, shifts by place and by head


def test_tables_of_a_file_are_asked_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each.tensor for each in signals(tokens.registers).alike] == ["registers"]
    monkeypatch.setattr(LearntRows, "_left", 0)
    found = signals(tokens.registers)
    assert found.alike == ()
    (left,) = (each for each in found.not_probed if each.at == "registers")
    assert left.reason.startswith("whether its equal rows stay so: more than")


def test_what_onnxruntime_refuses_of_them_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise RuntimeFailure("out of memory")

    monkeypatch.setattr(LearntRows, "_stay", refuse)
    reasons = [each.reason for each in signals(tokens.registers).not_probed]
    assert "whether its equal rows stay so: out of memory" in reasons
