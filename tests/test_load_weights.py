"""A weight is found wherever a file keeps it: behind casts and quantisation, in operators that are not known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from loading import Array, node, normal, opened, proto, refused, round_trips, rows
from onnx import ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

import initlint
from initlint.load.from_onnx import Opened, open_onnx
from initlint.model import Layer

OPSETS = (9, 11, 13, 17, 18, 21, onnx.defs.onnx_opset_version())


def only(model: Opened) -> Layer:
    assert len(model.model.layers) == 1, [layer.name for layer in model.model.layers]
    round_trips(model)
    return model.model.layers[0]


W = normal(6, 4)


def through(*nodes: NodeProto, opset: int = 18, **weights: Array | TensorProto) -> Opened:
    """x @ w, where ``nodes`` compute w."""
    return opened([*nodes, node("MatMul", ["x", "w"], ["y"])], weights, opset=opset)


TWICE = np.concatenate([W, W])
QUANTISED = np.clip(np.round(W / 0.02), -128, 127).astype(np.int8)
BLOCKED = np.repeat(np.array([[0.5] * 4, [0.25] * 4, [2.0] * 4], np.float32), 2, axis=0)
SCALES = BLOCKED[::2]

WAYS: dict[str, tuple[Opened, Array]] = {
    "Constant": (through(node("Constant", [], ["w"], value=numpy_helper.from_array(W))), W),
    "ConstantOfShape": (
        through(node("ConstantOfShape", ["s"], ["w"], value=helper.make_tensor("", 1, [1], [0.5])), s=np.array([6, 4])),
        np.full((6, 4), 0.5, np.float32),
    ),
    "Identity": (through(node("Identity", ["v"], ["w"]), v=W), W),
    "Cast": (through(node("Cast", ["v"], ["w"], to=1), v=W.astype(np.float16)), W.astype(np.float16)),
    "Transpose": (through(node("Transpose", ["v"], ["w"], perm=[1, 0]), v=np.ascontiguousarray(W.T)), W),
    "Transpose without perm": (through(node("Transpose", ["v"], ["w"]), v=np.ascontiguousarray(W.T)), W),
    "Reshape": (through(node("Reshape", ["v", "s"], ["w"]), v=W.reshape(-1), s=np.array([0 + 6, -1])), W),
    "Unsqueeze and Squeeze": (
        through(node("Unsqueeze", ["v", "a"], ["u"]), node("Squeeze", ["u", "a"], ["w"]), v=W, a=np.array([0])),
        W,
    ),
    "Slice": (
        through(
            node("Slice", ["v", "b", "e", "a"], ["w"]),
            v=np.concatenate([W, W]), b=np.array([6]), e=np.array([99]), a=np.array([0]),
        ),
        W,
    ),
    "Slice with attributes": (through(node("Slice", ["v"], ["w"], starts=[0], ends=[6]), opset=9, v=TWICE), W),
    "Concat": (through(node("Concat", ["u", "v"], ["w"], axis=0), u=W[:2], v=W[2:]), W),
    "Split": (through(node("Split", ["v", "n"], ["w", "rest"], axis=0), v=TWICE, n=np.array([6, 6])), W),
    "DequantizeLinear per tensor": (
        through(node("DequantizeLinear", ["v", "s"], ["w"]), v=QUANTISED, s=np.array(0.02, np.float32)),
        QUANTISED * np.float32(0.02),
    ),
    "DequantizeLinear per axis": (
        through(
            node("DequantizeLinear", ["v", "s", "z"], ["w"], axis=1),
            v=QUANTISED, s=np.array([1, 2, 3, 4], np.float32), z=np.array([1, 0, 0, 0], np.int8),
        ),
        (QUANTISED - np.array([1.0, 0, 0, 0], np.float32)) * np.array([1, 2, 3, 4], np.float32),
    ),
    "DequantizeLinear in blocks": (
        through(node("DequantizeLinear", ["v", "s"], ["w"], axis=0, block_size=2), opset=21, v=QUANTISED, s=SCALES),
        QUANTISED * BLOCKED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_weight_is_found_behind(way: str) -> None:
    model, expected = WAYS[way]
    layer = only(model)
    assert model.model.not_checked == ()
    np.testing.assert_allclose(rows(model, layer.weight.address).astype(np.float32), expected.T)


DRAWS = {
    "normal": (node("RandomNormal", [], ["w"], shape=[60, 40], mean=0.5, scale=3.0), 0.5, 3.0),
    "uniform": (node("RandomUniform", [], ["w"], shape=[60, 40], low=-1.0, high=5.0), 2.0, 3**0.5),
    "normal like a stored tensor": (node("RandomNormalLike", ["like"], ["w"], scale=3.0), 0.0, 3.0),
    "uniform like a stored tensor": (node("RandomUniformLike", ["like"], ["w"], high=6.0), 3.0, 3**0.5),
}


@pytest.mark.parametrize("way", DRAWS)
def test_a_weight_that_is_drawn_at_run_time_is_drawn_once_from_its_distribution(way: str) -> None:
    draw, mean, std = DRAWS[way]
    given = {"like": np.zeros((60, 40), np.float32)} if draw.input else {}
    model = through(draw, **given)
    layer = only(model)
    values = rows(model, layer.weight.address)
    assert (layer.weight.shape, model.model.not_checked) == ((40, 60), ())
    assert values.mean() == pytest.approx(mean, abs=0.2)
    assert values.std() == pytest.approx(std, rel=0.1)
    assert [tensor.address for tensor in model.model.tensors] == ["w"]
    assert model.stored("w", values)[0] == "w"


def test_a_draw_too_large_to_make_is_not_checked_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("initlint.load.drawing.MAX_COMPUTED", 23)
    model = through(node("RandomNormal", [], ["w"], shape=[6, 4]))
    assert model.model.layers[0].weight.shape == (4, 6)
    assert list(model.chunks("w")) == []
    assert "drawn anew" in model.model.not_checked[0].reason
    assert "w" in model.model.uneditable


def test_noise_stays_noise() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("RandomNormal", [], ["e"], shape=[1, 4]),
        node("Add", ["m", "e"], ["y"]),
    ]
    model = opened(nodes, {"w": W})
    assert [tensor.address for tensor in model.model.tensors] == ["w"]
    assert any(each.op_type == "RandomNormal" for each in model.proto.graph.node)


def sparse(array: Array, flat: bool = True, **changes: Any) -> SparseTensorProto:
    places = np.flatnonzero(array) if flat else np.argwhere(array)
    indices = numpy_helper.from_array(changes.get("indices", places.astype(np.int64)), "")
    values = numpy_helper.from_array(array[array != 0], "w")
    return helper.make_sparse_tensor(values, indices, changes.get("dims", array.shape))


def sparsely(way: str, stored: SparseTensorProto) -> ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    if way == "constant":
        nodes.insert(0, node("Constant", [], ["w"], sparse_value=stored))
    model = proto(nodes)
    if way == "initializer":
        model.graph.sparse_initializer.append(stored)
    return model


@pytest.mark.parametrize("flat", [True, False], ids=["positions", "positions per axis"])
@pytest.mark.parametrize("way", ["initializer", "constant"])
def test_a_sparse_weight_is_written_out(way: str, flat: bool) -> None:
    array = np.where(W > 0, W, 0).astype(np.float32)
    model = open_onnx(sparsely(way, sparse(array, flat)).SerializeToString())
    np.testing.assert_array_equal(rows(model, only(model).weight.address), array.T)
    assert not model.proto.graph.sparse_initializer


@pytest.mark.parametrize("way", ["initializer", "constant"])
def test_a_sparse_weight_of_too_many_values_is_named(way: str) -> None:
    (entry,) = open_onnx(sparsely(way, sparse(W, dims=[2**20, 2**20])).SerializeToString()).model.not_checked
    assert entry.at == "w"
    assert "1,099,511,627,776 values" in entry.reason


@pytest.mark.parametrize("way", ["initializer", "constant"])
def test_a_sparse_weight_that_contradicts_itself_is_refused(way: str) -> None:
    count = np.count_nonzero(W)
    for changes in (
        {"indices": np.arange(count) + 10**6},
        {"indices": np.arange(count) - 1},
        {"indices": np.arange(3)},
    ):
        assert "sparse" in refused(sparsely(way, sparse(W, **changes)))


@pytest.mark.parametrize("name", ["a scale", "a weight that is too large"])
def test_a_file_without_a_weight_that_can_be_checked_is_not_called_clean(name: str) -> None:
    scale = proto([node("Mul", ["x", "w"], ["y"])], {"w": np.array(0.5, np.float32)}, {"x": ["batch", 4]})
    huge = sparsely("initializer", sparse(W, dims=[2**20, 2**20]))
    report = initlint.check(scale if name == "a scale" else huge)
    assert (report.status, report.exit_status) == ("unsupported", 3)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2"])
def test_floating_point_types(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    model = through(w=W.astype(dtype))
    assert only(model).weight.dtype == name
    np.testing.assert_array_equal(rows(model, "w"), W.astype(dtype).T)


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4])
def test_quantised_types(kind: int) -> None:
    stored = helper.make_tensor("v", kind, [6, 4], list(range(8)) * 3)
    model = through(node("DequantizeLinear", ["v", "s"], ["w"]), opset=21, v=stored, s=np.array(0.5, np.float32))
    assert len(model.model.layers) == 1
    np.testing.assert_allclose(rows(model, model.model.layers[0].weight.address).T.reshape(-1)[:8], np.arange(8) / 2)


def test_several_tensors_in_one_external_file(tmp_path: Path) -> None:
    a, b = normal(6, 4), normal(4, 3, seed=1)
    model = proto([node("MatMul", ["x", "0.weight"], ["h"]), node("MatMul", ["h", "1.weight"], ["y"])],
                  {"0.weight": a, "1.weight": b})  # fmt: skip
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="all.bin", size_threshold=0)
    loaded = open_onnx(path)
    round_trips(loaded)
    np.testing.assert_array_equal(rows(loaded, "0.weight"), a.T)
    np.testing.assert_array_equal(rows(loaded, "1.weight"), b.T)


# -- integer and unknown operators -------------------------------------------------------------------------------------


def test_qlinear_conv_and_matmul_are_dequantised() -> None:
    scale, zero = np.array([0.5, 2.0], np.float32), np.array([1, 0], np.int8)
    w = np.arange(-4, 4, dtype=np.int8).reshape(2, 1, 2, 2)
    common: dict[str, Any] = {"xs": np.array(1, np.float32), "xz": np.array(0, np.int8)}
    model = opened([node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "xs", "xz"], ["y"])],
                   common | {"w": w, "ws": scale, "wz": zero})  # fmt: skip
    expected = (w.reshape(2, 4) - zero[:, None].astype(np.float32)) * scale[:, None]
    np.testing.assert_allclose(rows(model, "w"), expected)
    model = opened([node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "xs", "xz"], ["y"])],
                   common | {"w": w.reshape(4, 2), "ws": scale, "wz": zero})  # fmt: skip
    assert model.model.layers[0].weight.shape == (2, 4)
    np.testing.assert_allclose(rows(model, "w"), ((w.reshape(4, 2) - zero.astype(np.float32)) * scale).T)


@pytest.mark.parametrize(
    ("op", "domain", "inputs"),
    [
        ("MatMulInteger", "", ["x", "w"]),
        ("ConvInteger", "", ["x", "w"]),
        ("MatMulNBits", "com.microsoft", ["x", "w", "w"]),
        ("DeformConv", "", ["x", "w", "x"]),
        ("Mystery", "org.example", ["x", "w"]),
    ],
)
def test_weights_of_other_operators_are_listed(op: str, domain: str, inputs: list[str]) -> None:
    integers = "Integer" in op or "NBits" in op
    weight = np.arange(16, dtype=np.uint8).reshape(4, 4) if integers else normal(4, 4)
    model = opened([node(op, inputs, ["y"], domain=domain)], {"w": weight})
    assert "w" in [entry.at for entry in model.model.not_checked]
    assert op in model.model.not_checked[0].reason
