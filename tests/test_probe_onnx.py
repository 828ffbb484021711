"""The probe measures what it says, at any opset, in any element type, and for norms on batch statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from probing import SEED, Opened, expect_statistics, graph, probe, taps, value_of

from initlint.probe.on_onnx import OnnxProbe
from initlint.probe.signals import Forward
from initlint.probe.taps import Tap
from initlint.settings import ProbeSettings

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3, 6, 5)).astype(np.float32)
GIVEN = ProbeSettings(inputs={"x": X})


def normal(*shape: int, scale: float = 1.0, offset: float = 0.0) -> Any:
    return (RNG.standard_normal(shape) * scale + offset).astype(np.float32)


CONV = "g (float[n,3,h,w] x) => (float[n,7,h,w] y) { c = Conv<pads=[1,1,1,1]>(x, weight, bias)  y = Tanh(c) }"
CONV_WEIGHTS = {"weight": normal(7, 3, 3, 3), "bias": normal(7)}


class TestStatistics:
    @pytest.mark.parametrize("opset", [9, 11, 12, 13, 16, 17, 18, 20, 22, 23])
    def test_are_those_of_numpy_at_every_opset(self, opset: int) -> None:
        model = graph(CONV, opset, **CONV_WEIGHTS)
        flat = (-2.99, 2.5)
        signals = probe(model, (Tap("conv", "c", 1, flat),), GIVEN)
        assert signals.forward is Forward.MEASURED
        expect_statistics(signals.layers["conv"], value_of(model, "c", {"x": X}), flat=flat)
        expect_statistics(signals.outputs["y"], value_of(model, "y", {"x": X}))
        assert signals.input_rms == pytest.approx(math.sqrt((X.astype(float) ** 2).mean()))
        assert (signals.batch, signals.runs) == (4, 1)

    @pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2])
    def test_know_units_on_any_axis(self, axis: int) -> None:
        model = graph(
            "g (float[n,3,h,w] x) => (float[n,3,h,w] y) { a = Mul(x, weight)  y = Identity(a) }", weight=normal(5)
        )
        signals = probe(model, taps("a", axis=axis), GIVEN)
        expect_statistics(signals.layers["a"], value_of(model, "a", {"x": X}), axis)

    @pytest.mark.parametrize("axis", [7, -9])
    def test_take_the_last_axis_where_the_units_axis_does_not_exist(self, axis: int) -> None:
        model = graph("g (float[n,3] x) => (float[n,5] y) { y = MatMul(x, weight) }", weight=normal(3, 5))
        signals = probe(model, taps("y", axis=axis))
        assert len(signals.layers["y"].unit_mean) == 5

    def test_cover_vectors_and_scalars(self) -> None:
        text = """g (float[n,3] x) => (float[n] v, float s) {
            v = ReduceMean<keepdims=0>(x, one)  s = ReduceMean<keepdims=0>(x) }"""
        signals = probe(
            graph(text, one=np.array([1])), taps("v", "s"), ProbeSettings(inputs={"x": X[0, :, :3, 0].copy()})
        )
        assert (signals.layers["v"].samples, len(signals.layers["v"].unit_mean)) == (1, 3)
        assert (signals.layers["s"].samples, len(signals.layers["s"].unit_mean)) == (1, 1)

    @pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-5, 3e-7])
    def test_find_a_variance_that_is_tiny_beside_the_mean(self, spread: float) -> None:
        values = (1.0 + spread * RNG.standard_normal((64, 3))).astype(np.float32)
        model = graph("g (float[n,3] x) => (float[n,3] y) { y = Mul(x, weight) }", weight=np.ones(3, np.float32))
        signals = probe(model, taps("y"), ProbeSettings(inputs={"x": values}))
        np.testing.assert_allclose(signals.layers["y"].unit_std, values.astype(float).std(0), rtol=1e-3)

    def test_find_that_a_constant_unit_is_constant(self) -> None:
        model = graph("g (float[n,3] x) => (float[n,4] y) { z = Mul(x, zero)  y = Gemm(z, zeros, bias) }")
        weights = {"zero": np.zeros(3, np.float32), "zeros": np.zeros((3, 4), np.float32), "bias": normal(4)}
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
        signals = probe(model, taps("y"))
        assert max(signals.layers["y"].unit_std) < 1e-12
        np.testing.assert_allclose(signals.layers["y"].unit_mean, weights["bias"], rtol=1e-6)

    @pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-20, 1e-12, 1e12, 1e19, 1e25, 1e37])
    def test_hold_over_the_whole_range_of_float32(self, size: float) -> None:
        text = "g (float[n,3] x) => (float[n,5] y) { a = MatMul(x, weight)  y = Mul(a, size) }"
        weight = normal(3, 5)
        model = graph(text, weight=weight, size=np.float32(size))
        x = normal(50, 3)
        signal = probe(model, taps("y"), ProbeSettings(inputs={"x": x})).layers["y"]
        expected = (x.astype(float) @ weight.astype(float)) * float(np.float32(size))
        assert signal.rms == pytest.approx(math.sqrt((expected**2).mean()), rel=1e-4)
        np.testing.assert_allclose(np.array(signal.unit_std), expected.std(0), rtol=1e-4)
        assert signal.nonfinite == 0

    def test_share_their_work_between_layers_that_tap_one_value(self) -> None:
        model = graph(CONV, **CONV_WEIGHTS)
        signals = probe(model, (Tap("a", "c", 1), Tap("b", "c", 1), Tap("c", "c", 1, (-1.0, 1.0))), GIVEN)
        assert signals.layers["a"] == signals.layers["b"]
        assert signals.layers["c"].saturated > 0
        assert (
            replace(signals.layers["c"], saturated=0.0, unit_saturated=signals.layers["a"].unit_saturated)
            == signals.layers["a"]
        )

    def test_tell_two_axes_of_one_value_apart(self) -> None:
        model = graph("g (float[n,3,h,w] x) => (float[n,3,h,w] y) { y = Neg(x) }")
        signals = probe(model, (Tap("channels", "y", 1), Tap("columns", "y", -1)), GIVEN)
        expect_statistics(signals.layers["channels"], -X, 1)
        expect_statistics(signals.layers["columns"], -X, 3)

    def test_do_not_collide_with_the_names_of_the_graph(self) -> None:
        text = 'g (float[n,3] x) => (float[n,3] y) { "initlint:1 constant" = Relu(x)  y = Neg("initlint:1 constant") }'
        signals = probe(graph(text.replace('"initlint:1 constant"', "tmp")), taps("tmp"))
        renamed = graph(text.replace('"initlint:1 constant"', "tmp"))
        for node in renamed.graph.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == "tmp":
                        names[i] = "initlint:1 constant"
        assert probe(renamed, taps("initlint:1 constant")).layers.popitem()[1] == signals.layers["tmp"]  # type: ignore[attr-defined]


class TestSameSeed:
    def test_gives_the_same_signals_bit_for_bit(self) -> None:
        model = graph(CONV, **CONV_WEIGHTS)
        signals = [probe(model, taps("c")) for _ in range(3)]
        assert signals[0] == signals[1] == signals[2]

    def test_holds_for_one_probe_asked_twice_and_for_random_operations(self) -> None:
        text = "g (float[n,3] x) => (float[n,3] y) { r = RandomNormalLike(x)  y = Add(x, r) }"
        asked = OnnxProbe(Opened(graph(text), taps("y", "r")))
        first, second = asked.run(SEED, {}), asked.run(SEED, {})
        assert first == second
        assert first.layers["r"].std > 0

    def test_another_seed_gives_other_signals(self) -> None:
        model = graph(CONV, **CONV_WEIGHTS)
        assert probe(model, taps("c")) != probe(model, taps("c"), ProbeSettings(seed=4))


def batch_norm(opset: int, rank: int, outputs: int = 1, training: bool = False) -> onnx.ModelProto:
    positions = ",".join(f"d{i}" for i in range(rank - 2))
    shape = f"float[n,3{',' + positions if positions else ''}]"
    names = ["b", "mean_out", "var_out", "saved_mean", "saved_var"][:outputs]
    mode = "training_mode=1, " if training else ""
    text = (
        f"g ({shape} x) => ({shape} y) {{ {', '.join(names)} = BatchNormalization<{mode}epsilon=1e-3>"
        "(x, gain, shift, mean, var)  y = Relu(b) }"
    )
    weights = {"gain": normal(3), "shift": normal(3), "mean": normal(3, offset=5), "var": np.full(3, 7, np.float32)}
    return graph(text, opset, **weights)


def torch_batch_norm(model: onnx.ModelProto, x: Any) -> Any:
    weights = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    return torch.nn.functional.batch_norm(
        torch.from_numpy(x), None, None, weights["gain"], weights["shift"], training=True, eps=1e-3
    ).numpy()


class TestBatchNorm:
    @pytest.mark.parametrize("opset", [9, 12, 14, 15, 18, 23])
    @pytest.mark.parametrize("shape", [(32, 3), (8, 3, 9), (4, 3, 5, 6), (2, 3, 4, 5, 2)])
    def test_uses_the_statistics_of_the_batch(self, opset: int, shape: tuple[int, ...]) -> None:
        model = batch_norm(opset, len(shape))
        x = normal(*shape, scale=3, offset=2)
        signals = probe(model, taps("b"), ProbeSettings(inputs={"x": x}))
        expect_statistics_of_norm(signals.layers["b"], torch_batch_norm(model, x))

    @pytest.mark.parametrize(("opset", "outputs"), [(9, 5), (14, 3), (18, 3)])
    def test_in_training_mode_with_all_outputs_is_the_same(self, opset: int, outputs: int) -> None:
        model = batch_norm(opset, 4, outputs, training=opset >= 14)
        signals = probe(model, taps("b"), GIVEN)
        expect_statistics_of_norm(signals.layers["b"], torch_batch_norm(model, X))

    def test_measures_saturation_behind_it(self) -> None:
        model = batch_norm(18, 4)
        signals = probe(model, (Tap("b", "b", 1, (-0.5, 0.5)),), GIVEN)
        values = torch_batch_norm(model, X)
        assert signals.layers["b"].saturated == pytest.approx((abs(values) > 0.5).mean(), abs=1e-3)

    def test_shares_no_state_between_layers_with_equal_parameters(self) -> None:
        text = """g (float[n,3,h,w] x) => (float[n,3,h,w] y) {
            a = BatchNormalization(x, one, zero, zero, one)  b = Mul(a, big)
            c = BatchNormalization(b, one, zero, zero, one)  y = Relu(c) }"""
        weights = {"one": np.ones(3, np.float32), "zero": np.zeros(3, np.float32), "big": np.float32(50)}
        signals = probe(graph(text, **weights), taps("a", "b", "c"), GIVEN)
        assert [round(signals.layers[name].rms, 2) for name in "abc"] == [1.0, 50.0, 1.0]

    def test_gets_a_batch_of_sixteen_where_there_are_no_positions(self) -> None:
        signals = probe(batch_norm(18, 2), taps("b"))
        assert (signals.batch, signals.layers["b"].samples) == (16, 16)

    def test_respects_a_batch_that_the_user_asked_for(self) -> None:
        signals = probe(batch_norm(18, 2), taps("b", "y"), ProbeSettings(batch=4))
        assert signals.batch == 4
        assert [item.at for item in signals.not_probed] == ["b"]
        assert "4 values per channel" in signals.not_probed[0].reason
        assert "y" in signals.layers

    def test_over_one_value_hides_everything_downstream(self) -> None:
        text = """g (float[1,3] x) => (float[1,4] y) { a = MatMul(x, up)
            b = BatchNormalization(a, one, zero, zero, one)  y = MatMul(b, across) }"""
        weights = {
            "up": normal(3, 4),
            "across": normal(4, 4),
            "one": np.ones(4, np.float32),
            "zero": np.zeros(4, np.float32),
        }
        signals = probe(graph(text, **weights), taps("a", "b", "y"))
        assert list(signals.layers) == ["a"]
        assert [item.at for item in signals.not_probed] == ["b", "y"]
        assert not signals.outputs

    def test_inside_a_branch_is_rewritten_too(self) -> None:
        text = """g (float[n,3] x, bool flag) => (float[n,3] y) {
            y = If (flag) <
                then_branch = t () => (float[n,3] p) { p = BatchNormalization(x, one, zero, zero, one) },
                else_branch = e () => (float[n,3] q) { q = Identity(x) } > }"""
        weights = {"one": np.ones(3, np.float32), "zero": np.zeros(3, np.float32)}
        x = normal(40, 3, scale=9)
        signals = probe(graph(text, **weights), taps("y"), ProbeSettings(inputs={"x": x}))
        assert signals.layers["y"].rms == pytest.approx(1.0, rel=1e-3)


def expect_statistics_of_norm(signal: Any, values: Any) -> None:
    units = np.moveaxis(values.astype(np.float64), 1, 0).reshape(values.shape[1], -1)
    scale = np.abs(units).max()
    np.testing.assert_allclose(signal.unit_mean, units.mean(1), atol=2e-6 * scale)
    np.testing.assert_allclose(signal.unit_std, units.std(1), rtol=1e-4)
    np.testing.assert_allclose(signal.unit_max, units.max(1), rtol=1e-4)
    assert signal.absmax == pytest.approx(scale, rel=1e-4)
    assert signal.rms == pytest.approx(np.sqrt((units**2).mean()), rel=1e-4)


class TestFixedBatch:
    def test_is_run_several_times_and_combined(self) -> None:
        model = graph("g (float[1,3] x) => (float[1,5] y) { y = MatMul(x, weight) }", weight=normal(3, 5))
        signals = probe(model, taps("y"))
        assert (signals.batch, signals.runs, signals.layers["y"].samples) == (1, 8, 8)
        assert min(signals.layers["y"].unit_std) > 0
        assert signals.input_rms > 0

    def test_combines_to_what_one_batch_would_give(self) -> None:
        weight = normal(3, 5)
        one = probe(graph("g (float[1,3] x) => (float[1,5] y) { y = MatMul(x, weight) }", weight=weight), taps("y"))
        rows = [
            np.random.Generator(np.random.PCG64([SEED.seed, run])).standard_normal((1, 3), np.float32)
            for run in range(8)
        ]
        expect_statistics(one.layers["y"], np.concatenate(rows) @ weight)


class TestElementTypes:
    @pytest.mark.parametrize("kind", ["float16", "bfloat16", "double"])
    def test_are_computed_in_float32(self, kind: str) -> None:
        number = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "double": TensorProto.DOUBLE}[kind]
        weight, one = normal(3, 5), helper.make_tensor("", number, [1], [1.0])
        text = f"""g ({kind}[n,3] x) => ({kind}[n,5] y) <{kind}[n,5] m> {{
            m = MatMul(x, weight)  s = Shape(m)  e = ConstantOfShape(s)  c = CastLike(e, m)
            k = Cast<to={number}>(m)  r = RandomUniform<dtype={number}, shape=[1]>()  zr = Sub(r, r)  a = Add(k, c)
            b = Add(a, zr)  f = If (flag) <
                then_branch = t () => ({kind}[n,5] p) {{ p = Cast<to={number}>(b) }},
                else_branch = e () => ({kind}[n,5] q) {{ q = Identity(m) }} >
            y = Sub(f, e1) }}"""
        model = graph(text.replace("ConstantOfShape(s)", "ConstantOfShape<value = float[1] {1}>(s)"), 21)
        model.graph.initializer.append(helper.make_tensor("weight", number, [3, 5], weight.ravel().tolist()))
        model.graph.initializer.append(helper.make_tensor("e1", number, [1], [1.0]))
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
        x = normal(6, 3)
        signals = probe(model, taps("y", axis=-1), ProbeSettings(inputs={"x": x}))
        assert signals.forward is Forward.MEASURED, signals.reason
        assert one.data_type == number
        stored = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float32)
        expect_statistics(signals.layers["y"], x @ stored)

    def test_keep_a_mask_of_the_lowest_double_finite(self) -> None:
        text = "g (double[n,3] x) => (double[n,3] y) { a = Add(x, mask)  y = Softmax(a) }"
        signals = probe(graph(text, mask=np.full(3, np.finfo(np.float64).min)), taps("y"))
        assert signals.layers["y"].nonfinite == 0

    def test_quantised_weights_run_as_they_are(self) -> None:
        text = "g (float[n,3] x) => (float[n,5] y) { w = DequantizeLinear(weight, scale)  y = MatMul(x, w) }"
        quantised = RNG.integers(-100, 100, (3, 5)).astype(np.int8)
        x = normal(8, 3)
        model = graph(text, weight=quantised, scale=np.float32(0.01))
        signals = probe(model, taps("y"), ProbeSettings(inputs={"x": x}))
        expect_statistics(signals.layers["y"], x @ (quantised * np.float32(0.01)))

    def test_half_precision_scales_of_quantised_weights_become_float32(self) -> None:
        text = "g (float16[n,3] x) => (float16[n,5] y) { w = DequantizeLinear(weight, scale)  y = MatMul(x, w) }"
        model = graph(text, 19, weight=RNG.integers(-100, 100, (3, 5)).astype(np.int8), scale=np.float16(0.01))
        assert probe(model, taps("y")).layers["y"].rms > 0

    def test_weights_in_external_data_are_read_from_their_folder(self, tmp_path: Path) -> None:
        weight = normal(30, 20)
        model = graph("g (float[n,30] x) => (float[n,20] y) { y = MatMul(x, weight) }", weight=weight)
        onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
        light = onnx.load(tmp_path / "m.onnx", load_external_data=False)
        x = normal(6, 30)
        signals = OnnxProbe(Opened(light, taps("y"), {}, tmp_path)).run(ProbeSettings(inputs={"x": x}), {})
        expect_statistics(signals.layers["y"], x @ weight)


class TestRandomness:
    @pytest.mark.parametrize("opset", [9, 10, 12, 13, 22])
    def test_dropout_is_off_and_its_mask_is_whole(self, opset: int) -> None:
        if opset < 12:
            text = "g (float[n,3] x) => (float[n,3] y) { d, mask = Dropout<ratio=0.9>(x)  y = Identity(d) }"
            model = graph(text, opset)
        else:
            text = """g (float[n,3] x) => (float[n,3] y) {
                d, mask = Dropout(x, ratio, on)  m = Cast<to=1>(mask)  y = Mul(d, m) }"""
            model = graph(text, opset, ratio=np.float32(0.9), on=np.array(True))
        x = normal(9, 3)
        signals = probe(model, taps("y"), ProbeSettings(inputs={"x": x}))
        expect_statistics(signals.layers["y"], x)

    def test_of_different_operations_differs(self) -> None:
        text = (
            "g (float[n,30] x) => (float[n,30] y) { a = RandomNormalLike(x)  b = RandomNormalLike(x)  y = Sub(a, b) }"
        )
        assert probe(graph(text), taps("y")).layers["y"].rms == pytest.approx(math.sqrt(2), rel=0.2)


class TestOverrides:
    TEXT = (
        "g (float[n,3] x) => (float[n,5] y) { w = Transpose<perm=[1,0]>(weight)  m = MatMul(x, w)  y = Add(m, bias) }"
    )

    @pytest.mark.parametrize("name", ["weight", "w", "bias"])
    def test_replace_a_value_for_one_run(self, name: str) -> None:
        weights = {"weight": normal(5, 3), "bias": normal(5)}
        x = normal(7, 3)
        asked = OnnxProbe(Opened(graph(self.TEXT, **weights), taps("y")))
        settings = ProbeSettings(inputs={"x": x})
        before = asked.run(settings, {})
        edited = dict(weights)
        if name == "w":
            edited["weight"] = normal(5, 3)
            override: Mapping[str, Any] = {"w": np.ascontiguousarray(edited["weight"].T)}
        else:
            edited[name] = normal(*weights[name].shape)
            override = {name: edited[name].astype(np.float64)}
        expect_statistics(asked.run(settings, override).layers["y"], x @ edited["weight"].T + edited["bias"])
        assert asked.run(settings, {}) == before

    def test_replace_a_large_weight_without_a_new_session(self) -> None:
        model = graph("g (float[n,30] x) => (float[n,20] y) { y = MatMul(x, weight) }", weight=normal(30, 20))
        asked = OnnxProbe(Opened(model, taps("y")))
        asked.run(SEED, {})
        signals = asked.run(SEED, {"weight": np.zeros((30, 20), np.float32)})
        assert signals.layers["y"].rms == 0


class TestWhatCannotBeMeasured:
    def test_inside_a_branch_is_said(self) -> None:
        text = """g (float[n,3] x, bool flag) => (float[n,3] y) {
            y = If (flag) <
                then_branch = t () => (float[n,3] p) { p = Neg(x) },
                else_branch = e () => (float[n,3] q) { q = Identity(x) } > }"""
        signals = probe(graph(text), taps("p", "y"))
        assert [item.at for item in signals.not_probed] == ["p"]
        assert list(signals.layers) == ["y"]

    def test_an_unknown_operator_is_one_sentence(self) -> None:
        model = graph("g (float[n,3] x) => (float[n,3] y) { y = Neg(x) }")
        model.graph.node[0].domain = "my.company"
        model.opset_import.append(helper.make_opsetid("my.company", 1))
        signals = probe(model, taps("y"))
        assert signals.forward is Forward.NONE
        assert "my.company" in signals.reason
        assert "--input-shape" not in signals.reason
        assert "\n" not in signals.reason

    @pytest.mark.parametrize("opset", [7, 8, 24, 25, 26, 27, 28])
    def test_opsets_that_the_runtime_does_not_know_yet_are_no_obstacle(self, opset: int) -> None:
        assert probe(graph(CONV, opset, **CONV_WEIGHTS), taps("c")).forward is Forward.MEASURED

    def test_ranks_that_only_the_run_knows_are_asked_for(self) -> None:
        text = "g (float[n,3,4] x, int64[2] shape) => (float[] y) { r = Reshape(x, shape)  y = Relu(r) }"
        model = graph(text)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        x = normal(5, 3, 4)
        signals = probe(model, taps("r", axis=-1), ProbeSettings(inputs={"x": x, "shape": np.array([15, 4])}))
        expect_statistics(signals.layers["r"], x.reshape(15, 4), -1)

    def test_switched_off_is_said(self) -> None:
        signals = probe(graph(CONV, **CONV_WEIGHTS), taps("c"), ProbeSettings(enabled=False))
        assert (signals.forward, signals.layers) == (Forward.NONE, {})
        assert signals.reason

    def test_old_files_list_weights_as_inputs(self) -> None:
        text = "g (float[n,30] x, float[30,20] weight, float[20] bias) => (float[n,20] y) { y = Gemm(x, weight, bias) }"
        model = graph(text, 9, weight=normal(30, 20), bias=normal(20))
        model.ir_version = 3
        assert probe(model, taps("y")).layers["y"].rms > 0
