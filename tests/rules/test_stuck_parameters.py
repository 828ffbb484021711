"""A tensor is stuck if no step gives it a gradient, whatever the idiom around it."""

from __future__ import annotations

from functools import partial

import pytest
from judging import Build, findings
from models import adaln_zero, batchnorm_resnet, gpt, influence, lora, re_zero, relu_mlp
from models.altered import altered
from models.deadlocks import auxiliary, packed_attention, packed_experts, spare, sparse_experts, zero_gate

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR = Severity.ERROR


@cases(  # exporters=(): what cannot be exported, or is frozen, which a file does not say
    Good("he-initialised mlp", relu_mlp, notes_ok=False),
    Good("near miss: one zero factor of a gate", partial(zero_gate, zeros=1), notes_ok=False),
    Good("near miss: adaLN-Zero with a zero head", adaln_zero, notes_ok=False),
    Good("near miss: one of a low-rank pair", lora, notes_ok=False),
    Good("near miss: experts that are not chosen", sparse_experts, notes_ok=False, exporters=()),
    Good("near miss: an output that the loss leaves out", auxiliary, notes_ok=False),
    Good("near miss: layers that are not used", spare, notes_ok=False),
    Good("near miss: units that are off", altered(relu_mlp, lambda m: m[2].bias.fill_(-10.0)), notes_ok=False),
    Good("near miss: a zero query", partial(packed_attention, zero=8), notes_ok=False),
    Good("near miss: a row for padding", altered(gpt, lambda m: m.tokens.weight[0].zero_()), notes_ok=False),
    Good("near miss: queries that no head reads", influence.class_token, notes_ok=False, exporters=()),
    Good("near miss: behind a code book that is still empty", influence.codec, notes_ok=False, exporters=()),
    Good("near miss: rows of positions that are masked", influence.masked, notes_ok=False),
    Good("near miss: a width padded from 61 to 64", altered(relu_mlp, lambda m: m[2].weight[61:].zero_())),
    Bad("eight of 64 units", altered(relu_mlp, lambda m: m[2].weight[:8].zero_()), ["2.weight"], ERROR),
    Good("near miss: a branch that a frozen zero switches off", influence.gated),
    Bad("one of four packed experts is empty", packed_experts, ["up"], ERROR),
    Bad("zero query and key of a packed projection", packed_attention, ["attention.in_proj_weight[q]"], ERROR),
    Bad("two zero factors of a gate", zero_gate, ["1.inner.weight"], ERROR),
    Bad(
        "both of a low-rank pair",
        altered(lora, lambda m: m[2].a.weight.zero_()),
        ["2.a.weight"],
        ERROR,
    ),
    Bad(
        "a zero scale on a zero branch",
        altered(re_zero, lambda m: m[1].project.weight.zero_()),
        ["1.project.weight"],
        ERROR,
    ),
)
def test_stuck_parameters(case: Case) -> None:
    check("stuck-parameters", case)


@pytest.mark.parametrize("build", [zero_gate, altered(relu_mlp, lambda m: m[2].weight.zero_())])
def test_zero_weights_speak_for_what_they_hold_up(build: object) -> None:
    found = findings(build, select=["stuck-parameters", "zero-weights"])  # type: ignore[arg-type]
    assert {(finding.rule, finding.severity) for finding in found} == {("zero-weights", ERROR)}


def test_zero_gain_speaks_for_its_branch() -> None:
    build = altered(batchnorm_resnet, lambda m: m.blocks[0].bn1.weight.zero_())
    found = findings(build, select=["stuck-parameters", "zero-norm-gain"])
    assert [(finding.rule, finding.address) for finding in found] == [("zero-norm-gain", "blocks.0.bn1.weight")]


@pytest.mark.parametrize(
    ("build", "first", "others"),
    [
        (packed_experts, "up", ["down"]),
        (
            packed_attention,
            "attention.in_proj_weight[q]",
            ["attention.in_proj_bias[k]", "attention.in_proj_bias[q]", "attention.in_proj_weight[k]"],
        ),
    ],
    ids=["experts", "query and key"],
)
def test_of_zero_factors_that_hold_each_other_one_speaks_for_all(build: Build, first: str, others: list[str]) -> None:
    module, inputs = build(0)
    found = initlint.check(module, inputs, select=["stuck-parameters"]).findings
    assert [(each.address, each.severity, each.verified) for each in found if each.caused_by is None] == [
        (first, ERROR, True)
    ]
    assert sorted(each.address for each in found if each.caused_by is not None) == others
