"""Fused and quantised operators are read, and probed, as the plain ones they stand for."""

from __future__ import annotations

from functools import partial
from typing import Any

import loading
import numpy as np
import pytest
from loading import Array, node, normal, opened
from numpy.testing import assert_allclose
from onnx import ModelProto, TensorProto, helper
from probing import value_of

from initlint.fixes import Reinit
from initlint.holding import placed
from initlint.kinds import Kind
from initlint.load.from_onnx import Opened, open_onnx
from initlint.probe.on_onnx import OnnxProbe
from initlint.probe.signals import Forward
from initlint.settings import ProbeSettings

proto = partial(loading.proto, ir_version=9)
"""What plain onnxruntime reads as well."""


def kinds(model: Opened) -> list[Kind]:
    return [layer.kind for layer in model.model.layers]


def fused(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return node(op, inputs, outputs, domain="com.microsoft", **attributes)


def same_values(model: ModelProto, feeds: dict[str, Array], value: str = "y", atol: float = 1e-5) -> Opened:
    """Assert that what is probed computes what the file does; the opened file."""
    found = open_onnx(model.SerializeToString())
    assert_allclose(value_of(found.proto, value, feeds), value_of(model, value, feeds), atol=atol)
    return found


# -- fused operators --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "activation"), [("BiasGelu", "gelu"), ("FastGelu", "gelu-tanh")])
def test_a_gelu_with_a_bias(op: str, activation: str) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), fused(op, ["h", "b"], ["a"]), node("MatMul", ["a", "v"], ["y"])]
    weights = {"w": normal(4, 8), "b": normal(8), "v": normal(8, 2)}
    model = same_values(proto(nodes, weights, {"x": ["n", 4]}), {"x": normal(3, 4)})
    first = model.model.layers[0]
    assert (first.activation, first.bias and first.bias.address) == (activation, "b")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_bias_in_a_residual_norm_belongs_to_the_map(swapped: bool) -> None:
    sum_of = ["x", "h"] if swapped else ["h", "x"]
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        fused("SkipLayerNormalization", [*sum_of, "g", "s", "b"], ["y"], epsilon=1e-5),
    ]
    weights = {"w": normal(8, 8), "g": np.ones(8, np.float32), "s": normal(8), "b": normal(8, seed=1)}
    model = same_values(proto(nodes, weights, {"x": ["n", 3, 8]}), {"x": normal(2, 3, 8)})
    assert kinds(model) == [Kind.LINEAR, Kind.LAYER_NORM]
    assert model.model.layers[0].bias is not None


def test_fused_embeddings_are_three_tables_and_a_norm() -> None:
    inputs = ["i_ids", "i_types", "words", "places", "types", "gain", "shift", "i_mask"]
    nodes = [fused("EmbedLayerNormalization", inputs, ["y", "counts"], epsilon=1e-5)]
    weights = {name: normal(rows, 8) for name, rows in (("words", 20), ("places", 10), ("types", 2))}
    weights |= {"gain": np.ones(8, np.float32), "shift": np.zeros(8, np.float32)}
    model = proto(nodes, weights, {"i_ids": ["n", "t"], "i_types": ["n", "t"], "i_mask": ["n", "t"]})
    for value in model.graph.input:
        value.type.tensor_type.elem_type = TensorProto.INT32
    feeds = {name: np.ones((2, 5), np.int32) for name in ("i_ids", "i_types", "i_mask")}
    found = same_values(model, feeds)
    assert kinds(found) == [Kind.EMBEDDING] * 3 + [Kind.LAYER_NORM]
    assert found.model.not_checked == ()
    signals = OnnxProbe(found).run(ProbeSettings(), {})
    assert signals.forward is Forward.MEASURED


# -- quantised operators ----------------------------------------------------------------------------------------------


def quantised(array: Array) -> tuple[Array, Array]:
    scale = np.float32(np.abs(array).max() / 127)
    return np.round(array / scale).astype(np.int8), np.asarray(scale)


INTEGER, SCALE = quantised(normal(6, 8))
ZERO = np.array(0, np.int8)


