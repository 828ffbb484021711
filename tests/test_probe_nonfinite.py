"""The probe names the operation where NaN or infinity began, and the tensors that brought it about."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from probing import graph, probe, taps

from initlint.errors import TargetError
from initlint.probe.signals import NonFiniteOrigin, Signals
from initlint.settings import ProbeSettings

RNG = np.random.default_rng(1)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Nodes are called after their first output, as exporters do."""
    for node in model.graph.node:
        node.name = f"/{node.output[0]}"
    return model


def origin(signals: Signals) -> NonFiniteOrigin:
    assert signals.origin is not None
    return signals.origin


class TestOrigin:
    def test_is_absent_where_all_is_finite(self) -> None:
        model = graph("g (float[n,3] x) => (float[n,5] y) { y = MatMul(x, weight) }", weight=normal(3, 5))
        assert probe(model, taps("y")).origin is None

    def test_of_weight_norm_on_a_zero_row(self) -> None:
        text = """g (float[n,30] x) => (float[n,20] y) {
            norm = ReduceL2<axes=[0]>(v)  unit = Div(v, norm)  w = Mul(unit, gain)  h = MatMul(x, w)  y = Relu(h) }"""
        v = normal(30, 20)
        v[:, 4] = 0
        model = named(graph(text, 13, v=v, gain=np.ones(20, np.float32)))
        roots = {"v": ("fc.weight_v",), "gain": ("fc.weight_g",), "w": ("fc.weight",)}
        signals = probe(model, taps("h"), roots=roots)
        assert origin(signals) == NonFiniteOrigin("h", "Div at /unit", ("fc.weight_v",), "nan")
        assert signals.layers["h"].nonfinite == pytest.approx(1 / 20)
        assert np.isnan(signals.layers["h"].unit_std[4])
        assert np.isfinite(np.delete(np.array(signals.layers["h"].unit_std), 4)).all()

    def test_of_a_live_vector_that_is_zero_and_normalised(self) -> None:
        text = """g (float[n,3] x) => (float[n,2] y) {
            h = MatMul(x, zero)  norm = ReduceL2<axes=[1]>(h)  unit = Div(h, norm)  y = MatMul(unit, head) }"""
        model = named(graph(text, 13, zero=np.zeros((3, 5), np.float32), head=normal(5, 2)))
        signals = probe(model, taps("h", "y"), roots={"zero": ("first.weight",), "head": ("head.weight",)})
        assert origin(signals) == NonFiniteOrigin("y", "Div at /unit", ("first.weight",), "nan")

    def test_of_an_overflow_in_a_deep_net_is_the_first_layer_that_overflows(self) -> None:
        layers = "  ".join(f"h{i} = MatMul(h{i - 1}, w{i})" for i in range(1, 9))
        text = f"g (float[n,3] x) => (float[n,3] y) {{ h0 = Identity(x)  {layers}  y = Relu(h8) }}"
        weights = {f"w{i}": normal(3, 3) * np.float32(1e7) for i in range(1, 9)}
        roots = {name: (f"{name}.weight",) for name in weights}
        signals = probe(named(graph(text, **weights)), taps(*(f"h{i}" for i in range(1, 9))), roots=roots)
        assert origin(signals) == NonFiniteOrigin("h6", "MatMul at /h6", ("w6.weight",), "overflow")
        assert signals.layers["h5"].nonfinite == 0
        assert np.isfinite(signals.layers["h5"].rms)

    def test_of_an_exponential_names_the_layer_before_it(self) -> None:
        text = "g (float[n,3] x) => (float[n,3] y) { m = MatMul(x, w)  a = Add(m, b)  e = Exp(a)  y = MatMul(e, head) }"
        model = named(graph(text, w=normal(3, 5) * 1000, b=normal(5), head=normal(5, 3)))
        roots = {"w": ("fc.weight",), "b": ("fc.bias",), "head": ("head.weight",)}
        signals = probe(model, taps("a", "y"), roots=roots)
        assert origin(signals) == NonFiniteOrigin("y", "Exp at /e", ("fc.bias", "fc.weight"), "overflow")

    def test_of_a_logarithm_of_zero_is_an_infinity(self) -> None:
        model = named(graph("g (float[n,3] x) => (float[n,3] y) { r = Relu(x)  l = Log(r)  y = Identity(l) }"))
        found = origin(probe(model, taps("y")))
        assert (found.operation, found.kind, found.tensors) == ("Log at /l", "inf", ())

    @pytest.mark.parametrize(("bad", "kind"), [(np.nan, "nan"), (np.inf, "inf")])
    @pytest.mark.parametrize("size", [3, 300])
    def test_of_a_stored_value_is_the_tensor_itself(self, bad: float, kind: str, size: int) -> None:
        weight = normal(size, 5)
        weight[1, 2] = bad
        text = f"g (float[n,{size}] x) => (float[n,2] y) {{ h = MatMul(x, w)  y = MatMul(h, head) }}"
        model = named(graph(text, w=weight, head=normal(5, 2)))
        found = origin(probe(model, taps("h", "y"), roots={"w": ("fc.weight",), "head": ("head.weight",)}))
        assert (found.layer, found.operation, found.tensors, found.kind) == ("h", "MatMul at /h", ("fc.weight",), kind)

    def test_is_not_a_mask_of_minus_infinity(self) -> None:
        mask = np.full((4, 4), -np.inf, np.float32)  # every position masked: the softmax has nothing left
        text = """g (float[n,4] x) => (float[n,2] y) {
            q = MatMul(x, w)  s = Add(q, mask)  p = Softmax(s)  y = MatMul(p, head) }"""
        model = named(graph(text, w=normal(4, 4), mask=mask, head=normal(4, 2)))
        x = ProbeSettings(inputs={"x": normal(4, 4)})
        found = origin(probe(model, taps("q", "y"), x, roots={"w": ("q.weight",), "head": ("head.weight",)}))
        assert (found.layer, found.operation, found.kind, found.tensors) == ("y", "Softmax at /p", "masked", ())

    def test_is_silent_about_a_mask_that_does_no_harm(self) -> None:
        mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
        text = "g (float[4,4] x) => (float[4,2] y) { s = Add(x, mask)  p = Softmax(s)  y = MatMul(p, head) }"
        signals = probe(graph(text, mask=mask, head=normal(4, 2)), taps("y"))
        assert signals.origin is None

    def test_without_taps_is_found_from_the_outputs(self) -> None:
        model = named(graph("g (float[n,3] x) => (float[n,3] y) { z = Sub(x, x)  y = Div(z, z) }"))
        assert origin(probe(model)) == NonFiniteOrigin("", "Div at /y", (), "nan")

    def test_of_an_override(self) -> None:
        model = named(graph("g (float[n,30] x) => (float[n,20] y) { y = MatMul(x, w) }", w=normal(30, 20)))
        broken = np.full((30, 20), np.nan)
        signals = probe(model, taps("y"), overrides={"w": broken}, roots={"w": ("fc.weight",)})
        assert origin(signals).tensors == ("fc.weight",)
        assert signals.layers["y"].nonfinite == 1.0

    def test_is_an_input_that_was_not_finite_when_it_was_given(self) -> None:
        model = named(graph("g (float[n,3] x) => (float[n,5] y) { y = MatMul(x, w) }", w=normal(3, 5)))
        given = ProbeSettings(inputs={"x": np.array([[1, np.inf, 2]], np.float32)})
        found = origin(probe(model, taps("y"), given, roots={"w": ("fc.weight",)}))
        assert (found.layer, found.operation, found.tensors) == ("y", "input x", ())

    def test_is_not_looked_for_where_nan_was_given(self) -> None:
        model = named(graph("g (float[n,3] x) => (float[n,5] y) { y = MatMul(x, w) }", w=normal(3, 5)))
        given = ProbeSettings(inputs={"x": np.array([[1, np.nan, 2]], np.float32)})
        with pytest.raises(TargetError, match="the values given for x hold NaN"):
            probe(model, taps("y"), given)

    def test_lies_at_a_batch_norm_where_its_gain_is_infinite(self) -> None:
        text = """g (float[n,3,h,w] x) => (float[n,3,h,w] y) {
            b = BatchNormalization(x, gain, zero, zero, one)  y = Relu(b) }"""
        gain = np.array([1, np.inf, 1], np.float32)
        model = named(graph(text, gain=gain, zero=np.zeros(3, np.float32), one=np.ones(3, np.float32)))
        found = origin(probe(model, taps("b"), roots={"gain": ("bn.weight",)}))
        assert (found.layer, found.operation, found.tensors) == ("b", "BatchNormalization at /b", ("bn.weight",))
