"""Every way to write a weighted operation is found, in PyTorch's shape, with its fans, and can be given back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from loading import Array, node, normal, opened, round_trips, rows
from onnx import NodeProto, TensorProto, helper, numpy_helper

from initlint.kinds import Kind, Role
from initlint.load.from_onnx import Opened
from initlint.model import Layer, View

OPSETS = (9, 11, 13, 17, 18, 21, onnx.defs.onnx_opset_version())


def only(model: Opened) -> Layer:
    assert len(model.model.layers) == 1, [layer.name for layer in model.model.layers]
    round_trips(model)
    return model.model.layers[0]


# -- linear layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("shape_c", [None, (3,), (1, 3)])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_gemm(trans_b: int, shape_c: tuple[int, ...] | None, alpha: float) -> None:
    w = normal(3, 5)
    weights = {"fc.weight": w if trans_b else np.ascontiguousarray(w.T)}
    if shape_c:
        weights["fc.bias"] = normal(*shape_c)
    model = opened([node("Gemm", ["x", *weights], ["y"], transB=trans_b, alpha=alpha)], weights)
    layer = only(model)
    assert (layer.name, layer.kind, layer.fan_in, layer.fan_out) == ("fc", Kind.LINEAR, 5, 3)
    assert (layer.weight.shape, layer.weight.view) == ((3, 5), View(1, 3, 5))
    assert (layer.bias is not None) == (shape_c is not None)
    np.testing.assert_allclose(rows(model, "fc.weight"), alpha * w)


def test_gemm_scales_its_bias_by_beta() -> None:
    weights = {"w": normal(3, 5), "b": normal(3)}
    model = opened([node("Gemm", ["x", "w", "b"], ["y"], transB=1, beta=0.5)], weights)
    only(model)
    np.testing.assert_allclose(rows(model, "b")[:, 0], 0.5 * weights["b"])


@pytest.mark.parametrize("trans_a", [0, 1])
def test_gemm_with_its_weight_on_the_left(trans_a: int) -> None:
    w = normal(3, 5)
    stored = np.ascontiguousarray(w.T) if trans_a else w
    model = opened([node("Gemm", ["w", "x"], ["y"], transA=trans_a)], {"w": stored})
    assert only(model).weight.shape == (3, 5)
    np.testing.assert_array_equal(rows(model, "w"), w)
    assert model.taps[0].unit_axis == 0


@pytest.mark.parametrize("first", [True, False])
def test_matmul_and_add_in_either_order_are_one_layer(first: bool) -> None:
    w = normal(5, 3)
    operands = ["fc.bias", "h"] if first else ["h", "fc.bias"]
    model = opened(
        [node("MatMul", ["x", "fc.weight"], ["h"]), node("Add", operands, ["y"])],
        {"fc.weight": w, "fc.bias": normal(3)},
    )
    layer = only(model)
    assert layer.bias is not None
    assert layer.bias.address == "fc.bias"
    assert model.taps[0].value == "y"
    np.testing.assert_array_equal(rows(model, "fc.weight"), w.T)


def test_what_is_added_is_a_bias_only_along_the_units() -> None:
    for shape in ((1,), (5, 3), (3, 1)):
        model = opened(
            [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["y"])],
            {"w": normal(5, 3), "b": normal(*shape)},
        )
        assert only(model).bias is None, shape


def test_matmul_with_its_weight_on_the_left() -> None:
    model = opened([node("MatMul", ["w", "x"], ["y"])], {"w": normal(3, 5)})
    assert (only(model).weight.shape, only(model).fan_in) == ((3, 5), 5)
    assert model.taps[0].unit_axis == -2


def test_expert_weights_are_groups() -> None:
    w = normal(4, 5, 3)
    model = opened([node("MatMul", ["x", "w"], ["y"])], {"w": w})
    layer = only(model)
    assert (layer.weight.shape, layer.weight.view, layer.fan_in) == ((4, 3, 5), View(4, 3, 5), 5)
    np.testing.assert_array_equal(rows(model, "w"), w.swapaxes(1, 2).reshape(12, 5))


@pytest.mark.parametrize(
    ("equation", "shape", "view"),
    [
        ("bld,dhk->blhk", (6, 2, 3), View(1, 6, 6)),
        ("blhk,hkd->bld", (2, 3, 6), View(1, 6, 6)),
        ("bi,oi->bo", (4, 6), View(1, 4, 6)),
        ("bi,io", (6, 4), View(1, 4, 6)),
        ("bei,eio->beo", (3, 6, 4), View(3, 4, 6)),
        ("b i , o i -> b o", (4, 6), View(1, 4, 6)),
    ],
)
def test_einsum_as_a_linear_map(equation: str, shape: tuple[int, ...], view: View) -> None:
    model = opened([node("Einsum", ["x", "w"], ["y"], equation=equation)], {"w": normal(*shape)})
    assert only(model).weight.view == view
    assert only(model).kind is Kind.LINEAR


def test_einsum_with_the_weight_first_and_with_a_mixture_of_experts() -> None:
    assert only(opened([node("Einsum", ["w", "x"], ["y"], equation="oi,bi->bo")], {"w": normal(4, 6)})).fan_in == 6
    mixed = opened(
        [node("Einsum", ["x", "w", "g"], ["y"], equation="bteh,ehd,bte->btd")],
        {"w": normal(3, 6, 4)},
        {"x": None, "g": None},
    )
    assert only(mixed).weight.view == View(3, 4, 6)


@pytest.mark.parametrize("equation", ["bi,ii->b", "...i,io->...o", "bi,jo->bo", "bi,io,o->b"])
def test_einsum_that_is_no_linear_map_is_listed(equation: str) -> None:
    inputs = ["x", "w", "x"] if equation.count(",") == 2 else ["x", "w"]
    model = opened([node("Einsum", inputs, ["y"], equation=equation)], {"w": normal(6, 6)})
    assert model.model.layers or [entry.at for entry in model.model.not_checked] == ["w"]


# -- convolutions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(("groups", "per_group"), [(1, 4), (2, 2), (4, 1)], ids=["full", "grouped", "depthwise"])
def test_conv(axes: int, groups: int, per_group: int) -> None:
    w, kernel = normal(8, per_group, *[3] * axes), 3**axes
    model = opened(
        [node("Conv", ["x", "c.weight", "c.bias"], ["y"], group=groups)], {"c.weight": w, "c.bias": normal(8)}
    )
    layer = only(model)
    assert layer.weight.shape == w.shape
    assert layer.weight.view == View(groups, 8 // groups, per_group * kernel)
    assert (layer.fan_in, layer.fan_out) == (per_group * kernel, 8 // groups * kernel)
    np.testing.assert_array_equal(rows(model, "c.weight"), w.reshape(8, -1))


@pytest.mark.parametrize(
    ("groups", "strides", "fan_in"),
    [(1, [1, 1], 4 * 16), (1, [2, 2], 4 * 4), (2, [2, 2], 2 * 4), (4, [4, 4], 1), (1, [8, 8], 1)],
)
def test_transposed_conv(groups: int, strides: list[int], fan_in: int) -> None:
    w = normal(4, 3, 4, 4)
    model = opened([node("ConvTranspose", ["x", "w"], ["y"], group=groups, strides=strides)], {"w": w})
    layer = only(model)
    assert (layer.kind, layer.fan_in, layer.fan_out) == (Kind.CONV_TRANSPOSE, fan_in, 3 * 16)
    assert layer.weight.view == View(groups, 3, 4 // groups * 16)
    expected = w.reshape(groups, 4 // groups, 3, 16).transpose(0, 2, 1, 3).reshape(groups * 3, -1)
    np.testing.assert_array_equal(rows(model, "w"), expected)


# -- tables, recurrences, attention, PRelu -----------------------------------------------------------------------------


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
def test_embedding(cast: bool, kind: int) -> None:
    nodes = [node("Cast", ["i_ids"], ["j"], to=kind), node("Gather", ["t.weight", "j"], ["y"])]
    model = opened(
        nodes if cast else [node("Gather", ["t.weight", "i_ids"], ["y"])], {"t.weight": normal(7, 3)}, {"i_ids": [2]}
    )
    layer = only(model)
    assert (layer.kind, layer.name, layer.fan_in, layer.weight.role) == (Kind.EMBEDDING, "t", None, Role.TABLE)


GATES = {"LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n"), "RNN": ()}
ONNX_ORDER = {"LSTM": "iofg", "GRU": "zrn", "RNN": "h"}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrence(op: str, direction: str, bias: bool) -> None:
    count, order = (2 if direction == "bidirectional" else 1), ONNX_ORDER[op]
    gates = np.stack([np.full((2, 5), ord(gate)) for gate in order]).reshape(-1, 5).astype(np.float32)
    weights = {"W": np.stack([gates + d for d in range(count)]), "R": normal(count, 2 * len(order), 2)}
    if bias:
        weights["B"] = normal(count, 4 * len(order))
    model = opened([node(op, ["x", *weights], ["y"], hidden_size=2, direction=direction)], weights)
    round_trips(model)
    layers = model.model.layers
    assert [layer.segment for layer in layers] == {"bidirectional": ["forward", "reverse"]}.get(direction, [direction])
    for position, layer in enumerate(layers):
        tail = "_reverse" if layer.segment == "reverse" else ""
        assert layer.weight.parts == GATES[op]
        assert layer.weight.address.endswith(f"weight_ih_l0{tail}")
        assert layer.recurrent is not None
        assert layer.recurrent.shape == (2 * len(order), 2)
        assert (layer.bias is not None) == (layer.recurrent_bias is not None) == bias
        found = "".join(chr(int(value) - position) for value in rows(model, layer.weight.address)[::2, 0])
        assert found == ("".join(GATES[op]) or "h")


def test_stacked_recurrences_are_numbered_by_module() -> None:
    weights: dict[str, Array] = {}
    nodes = []
    for i, width in enumerate((5, 2)):
        weights |= {f"onnx::LSTM_{i}W": normal(1, 8, width, seed=i), f"onnx::LSTM_{i}R": normal(1, 8, 2, seed=10 + i)}
        nodes.append(
            node("LSTM", ["h0" if i else "x", *list(weights)[-2:]], [f"y{i}"], hidden_size=2, name=f"/rnn/LSTM_{i}")
        )
        nodes.append(node("Squeeze", [f"y{i}", "one"], [f"h{i}"]))
    model = opened(nodes, weights | {"one": np.array([1])}, outputs=["h1"])
    assert [layer.weight.address for layer in model.model.layers] == ["rnn.weight_ih_l0", "rnn.weight_ih_l1"]


def test_fused_attention_is_split_into_q_k_v() -> None:
    w = normal(6, 18)
    model = opened([node("Attention", ["x", "a.weight", "a.bias"], ["y"], domain="com.microsoft", num_heads=2)],
                   {"a.weight": w, "a.bias": normal(18)})  # fmt: skip
    layer = only(model)
    assert layer.weight.part_addresses == ("a.weight[q]", "a.weight[k]", "a.weight[v]")
    assert layer.weight.shape == (18, 6)
    np.testing.assert_array_equal(rows(model, "a.weight"), w.T)


@pytest.mark.parametrize("shape", [(1,), (4, 1, 1)], ids=["one slope", "per channel"])
def test_prelu(shape: tuple[int, ...]) -> None:
    nodes = [node("Conv", ["x", "c.weight"], ["h"]), node("PRelu", ["h", "act.weight"], ["y"])]
    model = opened(nodes, {"c.weight": normal(4, 3, 3, 3), "act.weight": normal(*shape)})
    conv, prelu = model.model.layers
    assert (conv.activation, prelu.kind, prelu.weight.size) == ("prelu", Kind.PRELU, shape[0])
    assert prelu.weight.role is Role.SLOPE


# -- bodies and functions ----------------------------------------------------------------------------------------------


def body(nodes: list[NodeProto], inputs: list[str], outputs: list[str], **weights: Array) -> onnx.GraphProto:
    values = [[helper.make_tensor_value_info(name, 1, None) for name in names] for names in (inputs, outputs)]
    return helper.make_graph(nodes, "body", *values, [numpy_helper.from_array(w, n) for n, w in weights.items()])


def test_layers_in_both_branches_of_an_if() -> None:
    yes = body([node("MatMul", ["x", "yes.weight"], ["r"])], [], ["r"], **{"yes.weight": normal(4, 4)})
    no = body([node("MatMul", ["x", "outer.weight"], ["r"])], [], ["r"])
    model = opened(
        [node("If", ["c"], ["y"], then_branch=yes, else_branch=no)], {"outer.weight": normal(4, 4), "c": np.array(True)}
    )
    assert {layer.weight.address.rpartition("/")[2] for layer in model.model.layers} == {"yes.weight", "outer.weight"}
    assert model.taps == (), "values of a body cannot be measured"


def test_a_recurrence_written_as_a_loop_or_a_scan() -> None:
    """The state is constant at first, but not in the body: the recurrent weight is a layer."""
    step = [node("MatMul", ["h", "hh.weight"], ["a"]), node("Add", ["a", "e"], ["b"]), node("Tanh", ["b"], ["n"])]
    out = [*step, node("Identity", ["n"], ["o"])]
    scan = node("Scan", ["h0", "x"], ["last", "y"], body=body(out, ["h", "e"], ["n", "o"]), num_scan_inputs=1)
    loop_step = [
        node("MatMul", ["h", "hh.weight"], ["a"]),
        node("Add", ["a", "x"], ["n"]),
        node("Identity", ["go"], ["on"]),
    ]
    loop = node("Loop", ["n_steps", "go0", "h0"], ["y"], body=body(loop_step, ["i", "go", "h"], ["on", "n"]))
    weights = {
        "hh.weight": normal(4, 4),
        "h0": np.zeros((1, 4), np.float32),
        "n_steps": np.array(3),
        "go0": np.array(True),
    }
    for each in (scan, loop):
        assert [layer.name for layer in opened([each], weights).model.layers] == ["hh"]


def test_local_functions_are_seen_through() -> None:
    """Nested calls, one of them twice, an attribute handed down, weights handed in."""
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    leaky = node("LeakyRelu", ["b"], ["z"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope"))
    act = helper.make_function("f", "Act", ["b"], ["z"], [leaky], opset, ["slope"])
    dense = helper.make_function(
        "f", "Dense", ["a", "w"], ["r"],
        [node("MatMul", ["a", "w"], ["h"]), node("Act", ["h"], ["r"], domain="f", slope=0.3)], opset,
    )  # fmt: skip
    nodes = [node("Dense", ["x", "0.weight"], ["h"], domain="f"), node("Dense", ["h", "1.weight"], ["y"], domain="f")]
    model = opened(nodes, {"0.weight": normal(4, 4), "1.weight": normal(4, 4, seed=1)}, functions=[dense, act])
    assert [(layer.name, layer.activation) for layer in model.model.layers] == [
        ("0", "leaky-relu"),
        ("1", "leaky-relu"),
    ]
    assert model.model.layers[1].input_activation == "leaky-relu"


# -- versions, ties ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", OPSETS)
def test_opsets(opset: int) -> None:
    nodes = [
        node("Conv", ["x", "0.weight"], ["c"]), node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
        node("Relu", ["n"], ["r"]), node("GlobalAveragePool", ["r"], ["p"]), node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "1.weight", "z"][: 2 if opset >= 11 else 3], ["y"], transB=1),
    ]  # fmt: skip
    weights = {"0.weight": normal(4, 3, 3, 3), "1.weight": normal(2, 4), "z": normal(2)}
    weights |= {name: np.ones(4, np.float32) for name in "gbmv"}
    model = opened(nodes, weights, opset=opset)
    assert [layer.kind for layer in model.model.layers] == [Kind.CONV, Kind.BATCH_NORM, Kind.LINEAR]
    assert model.model.layers[0].norm_after is Kind.BATCH_NORM


def test_old_files_list_initializers_as_inputs() -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    model = opened(nodes, {"w": normal(4, 4)}, {"x": [1, 4], "w": [4, 4]}, opset=9, ir_version=3)
    assert only(model).weight.address == "w"


def test_an_embedding_tied_to_the_head_is_one_tensor() -> None:
    nodes = [node("Gather", ["wte.weight", "i_ids"], ["e"]), node("Transpose", ["wte.weight"], ["t"], perm=[1, 0]),
             node("MatMul", ["e", "t"], ["y"], name="/head/MatMul")]  # fmt: skip
    model = opened(nodes, {"wte.weight": normal(7, 3)}, {"i_ids": [2]})
    assert [layer.kind for layer in model.model.layers] == [Kind.EMBEDDING, Kind.LINEAR]
    assert {address for _, address in model.model.tied} == {layer.weight.address for layer in model.model.layers}
    assert model.model.parameters == 21


def test_a_module_called_twice_is_one_layer() -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]), node("MatMul", ["r", "w"], ["y"])]
    model = opened(nodes, {"w": normal(4, 4)})
    assert only(model).calls == 2


@pytest.mark.parametrize(
    ("nodes", "computed"),
    [
        ([node("Transpose", ["raw"], ["w"], perm=[1, 0])], False),
        ([node("Cast", ["raw"], ["cast"], to=TensorProto.FLOAT), node("Transpose", ["cast"], ["w"])], False),
        ([node("Exp", ["raw"], ["w"])], True),
        ([node("Softplus", ["raw"], ["soft"]), node("Transpose", ["soft"], ["w"])], True),
        ([node("Mul", ["raw", "mask"], ["w"])], True),
    ],
    ids=["transposed", "cast", "exp", "softplus, transposed", "masked"],
)
def test_a_weight_that_arithmetic_makes_is_told_from_one_that_is_arranged(
    nodes: list[NodeProto], computed: bool
) -> None:
    weights = {"raw": normal(4, 4), "mask": np.eye(4, dtype=np.float32)}
    model = opened([*nodes, node("MatMul", ["x", "w"], ["y"])], weights)
    assert [layer.weight.computed for layer in model.model.layers] == [computed]
