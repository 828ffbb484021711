"""What exporters spell out differently is read as the module's own layers: tied tables, masks, norms, heads."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from loading import node, normal, opened
from torch import Tensor, nn
from torch.nn import functional
from tracing import traced

from initlint.kinds import Kind, Use


def in_scope(name: str, each: object) -> object:
    """The node as the newer exporter marks it: from the module ``name``."""
    entry = each.metadata_props.add()  # type: ignore[attr-defined]
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", repr(["", name, "op"])
    return each


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_tied_tensor_has_the_name_of_its_first_user() -> None:
    nodes = [
        in_scope("embed", node("Gather", ["head.weight", "i_ids"], ["h"])),
        in_scope("head", node("Transpose", ["head.weight"], ["t"], perm=[1, 0])),
        in_scope("head", node("MatMul", ["h", "t"], ["y"])),
    ]
    model = opened(nodes, {"head.weight": normal(7, 4)}, {"i_ids": [2, 3]}).model
    assert [(layer.name, layer.weight.address) for layer in model.layers] == [
        ("embed", "embed.weight"),
        ("head", "embed.weight"),
    ]


def test_a_tensor_that_its_parent_uses_keeps_its_name() -> None:
    nodes = [
        in_scope("net", node("MatMul", ["x", "net.fc.weight"], ["h"])),
        in_scope("net.fc", node("MatMul", ["h", "net.fc.weight"], ["y"])),
    ]
    model = opened(nodes, {"net.fc.weight": normal(4, 4)}).model
    assert {layer.weight.address for layer in model.layers} == {"net.fc.weight"}


class Sharing(nn.Module):
    """T5's way: the table is registered above and runs as a part of the encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(7, 4)
        self.encoder = nn.ModuleDict({"embed": nn.Embedding(7, 4)})
        self.encoder["embed"].weight = self.shared.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.encoder["embed"](tokens)


def test_the_layer_of_a_tied_tensor_is_the_module_that_runs() -> None:
    (layer,) = traced(Sharing(), torch.tensor([[1, 2]])).model.layers
    assert (layer.name, layer.weight.address) == ("encoder.embed", "shared.weight")


class UnitOffset(nn.Module):
    """A norm whose gain is stored as its distance from one."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (6,)) * (self.gamma + 1)


def test_the_gain_of_a_norm_has_its_parameters_name_also_where_a_number_is_added() -> None:
    (layer,) = traced(nn.Sequential(UnitOffset()), torch.randn(3, 6)).model.layers
    assert (layer.name, layer.kind, layer.weight.address) == ("0", Kind.LAYER_NORM, "0.gamma")


# -- layers ------------------------------------------------------------------------------------------------------------


def test_a_norm_whose_ones_have_the_shape_of_the_data_takes_the_gain_behind_it() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Expand", ["val_1", "s"], ["val_9"]),
        node("LayerNormalization", ["x", "val_9"], ["n"]),
        node("Add", ["norm.gamma", "val_1"], ["g"]),
        node("Mul", ["n", "g"], ["y"]),
    ]
    weights = {"norm.gamma": np.zeros(6, np.float32), "val_1": np.array(1.0, np.float32)}
    (layer,) = opened(nodes, weights).model.layers
    assert (layer.kind, layer.weight.address) == (Kind.LAYER_NORM, "norm.gamma")


@pytest.mark.parametrize("parts", [1, 2])
def test_rows_looked_up_by_one_index_are_a_table(parts: int) -> None:
    indices = {f"i_{part}": [2, 1] for part in range(parts)}
    nodes = [
        node("Concat", list(indices), ["i"], axis=-1),
        node("GatherND", ["bias.table", "i"], ["b"]),
        node("Add", ["x", "b"], ["y"]),
    ]
    model = opened(nodes, {"bias.table": normal(9, 4)}, {"x": None, **indices}).model
    assert [layer.kind for layer in model.layers] == [Kind.EMBEDDING] * (2 - parts)


def test_a_table_keeps_its_place_beside_a_norm_that_reads_the_same_number() -> None:
    nodes = [
        node("Mul", ["i_base", "one"], ["i"]),
        node("Gather", ["pos.weight", "i"], ["p"]),
        node("Add", ["x", "p"], ["h"]),
        node("Cast", ["one"], ["float_one"], to=1),
        node("Add", ["norm.gamma", "float_one"], ["g"]),
        node("LayerNormalization", ["h", "g"], ["y"]),
    ]
    weights = {
        "pos.weight": normal(3, 6),
        "norm.gamma": normal(6),
        "one": np.array(1, np.int64),
        "i_base": np.arange(3),
    }
    kinds = {layer.kind for layer in opened(nodes, weights).model.layers}
    assert kinds == {Kind.EMBEDDING, Kind.LAYER_NORM}


def test_matrices_that_the_data_choose_are_listed_as_not_checked() -> None:
    nodes = [node("Gather", ["experts", "i_chosen"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    model = opened(nodes, {"experts": normal(3, 4, 4)}, {"x": None, "i_chosen": []}).model
    assert [entry.at for entry in model.not_checked] == ["experts"]
    assert "router" in model.not_checked[0].reason


class RelativePositions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 2)
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(x.shape[0], 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        places = torch.arange(5)
        bias = self.table(places[:, None] - places[None] + 4).permute(2, 0, 1)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]).transpose(1, 2).flatten(2)


def test_a_learnt_mask_joins_the_logits_of_an_attention() -> None:
    layers = {layer.name: layer for layer in traced(RelativePositions(), torch.randn(3, 5, 8)).model.layers}
    assert layers["table"].activation == "softmax"
    assert {Use.SUM, Use.SOFTMAX} <= layers["table"].uses


def test_experts_in_one_grouped_product_are_groups() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.randn(2, 16, 8))

        def forward(self, x: Tensor) -> Tensor:
            ends = torch.tensor([16, 32], dtype=torch.int32)
            return functional.grouped_mm(x, self.up.transpose(1, 2), offs=ends)

    if not hasattr(functional, "grouped_mm"):
        pytest.skip("this PyTorch has no grouped product")
    model = traced(Experts(), torch.randn(32, 8)).model
    assert [(layer.weight.view.groups, layer.fan_in) for layer in model.layers] == [(2, 8)]
    assert model.not_checked == ()


class Heads(nn.Module):
    """Attention as exporters spell it out: heads become samples."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.query = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k = (f(x).view(-1, 5, 2, 4).transpose(1, 2).reshape(-1, 5, 4) for f in (self.query, self.key))
        return torch.bmm(q, k.transpose(1, 2)).softmax(-1) / math.sqrt(4)


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        return self.conv(x).view(b, 3, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, 3, 2 * h, 2 * w)


