"""Whatever a file holds, opening it gives a Model or one clear sentence, soon and in bounded memory."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from loading import linear, node, normal, opened, proto, refused, settled
from onnx import ModelProto, TensorProto, helper, numpy_helper

from initlint.errors import FailureKind
from initlint.kinds import Kind
from initlint.load.from_onnx import Opened, open_onnx
from initlint.probe.on_onnx import OnnxProbe
from initlint.probe.signals import Forward
from initlint.settings import ProbeSettings

SECONDS = 5.0


def small() -> ModelProto:
    """Something of everything that fuzzing should reach: maps, norms, a table, a recurrence, a body, a function."""
    body = helper.make_graph(
        [node("MatMul", ["h", "inner.weight"], ["z"])],
        "body",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(normal(4, 4), "inner.weight")],
    )
    function = helper.make_function(
        "local", "Twice", ["a"], ["c"], [node("Add", ["a", "a"], ["b"]), node("Relu", ["b"], ["c"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    nodes = [
        node("Gather", ["table.weight", "i_ids"], ["e"]),
        node("LSTM", ["e", "rnn.W", "rnn.R", "rnn.B"], ["s"], hidden_size=4),
        node("Reshape", ["s", "to"], ["f"]),
        node("Gemm", ["f", "fc.weight", "fc.bias"], ["g"], transB=1, alpha=0.5),
        node("Twice", ["g"], ["r"], domain="local"),
        node("LayerNormalization", ["r", "norm.weight", "norm.bias"], ["h"]),
        node("If", ["condition"], ["i"], then_branch=body, else_branch=body),
        node("Pow", ["i", "two"], ["p"]),
        node("ReduceMean", ["p", "axes"], ["m"]),
        node("Sqrt", ["m"], ["q"]),
        node("Div", ["i", "q"], ["d"]),
        node("Cast", ["head.weight_half"], ["w32"], to=TensorProto.FLOAT),
        node("Transpose", ["w32"], ["wt"], perm=[1, 0]),
        node("MatMul", ["d", "wt"], ["o"]),
        node("Add", ["o", "head.bias"], ["y"]),
    ]
    weights = {
        "table.weight": normal(7, 3), "rnn.W": normal(1, 16, 3), "rnn.R": normal(1, 16, 4), "rnn.B": normal(1, 32),
        "to": np.array([-1, 4]), "fc.weight": normal(4, 4), "fc.bias": normal(4), "norm.weight": normal(4),
        "norm.bias": normal(4), "condition": np.array(True), "two": np.array(2.0, np.float32), "axes": np.array([-1]),
        "head.weight_half": normal(4, 4).astype(np.float16), "head.bias": normal(4),
    }  # fmt: skip
    return proto(nodes, weights, {"i_ids": [5, 2]}, functions=[function])


def test_the_fuzzed_model_is_understood() -> None:
    model = opened_small()
    assert [layer.kind for layer in model.model.layers] == [
        Kind.EMBEDDING, Kind.LSTM, Kind.LINEAR, Kind.LAYER_NORM, Kind.LINEAR, Kind.LINEAR, Kind.LINEAR,
    ]  # fmt: skip
    assert model.model.not_checked == ()


def opened_small() -> Opened:
    return open_onnx(small().SerializeToString())


# -- files that are no models ------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "absent.onnx", FailureKind.MISSING)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"# a readme\n\nNot a model.\n", "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive; unpack it"),
        (b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(100), "rename it to .pt"),
        (b"PK\x03\x04" + bytes(26) + b"a.npy" + bytes(100), "a NumPy archive"),
        (b"PK\x03\x04" + bytes(26) + b"metadata.json" + bytes(100), "a Keras model"),
        (b"\x1f\x8b\x08" + bytes(100), "gunzip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "tf2onnx"),
        (b"GGUF\x03" + bytes(100), "llama.cpp"),
        (b"\x18\0\0\0ORTM" + bytes(100), "ORT format"),
        (b"\x1c\0\0\0TFL3" + bytes(100), "TensorFlow Lite"),
        (b'\x10\0\0\0\0\0\0\0{"a": 1}' + bytes(8), "rename it to .safetensors"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a picture"),
        (b"\x80\x04\x95" + bytes(100), "a Python pickle"),
        (b"\n<!DOCTYPE html><html>404</html>", "download the model again"),
        (b"<?xml version='1.0'?><net/>", "OpenVINO"),
        (b'{"weight_map": {}}', "a JSON file"),
        (b"\x08\x07", "no ONNX graph"),
    ],
    ids=[
        "empty",
        "text",
        "git-lfs pointer",
        "zip",
        "torch",
        "npz",
        "keras",
        "gzip",
        "hdf5",
        "gguf",
        "ort",
        "tflite",
        "safetensors",
        "picture",
        "pickle",
        "web page",
        "xml",
        "json",
        "header alone",
    ],
)
def test_what_is_no_model_is_called_so(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    message = refused(path)
    assert words in message
    assert "model.onnx" in message


def test_a_folder_is_named_as_such(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path, FailureKind.USAGE)


def test_weights_without_operations() -> None:
    model = linear()
    del model.graph.node[:]
    refused(model, FailureKind.UNSUPPORTED)


def test_a_protobuf_cut_short_anywhere() -> None:
    whole = small().SerializeToString()
    outcomes = [settled(whole[:length]) is None for length in range(0, len(whole), 7)]
    assert sum(outcomes) > 0.9 * len(outcomes)


# -- tensors that contradict themselves --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"dims": [-1, 4]},
        {"dims": [2**40, 2**40]},
        {"dims": [2**63 - 1, 2]},
        {"dims": [0, 2**62, 2**62]},
        {"dims": [1] * 200},
        {"dims": [4, 5]},
        {"dims": []},
        {"raw_data": b"\0" * 63},
        {"raw_data": b"\0" * 65},
        {"data_type": 99},
        {"data_type": 0},
        {"data_type": TensorProto.DOUBLE},
        {"data_type": TensorProto.INT4},
    ],
    ids=str,
)
def test_a_tensor_that_contradicts_itself(changes: dict[str, object]) -> None:
    assert "'w'" in refused(linear(**changes))


@pytest.mark.parametrize("dims", [[4, 4], [2**40]])
def test_typed_fields_of_the_wrong_length(dims: list[int]) -> None:
    model = linear(dims=dims)
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].float_data.extend([1.0] * 15)
    assert "'w'" in refused(model)


def test_damage_in_a_body_and_in_an_attribute_is_found() -> None:
    model = small()
    model.graph.node[6].attribute[0].g.initializer[0].raw_data += b"\0"
    assert "inner.weight" in refused(model)
    constant = node("Constant", [], ["c"], value=numpy_helper.from_array(normal(3), "c"))
    constant.attribute[0].t.dims[0] = 4
    refused(proto([constant, node("Add", ["x", "c"], ["y"])]))


# -- graphs that do not hang together ----------------------------------------------------------------------------------


def test_a_cycle() -> None:
    message = refused(proto([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["a"], ["y"])]))
    assert "cycle" in message


def test_a_value_that_nothing_produces() -> None:
    assert "'ghost'" in refused(proto([node("MatMul", ["ghost", "w"], ["y"])], {"w": normal(4, 4)}))
    assert "'z'" in refused(proto([node("Relu", ["x"], ["y"])], outputs=["z"]))


def test_a_value_of_two_origins() -> None:
    assert "two origins" in refused(proto([node("Relu", ["x"], ["y"]), node("Tanh", ["x"], ["y"])]))
    assert "two origins" in refused(proto([node("Relu", ["x"], ["w"])], {"w": normal(4)}, outputs=["w"]))


def test_nodes_in_the_wrong_order_are_put_right() -> None:
    nodes = [
        node("MatMul", ["a", "2.weight"], ["y"]),
        node("Relu", ["h"], ["a"]),
        node("MatMul", ["x", "0.weight"], ["h"]),
    ]
    model = opened(nodes, {"0.weight": normal(4, 4), "2.weight": normal(4, 4)})
    assert [layer.name for layer in model.model.layers] == ["0", "2"]
    assert [each.op_type for each in model.proto.graph.node] == ["MatMul", "Relu", "MatMul"]


def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    return helper.make_function("f", name, ["a"], ["z"], nodes, [helper.make_opsetid("", 18)])


def call(name: str, source: str, target: str) -> onnx.NodeProto:
    return node(name, [source], [target], domain="f")


def test_functions_that_call_themselves() -> None:
    assert "calls itself" in refused(proto([call("F", "x", "y")], functions=[function("F", call("F", "a", "z"))]))
    ring = [function("F", call("G", "a", "z")), function("G", call("F", "a", "z"))]
    assert "calls itself" in refused(proto([call("F", "x", "y")], functions=ring))


def test_functions_that_call_themselves_from_a_body() -> None:
    body = helper.make_graph([call("F", "a", "r")], "b", [], [helper.make_tensor_value_info("r", 1, None)])
    branching = function("F", node("If", ["a"], ["z"], then_branch=body, else_branch=body))
    assert "calls itself" in refused(proto([call("F", "x", "y")], functions=[branching]))


def test_functions_that_double() -> None:
    doubling = [function(f"F{i}", call(f"F{i + 1}", "a", "b"), call(f"F{i + 1}", "b", "z")) for i in range(90)]
    doubling.append(function("F90", node("Relu", ["a"], ["z"])))
    refused(proto([call("F0", "x", "y")], functions=doubling), FailureKind.UNSUPPORTED)


def test_functions_that_nest_too_deep() -> None:
    deep = [function(f"F{i}", call(f"F{i + 1}", "a", "z")) for i in range(2000)]
    deep.append(function("F2000", node("Relu", ["a"], ["z"])))
    refused(proto([call("F0", "x", "y")], functions=deep), FailureKind.UNSUPPORTED)


def test_a_function_that_is_called_with_the_wrong_number_of_inputs() -> None:
    broken = proto(
        [node("F", ["x", "x", "x"], ["y"], domain="f")], functions=[function("F", node("Relu", ["a"], ["z"]))]
    )
    settled(broken.SerializeToString())


# -- what is odd, but a model ------------------------------------------------------------------------------------------


def test_a_weight_of_2_to_the_40_elements_is_listed_not_built() -> None:
    nodes = [node("ConstantOfShape", ["shape"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    model = opened(nodes, {"shape": np.array([2**20, 2**20])})
    assert model.model.layers == ()
    assert [entry.at for entry in model.model.not_checked] == ["w"]


@pytest.mark.parametrize("repeat", ["Expand", "Tile"])
def test_a_weight_that_is_blown_up_is_listed_not_built(repeat: str) -> None:
    nodes = [node(repeat, ["seed", "shape"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    model = opened(nodes, {"seed": normal(1, 1), "shape": np.array([2**20, 2**20])})
    assert model.model.layers == ()
    assert [entry.at for entry in model.model.not_checked] == ["seed"]


def test_a_weight_that_doubles_and_doubles_is_listed_not_built() -> None:
    nodes = [node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0) for i in range(60)]
    started = time.monotonic()
    model = opened([*nodes, node("MatMul", ["x", "v60"], ["y"])], {"v0": normal(4, 4)})
    assert [entry.at for entry in model.model.not_checked] == ["v0"]
    assert time.monotonic() - started < SECONDS


def test_a_model_without_layers() -> None:
    model = opened([node("Relu", ["x"], ["y"])])
    assert model.model.layers == ()
    assert model.model.parameters == 0


def test_tensors_without_elements() -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Gather", ["t", "i_ids"], ["y"])]
    model = settled(proto(nodes, {"w": normal(0, 4), "t": normal(0, 0)}, {"x": None, "i_ids": [1]}).SerializeToString())
    assert model is not None


@pytest.mark.parametrize(
    "name", ["nan", "a\nb\x1b[2J\u202e", "../../etc", "w" * 10_000, " ", "[bold]", "::error::", "weight"]
)
def test_names_are_taken_as_they_are(name: str) -> None:
    model = opened([node("MatMul", ["x", name], ["y"])], {name: normal(4, 4)})
    assert model.model.tensors[0].address == name


def test_nodes_of_one_name_are_told_apart() -> None:
    nodes = [node("MatMul", ["x", "onnx::MatMul_1"], ["h"], name="same")]
    nodes.append(node("MatMul", ["h", "onnx::MatMul_2"], ["y"], name="same"))
    model = opened(nodes, {"onnx::MatMul_1": normal(4, 4), "onnx::MatMul_2": normal(4, 4, seed=1)})
    assert len({layer.name for layer in model.model.layers}) == 2
    assert len({tensor.address for tensor in model.model.tensors}) == 2


def test_a_node_without_inputs_or_outputs() -> None:
    for op in (
        "MatMul",
        "Conv",
        "Gemm",
        "LSTM",
        "Gather",
        "LayerNormalization",
        "Div",
        "Add",
        "Sqrt",
        "Relu",
        "Reshape",
    ):
        for count in range(4):
            inputs = ["x", "w", "w"][:count]
            settled(proto([node(op, inputs, ["y"]), node(op, inputs, [])], {"w": normal(4, 4)}).SerializeToString())
            settled(proto([node(op, inputs[::-1], ["y"])], {"w": normal(4, 4)}).SerializeToString())


@pytest.mark.parametrize("value", [-1, 0, 2**62, 1.5, "text", [1, 2], [-7], normal(2)], ids=str)
def test_attributes_of_the_wrong_kind(value: object) -> None:
    given = numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
    names = {
        "Conv": ["group", "strides"], "ConvTranspose": ["group", "strides"], "Gemm": ["alpha", "beta", "transB"],
        "Gather": ["axis"], "LSTM": ["hidden_size", "direction"], "Transpose": ["perm"], "Cast": ["to"],
        "Concat": ["axis"], "Split": ["axis", "split"], "Unsqueeze": ["axes"], "ReduceMean": ["axes", "keepdims"],
        "DequantizeLinear": ["axis", "block_size"], "Einsum": ["equation"], "Softmax": ["axis"], "LeakyRelu": ["alpha"],
    }  # fmt: skip
    for op, attributes in names.items():
        for attribute in attributes:
            for inputs in (["x", "w", "v"], ["w", "v"], ["w", "w"], ["w"]):
                nodes = [node(op, inputs, ["h"], **{attribute: given}), node("MatMul", ["x", "h"], ["y"])]
                weights = {"w": normal(4, 4, 4), "v": normal(4)}
                settled(proto(nodes, weights, opset=11).SerializeToString())


def nested(depth: int) -> ModelProto:
    branch = helper.make_graph(
        [node("MatMul", ["x", "deep.weight"], ["r"])], "b", [], [helper.make_tensor_value_info("r", 1, None)]
    )
    for _ in range(depth - 1):
        inner = (
            node("If", ["c"], ["r"], then_branch=branch, else_branch=branch)
            if depth < 5
            else node("If", ["c"], ["r"], then_branch=branch)
        )
        branch = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("r", 1, None)])
    return proto([node("If", ["c"], ["y"], then_branch=branch)], {"c": np.array(True), "deep.weight": normal(4, 4)})


def test_bodies_in_bodies() -> None:
    assert len(open_onnx(nested(31).SerializeToString()).model.layers) == 1
    with pytest.raises(DecodeError):
        nested(40)  # protobuf's own limit, in this test as in the loader


# -- fuzzing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes(seed: int) -> None:
    whole, chance = bytearray(small().SerializeToString()), random.Random(seed)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        swiftly(bytes(data))


@pytest.mark.parametrize("seed", range(4))
def test_changed_fields(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        model = small()
        for _ in range(chance.choice((1, 1, 2, 4))):
            mutate(model, chance)
        swiftly(model.SerializeToString())


def swiftly(data: bytes) -> None:
    started = time.process_time()
    settled(data)
    assert time.process_time() - started < SECONDS


def mutate(model: ModelProto, chance: random.Random) -> None:
    """Change one field as a hostile or confused writer might."""
    graph = model.graph
    target = chance.choice(graph.node)
    values = [value for each in graph.node for value in (*each.input, *each.output)]
    tensor = chance.choice(graph.initializer)
    kind = chance.randrange(8)
    if kind == 0 and target.input:
        target.input[chance.randrange(len(target.input))] = chance.choice([*values, ""])
    elif kind == 1:
        target.op_type = chance.choice(graph.node).op_type
    elif kind == 2:
        del target.input[chance.randrange(len(target.input) + 1) :]
    elif kind == 3 and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice([0, 1, 2, 2**31, 2**62])
    elif kind == 4:
        tensor.data_type = chance.randrange(30)
    elif kind == 5 and len(tensor.dims) == 2:
        tensor.dims[0], tensor.dims[1] = 1, tensor.dims[0] * tensor.dims[1]
    elif kind == 6 and target.attribute:
        attribute = chance.choice(target.attribute)
        attribute.type = chance.randrange(15)
        attribute.i = chance.choice([-1, 0, 3, 2**62])
    else:
        target.attribute.append(helper.make_attribute(chance.choice(["axis", "axes", "to", "perm", "group"]), [5, -9]))


def test_a_weight_of_too_few_axes_is_left_to_the_runtime() -> None:
    """Nothing of the probe takes the number of axes for granted."""
    for op, flat in (
        ("Gemm", normal(16)),
        ("Conv", normal(4, 4)),
        ("LSTM", normal(16)),
        ("BatchNormalization", normal(1)),
    ):
        inputs = {"Conv": ["x", "w"], "Gemm": ["x", "w"], "LSTM": ["x", "w", "w"]}.get(op, ["x", *["w"] * 4])
        model = open_onnx(proto([node(op, inputs, ["y"])], {"w": flat}, {"x": None}).SerializeToString())
        signals = OnnxProbe(model).run(ProbeSettings(), {})
        assert signals.forward is Forward.MEASURED or signals.reason


def test_a_name_that_is_no_text_is_refused() -> None:
    data = small().SerializeToString().replace(b"inner.weight", b"inner\xff\xfeweigh")
    assert "is no text" in refused(data)