def check_weight(model: Opened, address: str = "w") -> None:
    """The first layer is that of INTEGER * SCALE."""
    layer = model.model.layers[0]
    assert (layer.weight.address, layer.fan_in, layer.fan_out) == (address, 6, 8)
    assert_allclose(np.concatenate(list(model.chunks(address))), INTEGER.T * SCALE, rtol=1e-5)


def test_what_the_dynamic_quantiser_writes() -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        node("MatMulInteger", ["xq", "w", "xz", "z"], ["product"]),
        node("Cast", ["product"], ["float"], to=TensorProto.FLOAT),
        node("Mul", ["xs", "s"], ["scale"]),
        node("Mul", ["float", "scale"], ["scaled"]),
        node("Add", ["scaled", "b"], ["h"]),
        node("Relu", ["h"], ["y"]),
    ]
    weights = {"w": INTEGER, "s": SCALE, "z": ZERO, "b": normal(8)}
    model = same_values(proto(nodes, weights, {"x": ["n", 6]}), {"x": normal(4, 6)}, atol=0.1)
    check_weight(model)
    assert model.model.layers[0].activation == "relu"
    assert model.model.layers[0].bias is not None
    assert model.model.not_checked == ()


@pytest.mark.parametrize("biased", [False, True])
def test_a_product_quantised_in_one_operator(biased: bool) -> None:
    inputs = ["x", "w", "s", "", "b"] if biased else ["x", "w", "s"]
    nodes = [fused("DynamicQuantizeMatMul", inputs, ["h"]), node("Relu", ["h"], ["y"])]
    weights = {"w": INTEGER, "s": SCALE, **({"b": normal(8)} if biased else {})}
    check_weight(same_values(proto(nodes, weights, {"x": ["n", 6]}), {"x": normal(4, 6)}, atol=0.1))


STEP = np.array(0.05, np.float32)


@pytest.mark.parametrize(("zero", "activation"), [(128, "identity"), (0, "relu")])
def test_a_rounded_product_and_the_relu_that_its_zero_point_stands_for(zero: int, activation: str) -> None:
    weights = {"w": INTEGER, "s": SCALE, "z": ZERO, "t": STEP, "xz": np.array(128, np.uint8)}
    weights |= {"yz": np.array(zero, np.uint8), "v": normal(8, 2)}
    nodes = [
        node("QuantizeLinear", ["x", "t", "xz"], ["xq"]),
        node("QLinearMatMul", ["xq", "t", "xz", "w", "s", "z", "t", "yz"], ["hq"]),
        node("DequantizeLinear", ["hq", "t", "yz"], ["h"]),
        node("MatMul", ["h", "v"], ["y"]),
    ]
    x = np.clip(normal(4, 6), -1, 1) / 4
    model = same_values(proto(nodes, weights, {"x": ["n", 6]}), {"x": x}, "h", atol=0.2)
    check_weight(model)
    assert model.model.layers[0].activation == activation


def test_a_quantised_convolution_with_a_scale_for_every_channel() -> None:
    kernel, bias = np.array([[[[3]]], [[[-5]]]], np.int8), np.array([100, -200], np.int32)
    weights = {"w": kernel, "s": np.array([0.1, 0.2], np.float32), "z": np.zeros(2, np.int8), "b": bias}
    weights |= {"t": STEP, "xz": np.array(128, np.uint8)}
    nodes = [
        node("QuantizeLinear", ["x", "t", "xz"], ["xq"]),
        node("QLinearConv", ["xq", "t", "xz", "w", "s", "z", "t", "xz", "b"], ["hq"]),
        node("DequantizeLinear", ["hq", "t", "xz"], ["y"]),
    ]
    x = np.clip(normal(1, 1, 3, 3), -1, 1)
    model = same_values(proto(nodes, weights, {"x": [1, 1, 3, 3]}), {"x": x}, atol=0.1)
    (layer,) = model.model.layers
    assert layer.bias is not None
    assert_allclose(np.concatenate(list(model.chunks(layer.bias.address))).ravel(), [0.5, -2.0], rtol=1e-5)