def test_heads_are_no_shuffled_units() -> None:
    layers = traced(Heads(), torch.randn(3, 5, 8)).model.layers
    assert not any(layer.shuffles_units for layer in layers)
    (layer,) = traced(Shuffle(), torch.randn(2, 3, 4, 4)).model.layers
    assert layer.shuffles_units


@pytest.mark.parametrize(("target", "shuffles"), [([12, 5, 4], False), ([6, 10, 4], True)])
def test_heads_of_a_file_are_no_shuffled_units(target: list[int], shuffles: bool) -> None:
    nodes = [
        node("MatMul", ["x", "k.weight"], ["h"]),
        node("Reshape", ["h", "split"], ["s"]),
        node("Transpose", ["s"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "merge"], ["y"]),
    ]
    weights = {"k.weight": normal(8, 8), "split": np.array([6, 5, 2, 4]), "merge": np.array(target)}
    (layer,) = opened(nodes, weights).model.layers
    assert layer.shuffles_units is shuffles


def test_values_that_an_attention_weighs_are_no_shuffled_units() -> None:
    nodes = [
        node("MatMul", ["x", "v.weight"], ["h"]),
        node("Reshape", ["h", "split"], ["s"]),
        node("Transpose", ["s"], ["t"], perm=[0, 2, 1, 3]),
        node("MatMul", ["a", "t"], ["m"]),
        node("Reshape", ["m", "heads"], ["r"]),
        node("Transpose", ["r"], ["u"], perm=[0, 2, 1, 3]),
        node("Reshape", ["u", "merge"], ["y"]),
    ]
    shapes = {"split": [6, 5, 2, 4], "heads": [6, 2, 5, 4], "merge": [6, 5, -1]}
    weights = {"v.weight": normal(8, 8), **{name: np.array(shape) for name, shape in shapes.items()}}
    (layer,) = opened(nodes, weights, {"x": None, "a": None}).model.layers
    assert not layer.shuffles_units


def test_a_buffer_is_not_trained() -> None:
    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("codes", torch.zeros(4, 8))
            self.out = nn.Linear(8, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(functional.embedding(tokens, self.codes))

    model = traced(Codes(), torch.tensor([[1, 2]])).model
    assert {layer.weight.address: layer.weight.trainable for layer in model.layers} == {
        "codes": False,
        "out.weight": True,
    }
    assert model.parameters == 18


@pytest.mark.parametrize(
    ("held", "trained"),
    [
        (lambda: torch.randn(8, 2), False),
        (lambda: torch.randn(8, 2, requires_grad=True), True),
        (lambda: nn.Parameter(torch.randn(8, 2)), True),
        (lambda: nn.Parameter(torch.randn(8, 2), requires_grad=False), True),
    ],
    ids=["a table", "a leaf that wants a gradient", "a lost parameter", "a frozen lost parameter"],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_plain_tensor_in_a_closure_is_not_trained(held: Callable[[], Tensor], trained: bool, scaled: bool) -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 8)
            self.tables = (held(), torch.full((8, 2), 2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) @ (self.tables[0] * self.tables[1] if scaled else self.tables[0])

    inner, projection = traced(Projected(), torch.randn(3, 4)).model.layers
    assert (inner.weight.trainable, projection.weight.trainable) == (True, trained)


def test_what_autograd_keeps_for_itself_hides_no_activation() -> None:
    class HardSwish(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.linear(x)
            return x * functional.relu6(x + 3, inplace=True) / 6  # autograd copies what is overwritten

    (layer,) = traced(HardSwish(), torch.randn(3, 4)).model.layers
    assert layer.activation == "hard-swish"
