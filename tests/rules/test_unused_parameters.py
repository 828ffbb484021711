"""What no output depends on, told once per module."""

from __future__ import annotations

from judging import findings
from models import gpt, relu_mlp
from models.altered import altered
from models.deadlocks import auxiliary, detached, spare, sparse_experts
from torch import nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check


@cases(
    Good("he-initialised mlp", relu_mlp, notes_ok=False),
    Good("transformer", gpt, notes_ok=False),
    Good("near miss: experts that are not chosen", sparse_experts, notes_ok=False),
    Good("near miss: an output that the loss leaves out", auxiliary, notes_ok=False),
    Good("near miss: read past autograd", detached, notes_ok=False),
    Good(
        "near miss: frozen", altered(spare, lambda m: m.requires_grad_(False).head.requires_grad_(True)), notes_ok=False
    ),
    Bad(
        "one layer not called, one called for nothing",
        spare,
        ["spare.weight", "dropped.weight"],
        Severity.NOTE,
    ),
)
def test_unused_parameters(case: Case) -> None:
    check("unused-parameters", case)


def test_a_module_that_is_wholly_unused_is_one_note_that_reads_as_a_sentence() -> None:
    def nest(module: nn.Module) -> None:
        module.add_module("aside", nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))))

    build = altered(spare, nest)
    told = {f.address: f.message for f in findings(build, select=["unused-parameters"])}
    assert told == {
        "spare.weight": "no output depends on it, nor on 1 more of spare",
        "dropped.weight": "no output depends on it, nor on 1 more of dropped",
        "aside.0.weight": "no output depends on it, nor on 5 more of aside",
    }