def test_a_quantised_table() -> None:
    nodes = [
        node("Gather", ["table_quantized", "i_ids"], ["rows"]),
        node("DequantizeLinear", ["rows", "s", "z"], ["e"]),
        node("MatMul", ["e", "v"], ["y"]),
    ]
    weights = {"table_quantized": INTEGER, "s": SCALE, "z": ZERO, "v": normal(8, 2)}
    model = same_values(proto(nodes, weights, {"i_ids": ["n"]}), {"i_ids": np.array([0, 5])})
    assert model.model.layers[0].kind is Kind.EMBEDDING
    assert_allclose(np.concatenate(list(model.chunks("table"))), INTEGER * SCALE, rtol=1e-5)


def test_rows_of_integers_are_no_table() -> None:
    model = opened([node("Gather", ["w", "i_ids"], ["r"]), node("Cast", ["r"], ["y"], to=1)], {"w": INTEGER},
                   {"i_ids": ["n"]})  # fmt: skip
    assert model.model.layers == ()


# -- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_a_recurrence_that_takes_samples_first(op: str) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    weights = {"w": normal(1, gates * 5, 3), "r": normal(1, gates * 5, 5), "b": normal(1, 2 * gates * 5)}
    nodes = [node(op, ["x", "w", "r", "b", "", "h"], ["y", "last"], hidden_size=5, layout=1)]
    shapes = {"x": ["n", 4, 3], "h": ["n", 1, 5]}
    model = opened(nodes, weights, shapes, outputs=["y", "last"], ir_version=9)
    assert OnnxProbe(model).run(ProbeSettings(), {}).forward is Forward.MEASURED
    feeds = {"x": normal(2, 4, 3), "h": normal(2, 1, 5)}
    turned = [node(op, ["x", "w", "r", "b", "", "h"], ["y", "last"], hidden_size=5)]
    plain = proto(turned, weights, {"x": [4, 2, 3], "h": [1, 2, 5]}, outputs=["y", "last"])
    swapped = {name: array.transpose(1, 0, 2) for name, array in feeds.items()}
    for value, order in (("y", (2, 0, 1, 3)), ("last", (1, 0, 2))):
        expected = value_of(plain, value, swapped).transpose(order)
        assert_allclose(value_of(model.proto, value, feeds), expected, atol=1e-6)


def test_pieces_that_are_asked_for_by_number() -> None:
    """The newer exporter's unoptimised way to cut a packed weight."""
    nodes = [
        helper.make_node("Constant", [], ["sizes"], value_ints=[4, 8]),
        helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        node("SplitToSequence", ["packed.weight", "sizes"], ["pieces"], axis=1),
        node("SequenceAt", ["pieces", "zero"], ["w"]),
        node("SequenceAt", ["pieces", "one"], ["v"]),
        node("MatMul", ["x", "w"], ["h"]),
        node("MatMul", ["h", "v"], ["y"]),
    ]
    weights = {"packed.weight": normal(4, 12)}
    model = same_values(proto(nodes, weights, {"x": ["n", 4]}), {"x": normal(2, 4)})
    assert [tensor.address for tensor in model.model.tensors] == ["packed.weight[:, 0:4]", "packed.weight[:, 4:12]"]
    assert model.model.not_checked == ()


# -- pieces of one tensor ---------------------------------------------------------------------------------------------


def test_layers_that_read_other_pieces_of_a_tensor_are_told_apart() -> None:
    nodes = [
        node("Split", ["attn.in_proj_weight", "sizes"], ["q", "kv"], axis=0),
        node("Transpose", ["q"], ["qt"], perm=[1, 0]),
        node("Transpose", ["kv"], ["kvt"], perm=[1, 0]),
        node("MatMul", ["x", "qt"], ["a"]),
        node("MatMul", ["m", "kvt"], ["b"]),
        node("Transpose", ["q"], ["qt2"], perm=[1, 0]),
        node("MatMul", ["a", "qt2"], ["c"]),
    ]
    weights = {"attn.in_proj_weight": normal(12, 4), "sizes": np.array([4, 8])}
    model = opened(nodes, weights, {"x": ["n", 4], "m": ["n", 4]}, outputs=["b", "c"])
    layers = {layer.weight.address: layer for layer in model.model.layers}
    assert set(layers) == {"attn.in_proj_weight[0:4]", "attn.in_proj_weight[4:12]"}
    assert layers["attn.in_proj_weight[0:4]"].calls == 2, "the same piece, cut again, is the same layer"
    assert layers["attn.in_proj_weight[4:12]"].weight.shape == (8, 4)


