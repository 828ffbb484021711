"""Copies of a layer: an error where they stay copies, a warning in series, a note beside each other."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from models import Built, gpt, lora, seeded, tanh_mlp
from models.altered import altered
from models.deadlocks import sparse_experts, twin_critics
from models.ensembles import critics, experts, grouped_convolutions
from torch import nn

import initlint
from initlint.fixes import Reinit, Several
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


@seeded
def cloned_encoder() -> Built:
    """pytorch#72253: nn.TransformerEncoder deep-copies its layer."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (torch.randn(4, 6, 16),)


def up_cycled(module: nn.Module) -> None:
    for expert in module.experts[1:]:
        expert.load_state_dict(module.experts[0].state_dict())


def tie(module: nn.Sequential) -> None:
    module[4].weight = module[2].weight


def identities(module: nn.Sequential) -> None:
    nn.init.eye_(module[2].weight)
    nn.init.eye_(module[4].weight)


def momentum(module: nn.Module) -> None:
    module.two = copy.deepcopy(module.one).requires_grad_(False)


@cases(
    Good("drawn one by one", gpt, notes_ok=False),
    Good("critics of their own", partial(twin_critics, copied=False), notes_ok=False),
    Good("low-rank pairs with zero halves", lora, notes_ok=False),
    Good("near miss: tied layers", altered(tanh_mlp, tie), notes_ok=False),
    Good("near miss: two identities", altered(tanh_mlp, identities), notes_ok=False),
    Good("near miss: a frozen copy", altered(partial(twin_critics, copied=False), momentum), notes_ok=False),
    Good("near miss: up-cycled experts", altered(sparse_experts, up_cycled, experts=3)),
    Good("critics of their own in one tensor", partial(critics, inner=False, outer=False), notes_ok=False),
    Good("near miss: copies in one tensor with different readouts", partial(critics, outer=False)),
    Good("near miss: experts up-cycled in one tensor, one chosen", experts),
    Good("near miss: experts up-cycled in one tensor, all of them mixed", partial(experts, top=4)),
    Good("near miss: equal groups that see different channels", partial(grouped_convolutions, repeated=False)),
    Bad("critics in one tensor", critics, ["inner"], ERROR),
    Bad("critics in one tensor, einsum", partial(critics, way="einsum"), ["inner"], ERROR),
    Bad("critics in one tensor, their mean", partial(critics, way="mean"), ["inner"], ERROR),
    Bad("groups that see the same channels", grouped_convolutions, ["one.weight", "two.weight"], ERROR),
    Bad("twin critics", twin_critics, ["two.0.weight"], ERROR),
    Bad("twin critics, stacked", partial(twin_critics, way="stack"), ["two.0.weight"], ERROR),
    Bad("clones in series", altered(tanh_mlp, lambda m: m[4].weight.copy_(m[2].weight)), ["4.weight"], WARNING),
    Bad("deep-copied encoder layers", cloned_encoder, ["layers.1.self_attn.in_proj_weight"], WARNING),
)
def test_duplicate_layers(case: Case) -> None:
    check("duplicate-layers", case)


def test_the_exporters_copy_of_a_tied_table_is_no_copy(tmp_path: Path) -> None:
    torch.manual_seed(0)
    table, body, head = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 50, bias=False)
    head.weight = table.weight
    module = nn.Sequential(table, body, nn.Tanh(), head).eval()
    ids = torch.randint(0, 50, (4, 8))
    torch.onnx.export(module, (ids,), tmp_path / "tied.onnx", dynamo=True, verbose=False)
    copies = [row.layer.weight.address for row in initlint.check(tmp_path / "tied.onnx").layers]
    assert len(set(copies)) == 3
    assert initlint.check(tmp_path / "tied.onnx").findings == initlint.check(module, ids).findings == ()


def test_all_copies_of_one_layer_are_one_finding_with_a_draw_of_their_own_kind() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 5, enable_nested_tensor=False)
    (finding,) = initlint.check(encoder, torch.randn(4, 8, 32)).headlines
    assert (finding.rule, finding.address) == ("duplicate-layers", "layers.1.self_attn.in_proj_weight")
    assert finding.data["modules"] == [f"layers.{i}" for i in range(1, 5)]
    assert finding.verified
    assert isinstance(finding.fix, Several)
    drawn = {each.tensor: (each.scheme, each.gain) for each in finding.fix.fixes if isinstance(each, Reinit)}
    assert {drawn[f"layers.{i}.linear1.weight"] for i in range(1, 5)} == {("pytorch_default", 1.0)}
    scheme, std = drawn["layers.4.self_attn.in_proj_weight"]  # Xavier's of the whole (96, 32), as PyTorch draws it
    assert scheme == "normal"
    assert std == pytest.approx((2 / 128) ** 0.5, rel=0.05)
