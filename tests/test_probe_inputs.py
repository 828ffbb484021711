"""Nobody has to say what a model eats, and whoever says it wrongly is told what it wants."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from probing import SEED, Opened, graph, probe, taps
from safetensors.numpy import save_file

from initlint.errors import FailureKind, TargetError
from initlint.probe.graph_rewrite import rewrite
from initlint.probe.inputs import feeder_of
from initlint.probe.on_onnx import OnnxProbe
from initlint.probe.signals import Forward
from initlint.settings import ProbeSettings

RNG = np.random.default_rng(2)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def drawn(model: onnx.ModelProto, settings: ProbeSettings = SEED) -> Mapping[str, Any]:
    """What the first attempt feeds."""
    draws = feeder_of(rewrite(model, None), settings)
    return draws.arrays(next(draws.attempts()), 0)


def shapes(model: onnx.ModelProto, settings: ProbeSettings = SEED) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in drawn(model, settings).items()}


CONV = graph("g (float[n,c,h,w] x) => (float[n,7,h,w] y) { y = Conv(x, weight) }", weight=normal(7, 4, 1, 1))
LINEAR = graph("g (float[batch,f] x) => (float[batch,5] y) { y = MatMul(x, weight) }", weight=normal(3, 5))
DECODER = graph(
    """g (int64[batch,sequence] input_ids, int64[batch,total] attention_mask, int64[batch,sequence] position_ids,
        float[batch,2,past_sequence,4] past_key_values_0_key, float[batch,2,past_sequence,4] past_key_values_0_value)
        => (float[batch,sequence,8] y) {
        e = Gather(table, input_ids)  p = Gather(positions, position_ids)  h = Add(e, p)
        flat = Reshape(past_key_values_0_key, all)  other = Reshape(past_key_values_0_value, all)
        none = Concat<axis=0>(flat, other)  zero = ReduceSum(none)
        m = Cast<to=1>(attention_mask)  r = ReduceMean(m)  z = Add(h, zero)  y = Mul(z, r) }""",
    table=normal(11, 8),
    positions=normal(32, 8),
    all=np.array([-1]),
)


def test_more_values_than_can_be_addressed_are_a_lack_of_memory() -> None:
    with pytest.raises(MemoryError):
        drawn(CONV, ProbeSettings(dims={"n": 2**31 - 1, "h": 2**31 - 1, "w": 2**31 - 1}))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ProbeSettings(dims={"batch": 0}), r"the inputs do not fit: x is empty \(0x3\).*the model's inputs are x"),
        (ProbeSettings(shapes={"x": (8, 0)}), r"x is empty \(8x0\)"),
        (ProbeSettings(inputs={"x": normal(0, 3)}), r"x is empty \(0x3\)"),
    ],
)
def test_inputs_without_values_do_not_fit(settings: ProbeSettings, said: str) -> None:
    with pytest.raises(TargetError, match=said) as caught:
        drawn(LINEAR, settings)
    assert caught.value.kind is FailureKind.USAGE


def test_no_samples_do_not_fit_and_an_empty_cache_does() -> None:
    with pytest.raises(TargetError, match="input_ids is empty"):
        drawn(DECODER, ProbeSettings(dims={"batch": 0}))
    cached = drawn(DECODER, ProbeSettings(dims={"past_sequence": 0}))
    assert cached["past_key_values_0_key"].shape == (8, 2, 0, 4)


class TestShapes:
    def test_of_an_image_come_from_the_first_convolution(self) -> None:
        assert shapes(CONV) == {"x": (8, 4, 64, 64)}

    def test_of_features_come_from_the_first_weight(self) -> None:
        assert shapes(LINEAR) == {"x": (8, 3)}

    def test_of_features_are_found_behind_a_transposition(self) -> None:
        text = """g (float[n,a,b] x) => (float[] y) { t = Transpose<perm=[0,2,1]>(x)  y = MatMul(t, weight) }"""
        assert shapes(graph(text, weight=normal(6, 5))) == {"x": (8, 6, 8)}

    def test_of_a_recurrence_know_time_from_batch(self) -> None:
        text = """g (float[a,b,c] x, int32[b] steps, float[1,b,5] h0) => (float[] y) {
            y, last = GRU<hidden_size=5>(x, w, r, , steps, h0) }"""
        model = graph(text, 14, w=normal(1, 15, 4), r=normal(1, 15, 5))
        values = drawn(model)
        assert {name: value.shape for name, value in values.items()} == {"x": (8, 8, 4), "steps": (8,), "h0": (1, 8, 5)}
        assert set(values["steps"]) == {8}
        assert not values["h0"].any()
        signals = probe(model, taps("y", axis=-1))
        assert (signals.forward, signals.batch) == (Forward.MEASURED, 8)

    def test_of_one_name_are_one_size(self) -> None:
        text = "g (float[n,3] x, float[m,3] z) => (float[n,3] y) { y = Add(x, z) }"
        assert shapes(graph(text)) == {"x": (8, 3), "z": (8, 3)}

    def test_grow_where_small_images_do_not_pass(self) -> None:
        text = """g (float[n,3,h,w] x) => (float[n,5] y) {
            c = Conv<strides=[16,16]>(x, weight)  f = Flatten(c)  y = MatMul(f, head) }"""
        model = graph(text, weight=normal(2, 3, 16, 16), head=normal(2 * 14 * 14, 5))
        signals = probe(model, taps("y"))
        assert signals.forward is Forward.MEASURED, signals.reason

    def test_fall_back_to_a_batch_of_one_where_the_graph_was_traced_with_it(self) -> None:
        text = "g (float[n,3] x) => (float[n,3] y) { y = Reshape(x, one) }"
        signals = probe(graph(text, one=np.array([1, 3])), taps("y"))
        assert (signals.forward, signals.batch, signals.runs) == (Forward.MEASURED, 1, 8)

    def test_of_an_input_without_a_rank_come_from_its_use(self) -> None:
        model = graph("g (float[n] x) => (float[n,5] y) { y = Gemm(x, weight) }", weight=normal(3, 5))
        model.graph.input[0].type.tensor_type.ClearField("shape")
        assert shapes(model) == {"x": (8, 3)}

    def test_of_a_sum_of_names_are_added_up(self) -> None:
        text = (
            "g (int64[batch,tokens] ids, float[batch,n] mask) => (float[] y) { e = Gather(t, ids)  y = Add(e, mask) }"
        )
        model = graph(text, t=normal(5, 1))
        model.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "2*past_sequence + tokens + 1"
        assert shapes(model)["mask"] == (8, 9)


class TestValues:
    def test_of_floats_are_standard_normal(self) -> None:
        x = drawn(CONV)["x"]
        assert x.dtype == np.float32
        assert abs(float(x.mean())) < 0.01
        assert float(x.std()) == pytest.approx(1, abs=0.01)

    def test_of_a_decoder_are_what_it_expects(self) -> None:
        values = drawn(DECODER)
        assert {name: value.shape for name, value in values.items()} == {
            "input_ids": (8, 8),
            "attention_mask": (8, 8),
            "position_ids": (8, 8),
            "past_key_values_0_key": (8, 2, 0, 4),
            "past_key_values_0_value": (8, 2, 0, 4),
        }
        assert 0 <= values["input_ids"].min() < values["input_ids"].max() < 11
        assert (values["attention_mask"] == 1).all()
        assert values["position_ids"][3].tolist() == list(range(8))
        assert probe(DECODER, taps("h", axis=-1)).forward is Forward.MEASURED

    @pytest.mark.parametrize(
        "way",
        [
            "i = Cast<to=7>(ids)",
            "i = Reshape(ids, rows)",
            "a = Add(ids, zero)  i = Unsqueeze(a, rows)",
            "i = Slice(ids, zero, two, zero)",
            "c = Clip(ids)  i = Concat<axis=0>(c, c)",
            "l = Less(ids, zero)  r = Not(l)  c = Cast<to=7>(r)  i = Mul(ids, c)",
            "i = If (yes) <then_branch = t () => (int64[n] p) { p = Identity(ids) }, "
            "else_branch = e () => (int64[n] q) { q = Identity(ids) }>",
        ],
    )
    def test_of_an_index_stay_within_the_table(self, way: str) -> None:
        text = f"g (int64[n] ids) => (float[] y) {{ {way}  y = Gather(table, i) }}"
        weights = {"table": normal(3, 4), "zero": np.array([0]), "two": np.array([2]), "rows": np.array([-1])}
        model = graph(text, **weights, yes=np.array(True))
        if "If" in way:
            inner = "g (int64[n] ids) => (float[] y) { y = If (yes) <then_branch = t () => (float[n,4] p) "
            inner += "{ p = Gather(table, ids) }, else_branch = e () => (float[n,4] q) { q = Gather(table, ids) }> }"
            model = graph(inner, table=normal(3, 4), yes=np.array(True))
        assert set(drawn(model, ProbeSettings(batch=64))["ids"].tolist()) == {0, 1, 2}
        assert probe(model, taps("y", axis=-1)).forward is Forward.MEASURED

    def test_of_an_index_along_another_axis_stay_within_it(self) -> None:
        text = "g (int64[n] ids) => (float[] y) { y = Gather<axis=1>(table, ids) }"
        assert drawn(graph(text, table=normal(100, 2)), ProbeSettings(batch=64))["ids"].max() == 1

    def test_of_a_table_that_the_graph_computes_stay_within_it(self) -> None:
        text = "g (int64[n] ids) => (float[] y) { t = Transpose(table)  y = Gather(t, ids) }"
        assert drawn(graph(text, table=normal(4, 2)), ProbeSettings(batch=64))["ids"].max() == 1

    def test_of_other_integers_are_harmless(self) -> None:
        text = """g (float[n,3] x, int64 which, int64[n] segment_ids, bool[n,3] keep, uint8[n,3,4] image,
            bool use_cache_branch) => (float[] y, float[] z, bool[] b) {
            g = Gather<axis=1>(x, which)  s = Cast<to=1>(segment_ids)  y = Add(g, s)
            i = Cast<to=1>(image)  z = ReduceMean(i)  n = Not(keep)  b = And(n, use_cache_branch) }"""
        values = drawn(graph(text))
        assert values["which"] == 0
        assert not values["segment_ids"].any()
        assert values["keep"].all()
        assert not values["use_cache_branch"]
        assert values["image"].std() > 10

    def test_of_an_input_that_nothing_reads_are_not_needed(self) -> None:
        model = graph("g (float[n,3] x, float[n,3] idle) => (float[n,3] y) { y = Neg(x) }")
        model.graph.input.append(helper.make_tensor_value_info("text", onnx.TensorProto.STRING, [None]))
        assert list(drawn(model)) == ["x"]
        assert probe(model, taps("y")).forward is Forward.MEASURED


class TestGiven:
    X = normal(5, 3)

    def test_a_mapping_is_fed_as_it_is(self) -> None:
        signals = probe(LINEAR, taps("y"), ProbeSettings(inputs={"x": self.X}))
        assert (signals.batch, signals.runs, signals.layers["y"].samples) == (5, 1, 5)

    @pytest.mark.parametrize("kind", ["npz", "safetensors"])
    def test_a_file_is_fed_as_it_is(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / f"inputs.{kind}"
        if kind == "npz":
            np.savez(path, x=self.X)
        else:
            save_file({"x": self.X}, path)
        for given in (path, str(path)):
            assert probe(LINEAR, taps("y"), ProbeSettings(inputs=given)) == probe(
                LINEAR, taps("y"), ProbeSettings(inputs={"x": self.X})
            )

    def test_doubles_are_fed_as_floats_and_whole_numbers_as_integers(self) -> None:
        text = "g (int32[n] ids, float[n,4] x) => (float[] y) { e = Gather(table, ids)  y = Add(e, x) }"
        model = graph(text, table=normal(3, 4))
        given = {"ids": np.array([0.0, 2.0]), "x": np.ones((2, 4))}
        assert probe(model, taps("y"), ProbeSettings(inputs=given)).layers["y"].samples == 2

    def test_what_is_missing_is_inferred_to_fit(self) -> None:
        text = "g (float[n,3] x, float[n,3] z) => (float[n,3] y) { y = Add(x, z) }"
        signals = probe(graph(text), taps("y"), ProbeSettings(inputs={"x": self.X}))
        assert signals.layers["y"].samples == 5

    def test_a_shape_may_be_for_the_only_input(self) -> None:
        assert shapes(CONV, ProbeSettings(shapes={"": (2, 4, 9, 7)})) == {"x": (2, 4, 9, 7)}
        assert shapes(CONV, ProbeSettings(shapes={"x": (2, 4, 9, 7)})) == {"x": (2, 4, 9, 7)}

    def test_a_dimension_may_be_given_by_name(self) -> None:
        assert shapes(CONV, ProbeSettings(dims={"h": 5, "n": 2})) == {"x": (2, 4, 5, 64)}

    def test_a_batch_may_be_given(self) -> None:
        signals = probe(LINEAR, taps("y"), ProbeSettings(batch=3))
        assert (signals.batch, signals.runs) == (3, 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ProbeSettings(inputs={"z": normal(5, 3)}), "'z', which is not an input"),
        (ProbeSettings(inputs={"x": normal(5, 3, 1)}), "5x3x1"),
        (ProbeSettings(inputs={"x": normal(5, 4)}), "5x4"),
        (ProbeSettings(inputs={"x": np.array([["a"] * 3])}), "which takes floats"),
        (ProbeSettings(shapes={"z": (5, 3)}), "'z', which is not an input"),
        (ProbeSettings(shapes={"x": (5, 4)}), "5x4"),
        (ProbeSettings(shapes={"x": (5, 0)}), "5x0"),
        (ProbeSettings(dims={"heigth": 5}), "'heigth'"),
        (ProbeSettings(inputs="nowhere.npz"), "does not exist"),
        (ProbeSettings(inputs=__file__), "neither .npz nor .safetensors"),
    ],
)
def test_what_does_not_fit_is_a_usage_error_that_lists_the_inputs(settings: ProbeSettings, said: str) -> None:
    model = graph("g (float[batch,3] x) => (float[batch,5] y) { y = MatMul(x, weight) }", weight=normal(3, 5))
    with pytest.raises(TargetError) as caught:
        probe(model, taps("y"), settings)
    assert caught.value.kind is FailureKind.USAGE
    assert said in str(caught.value)
    if not isinstance(settings.inputs, str):
        assert "x:batchx3" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_a_broken_file_is_a_usage_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"inputs.{kind}"
    path.write_bytes(b"not what it says")
    with pytest.raises(TargetError, match="cannot be read") as caught:
        probe(LINEAR, taps("y"), ProbeSettings(inputs=path))
    assert caught.value.kind is FailureKind.USAGE


def test_a_pickle_in_an_archive_is_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(TargetError, match="cannot be read"):
        probe(LINEAR, taps("y"), ProbeSettings(inputs=tmp_path / "inputs.npz"))


class TestNoWay:
    def test_a_shape_that_cannot_be_guessed_says_how_to_give_it(self) -> None:
        text = "g (float[n,a] x, float[n,a] z) => (float[n,5] y) { c = Concat<axis=1>(x, z)  y = MatMul(c, weight) }"
        signals = probe(graph(text, weight=normal(6, 5)), taps("y"))
        assert signals.forward is Forward.NONE
        assert "--input-shape" in signals.reason
        assert "x:nxa, z:nxa" in signals.reason
        assert "MatMul" in signals.reason

    def test_text_is_refused_in_one_sentence(self) -> None:
        model = graph("g (float[n] x) => (float[n] y) { y = Identity(x) }")
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
        signals = probe(model, taps("y"))
        assert signals.forward is Forward.NONE
        assert "'x' holds string values" in signals.reason

    def test_a_sequence_is_refused_in_one_sentence(self) -> None:
        text = "g (seq(float[n]) x) => (float[n] y) { zero = Constant<value_int=0>()  y = SequenceAt(x, zero) }"
        signals = probe(graph(text), taps("y"))
        assert signals.forward is Forward.NONE
        assert "'x' is sequence" in signals.reason

    def test_inputs_that_fit_but_fail_are_no_usage_error(self) -> None:
        text = "g (int64[n] ids) => (float[n,4] y) { y = Gather(table, ids) }"
        signals = probe(graph(text, table=normal(3, 4)), taps("y"), ProbeSettings(inputs={"ids": np.array([0, 99])}))
        assert signals.forward is Forward.NONE
        assert "Gather" in signals.reason
        assert "--inputs" in signals.reason


def test_one_probe_serves_different_settings() -> None:
    asked = OnnxProbe(Opened(LINEAR, taps("y")))
    assert [asked.run(ProbeSettings(batch=batch), {}).batch for batch in (2, 5, 2)] == [2, 5, 2]