def test_members_of_a_stack_are_named_by_their_number() -> None:
    nodes = [node("Gather", ["bank", str(number)], [f"w{number}"], axis=0) for number in range(3)]
    nodes += [
        node("MatMul", ["x", "w0"], ["a"]),
        node("MatMul", ["a", "w1"], ["b"]),
        node("Slice", ["w2", "starts", "ends"], ["cut"]),
        node("MatMul", ["b", "cut"], ["y"]),
    ]
    weights = {"bank": normal(3, 4, 4), "starts": np.array([0, 1]), "ends": np.array([4, 3])}
    weights |= {str(number): np.array(number) for number in range(3)}
    model = opened(nodes, weights, {"x": ["n", 4]})
    layers = [layer.weight for layer in model.model.layers]
    assert [weight.address for weight in layers] == ["bank[0]", "bank[1]", "bank[2, :, 1:3]"]
    for weight in layers:
        fix = placed(model.model, Reinit(weight.address, scheme="he_normal"))
        assert isinstance(fix, Reinit)
        assert f'"bank").data{weight.address.removeprefix("bank")}' in fix.code


def test_a_loop_hands_its_weights_on() -> None:
    """As tf2onnx writes recurrences: weights are states that no round changes."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            node("MatMul", ["state", "w"], ["m"]),
            node("Tanh", ["m"], ["next"]),
            node("Identity", ["w"], ["kept"]),
            node("Identity", ["go"], ["on"]),
        ],
        "body",
        [value("round", TensorProto.INT64, []), value("go", TensorProto.BOOL, []),
         value("state", TensorProto.FLOAT, None), value("w", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, None),
         value("kept", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [node("Loop", ["rounds", "yes", "x", "cell.weight"], ["y", ""], body=body)]
    weights = {"rounds": np.array(3), "yes": np.array(True), "cell.weight": normal(4, 4)}
    (layer,) = opened(nodes, weights, {"x": ["n", 4]}).model.layers
    assert (layer.weight.address, layer.activation) == ("cell.weight", "tanh")


# -- norms that are gone ----------------------------------------------------------------------------------------------


def folded_evidence(nodes: list[Any], weights: dict[str, Array]) -> list[str]:
    return [each.evidence for each in opened(nodes, weights, {"x": ["n", 2, 8, 8]}).model.folded_norms]


def test_a_convolution_that_took_the_name_of_a_norm() -> None:
    conv = node("Conv", ["x", "net/conv/merged_input:0"], ["y"], name="net/bn_1/batchnorm/mul_1")
    (evidence,) = folded_evidence([conv], {"net/conv/merged_input:0": normal(3, 2, 3, 3)})
    assert "named after a norm" in evidence


def test_what_the_optimiser_of_onnxruntime_made() -> None:
    conv = node("Conv", ["x", "ConvBnFusion_W_conv.weight", "ConvBnFusion_BN_B_bn.bias"], ["y"])
    weights = {"ConvBnFusion_W_conv.weight": normal(3, 2, 3, 3), "ConvBnFusion_BN_B_bn.bias": np.zeros(3, np.float32)}
    (evidence,) = folded_evidence([conv], weights)
    assert "optimiser" in evidence


@pytest.mark.parametrize(("factor", "found"), [(0.9995004, 1), (1.0, 0), (0.5, 0), (1e-5, 0)])
def test_a_norm_that_became_its_factor(factor: float, found: int) -> None:
    nodes = [node("Conv", ["x", "w"], ["h"]), node("Mul", ["h", "f"], ["m"]), node("Relu", ["m"], ["y"])]
    weights = {"w": normal(3, 2, 3, 3), "f": np.full((1, 3, 1, 1), factor, np.float32)}
    assert len(folded_evidence(nodes, weights)) == found
