"""What happens between layers: non-linearities in every spelling, norms, and where an output goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from loading import Array, node, normal, opened, round_trips
from onnx import NodeProto

from initlint.activations import Affine
from initlint.kinds import Kind, Source, Use
from initlint.model import Factor, Layer, Model

SQUARE = normal(4, 4)


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


def layers(nodes: Sequence[NodeProto], weights: dict[str, Array] | None = None, opset: int = 18) -> Model:
    """A graph over x with the weights a, b and c, all 4 by 4."""
    given = {name: normal(4, 4, seed=i) for i, name in enumerate(("a.weight", "b.weight", "c.weight"))} | (
        weights or {}
    )
    used = {value for each in nodes for value in each.input}
    return opened(nodes, {name: value for name, value in given.items() if name in used}, opset=opset).model


def linear(name: str, source: str, target: str) -> NodeProto:
    return node("MatMul", [source, f"{name}.weight"], [target])


# -- non-linearities ---------------------------------------------------------------------------------------------------

SPELLINGS: dict[str, tuple[str, list[NodeProto], dict[str, Array]]] = {
    "Relu": ("relu", [node("Relu", ["h"], ["z"])], {}),
    "ReLU as Max": ("relu", [node("Max", ["h", "k"], ["z"])], {"k": scalar(0)}),
    "ReLU6 as Clip": ("relu6", [node("Clip", ["h", "k", "m"], ["z"])], {"k": scalar(0), "m": scalar(6)}),
    "ReLU6 as Min of Relu": ("relu6", [node("Relu", ["h"], ["r"]), node("Min", ["r", "k"], ["z"])], {"k": scalar(6)}),
    "squared ReLU": ("squared-relu", [node("Relu", ["h"], ["r"]), node("Mul", ["r", "r"], ["z"])], {}),
    "LeakyRelu": ("leaky-relu", [node("LeakyRelu", ["h"], ["z"], alpha=0.2)], {}),
    "a fiftieth of a ReLU": ("relu", [node("Relu", ["h"], ["r"]), node("Mul", ["r", "k"], ["z"])], {"k": scalar(0.02)}),
    "GELU by Erf": (
        "gelu",
        [
            node("Div", ["h", "root"], ["d"]), node("Erf", ["d"], ["e"]), node("Add", ["e", "one"], ["p"]),
            node("Mul", ["h", "p"], ["m"]), node("Mul", ["m", "half"], ["z"]),
        ],
        {"root": scalar(2**0.5), "one": scalar(1), "half": scalar(0.5)},
    ),
    "GELU by Tanh": (
        "gelu-tanh",
        [
            node("Pow", ["h", "three"], ["q"]), node("Mul", ["q", "c"], ["s"]), node("Add", ["h", "s"], ["u"]),
            node("Mul", ["u", "r"], ["v"]), node("Tanh", ["v"], ["t"]), node("Add", ["t", "one"], ["p"]),
            node("Mul", ["h", "half"], ["i"]), node("Mul", ["i", "p"], ["z"]),
        ],
        {"three": scalar(3), "c": scalar(0.044715), "r": scalar(0.7978846), "one": scalar(1), "half": scalar(0.5)},
    ),
    "SiLU": ("silu", [node("Sigmoid", ["h"], ["s"]), node("Mul", ["h", "s"], ["z"])], {}),
    "quick GELU": (
        "quick-gelu",
        [node("Mul", ["h", "k"], ["m"]), node("Sigmoid", ["m"], ["s"]), node("Mul", ["h", "s"], ["z"])],
        {"k": scalar(1.702)},
    ),
    "Mish": (
        "mish", [node("Softplus", ["h"], ["s"]), node("Tanh", ["s"], ["t"]), node("Mul", ["h", "t"], ["z"])], {},
    ),
    "hard-swish by Clip": (
        "hard-swish",
        [
            node("Add", ["h", "three"], ["p"]), node("Clip", ["p", "zero", "six"], ["c"]),
            node("Mul", ["h", "c"], ["m"]), node("Div", ["m", "six"], ["z"]),
        ],
        {"three": scalar(3), "zero": scalar(0), "six": scalar(6)},
    ),
    "hard-swish by HardSigmoid": (
        "hard-swish", [node("HardSigmoid", ["h"], ["s"], alpha=1 / 6), node("Mul", ["h", "s"], ["z"])], {},
    ),
    "Softmax": ("softmax", [node("Softmax", ["h"], ["z"])], {}),
    "a factor alone": ("identity", [node("Mul", ["h", "k"], ["z"])], {"k": scalar(3)}),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_non_linearity_is_named_by_what_it_computes(spelling: str) -> None:
    name, nodes, constants = SPELLINGS[spelling]
    first, second = layers([linear("a", "x", "h"), *nodes, linear("b", "z", "y")], constants).layers
    assert (first.activation, second.input_activation) == (name, name)
    assert (first.consumers, second.producers) == (("b",), ("a",))


def test_a_gated_linear_unit_is_a_product_with_a_sigmoid() -> None:
    halves = np.array([2, 2])
    nodes = [linear("a", "x", "h"), node("Split", ["h", "n"], ["u", "v"], axis=-1), node("Sigmoid", ["v"], ["s"]),
             node("Mul", ["u", "s"], ["z"]), node("MatMul", ["z", "d.weight"], ["y"])]  # fmt: skip
    gated = layers(nodes, {"n": halves, "d.weight": normal(2, 4)}).layers[0]
    assert gated.activation == "sigmoid"
    assert Use.PRODUCT in gated.uses


# -- norms -------------------------------------------------------------------------------------------------------------


def decomposed(centred: bool, by: str) -> list[NodeProto]:
    """LayerNorm or RMSNorm of h as z, without gain, as exporters for old opsets write it."""
    start = [node("ReduceMean", ["h"], ["m"], axes=[-1]), node("Sub", ["h", "m"], ["d"])] if centred else []
    d = "d" if centred else "h"
    square = node("Pow", [d, "two"], ["s"]) if by != "product" else node("Mul", [d, d], ["s"])
    root = [node("ReduceMean", ["s"], ["v"], axes=[-1]), node("Add", ["v", "eps"], ["e"]), node("Sqrt", ["e"], ["r"])]
    if by == "reciprocal":
        return [*start, square, *root, node("Reciprocal", ["r"], ["i"]), node("Mul", [d, "i"], ["z"])]
    return [*start, square, *root, node("Div", [d, "r"], ["z"])]


@pytest.mark.parametrize("by", ["power", "product", "reciprocal"])
@pytest.mark.parametrize("centred", [True, False], ids=["layer norm", "RMS norm"])
def test_decomposed_norms(centred: bool, by: str) -> None:
    nodes = [linear("a", "x", "h"), *decomposed(centred, by), node("Mul", ["z", "n.weight"], ["g"]),
             node("Add", ["g", "n.bias"], ["f"]), linear("b", "f", "y")]  # fmt: skip
    constants = {"two": scalar(2), "eps": scalar(1e-5), "n.weight": normal(4), "n.bias": normal(4)}
    first, norm, second = layers(nodes, constants, opset=13).layers
    assert norm.kind is (Kind.LAYER_NORM if centred else Kind.RMS_NORM)
    assert (norm.name, norm.weight.address, norm.bias and norm.bias.address) == ("n", "n.weight", "n.bias")
    assert first.norm_after is norm.kind
    assert second.input_source is Source.NORM


def test_a_gain_of_one_plus_its_weight() -> None:
    nodes = [linear("a", "x", "h"), *decomposed(False, "power"), node("Add", ["n.weight", "one"], ["gain"]),
             node("Mul", ["z", "gain"], ["y"])]  # fmt: skip
    model = layers(nodes, {"two": scalar(2), "eps": scalar(1e-5), "one": scalar(1), "n.weight": normal(4)}, opset=13)
    assert [layer.kind for layer in model.layers] == [Kind.LINEAR, Kind.RMS_NORM]
    assert model.layers[1].weight.address == "n.weight"


@pytest.mark.parametrize(
    ("op", "kind", "opset"),
    [
        ("LayerNormalization", Kind.LAYER_NORM, 17),
        ("InstanceNormalization", Kind.INSTANCE_NORM, 9),
        ("GroupNormalization", Kind.GROUP_NORM, 21),
        ("RMSNormalization", Kind.RMS_NORM, 23),
    ],
)
def test_norm_operators(op: str, kind: Kind, opset: int) -> None:
    options = {"num_groups": 2} if op == "GroupNormalization" else {}
    inputs = ["h", "n.weight"] if op == "RMSNormalization" else ["h", "n.weight", "n.bias"]
    nodes = [node("Conv", ["x", "c.w"], ["h"]), node(op, inputs, ["y"], **options)]
    model = opened(nodes, {"c.w": normal(4, 3, 3, 3), **{n: normal(4) for n in inputs[1:]}}, opset=opset)
    round_trips(model)
    conv, norm = model.model.layers
    assert (conv.norm_after, norm.kind, norm.name) == (kind, kind, "n")


# -- where outputs go --------------------------------------------------------------------------------------------------


def test_a_residual_branch() -> None:
    nodes = [linear("a", "x", "h"), linear("b", "h", "p"), node("Relu", ["p"], ["q"]), linear("c", "q", "r"),
             node("Add", ["h", "r"], ["y"])]  # fmt: skip
    first, second, last = layers(nodes).layers
    assert not first.bypassed
    assert second.bypassed
    assert last.bypassed
    assert Use.SUM in last.uses
    assert second.activation == "relu"
    assert last.input_activation == "relu"


def test_a_pre_activation_block_is_fed_by_the_sum_behind_a_non_linearity() -> None:
    nodes = [linear("a", "x", "h"), node("Relu", ["h"], ["p"]), linear("b", "p", "q"), node("Add", ["q", "h"], ["s"]),
             node("Relu", ["s"], ["t"]), linear("c", "t", "y")]  # fmt: skip
    head = layers(nodes).layers[2]
    assert (head.input_source, head.input_activation, set(head.producers)) == (Source.ACTIVATION, "relu", {"a", "b"})


def test_attention_by_hand() -> None:
    nodes = [linear("a", "x", "q"), linear("b", "x", "k"), linear("c", "x", "v"),
             node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]), node("MatMul", ["q", "kt"], ["l"]),
             node("Softmax", ["l"], ["p"]), node("MatMul", ["p", "v"], ["y"])]  # fmt: skip
    query, key, value = layers(nodes).layers
    assert {Use.PRODUCT, Use.SOFTMAX} <= query.uses & key.uses
    assert Use.PRODUCT in value.uses
    assert Use.SOFTMAX not in value.uses


def gate(nodes: list[NodeProto]) -> Layer:
    return next(layer for layer in layers(nodes).layers if layer.name == "b")


def test_squeeze_and_excitation_and_highway_gates_multiply() -> None:
    squeeze = [linear("a", "x", "h"), node("GlobalAveragePool", ["h"], ["p"]), linear("b", "p", "l"),
               node("Sigmoid", ["l"], ["g"]), node("Mul", ["h", "g"], ["y"])]  # fmt: skip
    highway = [linear("a", "x", "h"), linear("b", "x", "l"), node("Sigmoid", ["l"], ["g"]),
               node("Mul", ["h", "g"], ["m"]), node("Add", ["m", "x"], ["y"])]  # fmt: skip
    for nodes in (squeeze, highway):
        assert (gate(nodes).activation, Use.PRODUCT in gate(nodes).uses) == ("sigmoid", True)


def test_a_u_net_skip_feeds_the_decoder_from_two_layers() -> None:
    nodes = [linear("a", "x", "h"), node("Relu", ["h"], ["e"]), linear("b", "e", "m"), node("Relu", ["m"], ["n"]),
             node("Concat", ["e", "n"], ["k"], axis=-1), node("MatMul", ["k", "d.weight"], ["y"])]  # fmt: skip
    encoder, middle, decoder = layers(nodes, {"d.weight": normal(8, 4)}).layers
    assert set(decoder.producers) == {"a", "b"}
    assert (encoder.bypassed, middle.bypassed, decoder.bypassed) == (False, True, False)
    assert decoder.input_activation == "relu"
    assert decoder.uses == {Use.OUTPUT}


# -- gates -------------------------------------------------------------------------------------------------------------


def test_a_parameter_that_multiplies_is_a_factor() -> None:
    nodes = [
        linear("a", "x", "h"), node("Sigmoid", ["g"], ["s"]), node("Mul", ["h", "s"], ["m"]),
        node("Relu", ["m"], ["r"]), linear("b", "r", "y"),
    ]  # fmt: skip
    model = layers(nodes, {"g": np.full(1, -9, np.float32)})
    assert model.factors == (Factor("g", "sigmoid", ("b",)),)
    assert model.tensor("g") is not None  # a single number is no tensor else: ReZero's, a temperature
    nodes = [linear("a", "x", "h"), node("Mul", ["h", "g"], ["m"]), linear("b", "m", "y")]
    assert layers(nodes, {"g": np.full(1, 1e-9, np.float32)}).factors == (Factor("g", "identity", ("b",)),)
    assert not layers([linear("a", "x", "h"), node("Add", ["h", "g"], ["y"])], {"g": scalar(1e-9)}).factors


def test_a_part_of_an_output_may_be_a_gate() -> None:
    nodes = [
        linear("a", "x", "h"), node("Split", ["h"], ["u", "v"], axis=-1, num_outputs=2), node("Tanh", ["u"], ["t"]),
        node("Sigmoid", ["v"], ["s"]), node("Mul", ["t", "s"], ["y"]),
    ]  # fmt: skip
    (layer,) = layers(nodes).layers
    assert (layer.activation, layer.gate) == ("tanh", "sigmoid")
    assert not layers([linear("a", "x", "h"), node("Tanh", ["h"], ["y"])]).layers[0].gate


@pytest.mark.parametrize(
    ("between", "factor", "offset"),
    [
        ([node("Div", ["h", "k"], ["z"])], 0.25, 0.0),
        ([node("Neg", ["h"], ["z"])], -1.0, 0.0),
        ([node("Sub", ["k", "h"], ["z"])], -1.0, 4.0),
        ([node("Mul", ["h", "k"], ["m"]), node("Add", ["m", "k"], ["z"])], 4.0, 4.0),
    ],
)
def test_what_an_activation_reads_is_told_in_units_of_the_output(
    between: list[NodeProto], factor: float, offset: float
) -> None:
    nodes = [linear("a", "x", "h"), *between, node("Tanh", ["z"], ["t"]), linear("b", "t", "y")]
    layer = layers(nodes, {"k": scalar(4.0)}).layers[0]
    low, high = sorted(((-2.99 - offset) / factor, (2.99 - offset) / factor))
    assert (layer.activation, layer.activation_reads) == ("tanh", Affine(factor, offset))
    assert layer.flat == pytest.approx((low, high), rel=1e-2)


def test_what_an_activation_reads_unit_by_unit_has_no_edges() -> None:
    nodes = [linear("a", "x", "h"), node("Mul", ["h", "k"], ["z"]), node("Relu", ["z"], ["t"]), linear("b", "t", "y")]
    layer = layers(nodes, {"k": np.array([1, 2, 3, -4], np.float32)}).layers[0]
    assert (layer.activation, layer.activation_reads.known, layer.dead_below) == ("relu", False, None)
