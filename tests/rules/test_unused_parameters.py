"""What no output depends on, told once per module."""

from __future__ import annotations

from judging import check_module
from models import gpt, relu_mlp
from models.altered import altered
from models.deadlocks import auxiliary, detached, spare, sparse_experts

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases


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
    check_module("unused-parameters", case)
