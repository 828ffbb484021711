"""Units that stay equal are an error, told once: by the rule that sees why they are equal."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from judging import findings
from models import Built, fixup, pixel_shuffle, relu_mlp, tanh_mlp, tokens, vit, zero_head
from models.altered import altered
from models.initialised import seeded
from models.published import skip_gram
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING = Severity.ERROR, Severity.WARNING


def copied_in_and_out(module: nn.Sequential) -> None:
    module[2].weight[:32] = module[2].weight[32:]
    module[4].weight[:, :32] = module[4].weight[:, 32:]


def zero_before_constant(module: nn.Sequential) -> None:
    module[2].weight.zero_()
    module[4].weight.fill_(0.1)


def constant(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.ndim > 1:
            parameter.fill_(0.05)


def biases_apart(module: nn.Sequential) -> None:
    """Zeros whose units are told apart by their biases alone, which leave all ReLUs on: equal gradients, for now."""
    zero_before_constant(module)
    module[2].bias.copy_(torch.linspace(1.0, 2.0, 64))


def few_readouts_copied(module: nn.Sequential) -> None:
    """Zeros of which most units are read in different ways."""
    module[2].weight.zero_()
    module[4].weight[:, :8] = module[4].weight[:, 8:16]


class _Streams(nn.Module):
    """Dynamic gates of four residual streams, which are added up in the end (hyper-connections, last layer)."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.body, self.head = nn.Linear(16, 4, bias=False), nn.Linear(16, 16), nn.Linear(16, 4)
        nn.init.zeros_(self.gates.weight)

    def forward(self, x: Tensor) -> Tensor:
        gates = torch.tanh(self.gates(x)) + 1.0
        out: Tensor = self.head((gates.unsqueeze(-1) * self.body(x).unsqueeze(1)).sum(1))
        return out


@seeded
def streams() -> Built:
    return _Streams(), (torch.randn(32, 16),)


def few_equal(module: tokens.Registers) -> None:
    nn.init.normal_(module.registers, std=0.02)[:, :3] = 0.1


@cases(
    Good("he-initialised mlp", relu_mlp, notes_ok=False),
    Good("zero head", zero_head, notes_ok=False),
    Good("near miss: rows of a table that one pair of words looks up", skip_gram, notes_ok=False),
    Good("near miss: two pairs", partial(skip_gram, batch=2), notes_ok=False),
    Good("zero ends of residual branches", fixup, notes_ok=False),
    Good("pixel shuffle", pixel_shuffle, notes_ok=False),
    Good(
        "near miss: copied units with different readouts",
        altered(tanh_mlp, lambda m: m[2].weight[:32].copy_(m[2].weight[32:])),
        notes_ok=False,
    ),
    Good("near miss: a constant in one layer", altered(tanh_mlp, lambda m: m[2].weight.fill_(0.05)), notes_ok=False),
    Good("near miss: zeros whose biases differ", altered(relu_mlp, biases_apart), notes_ok=False),
    Good("near miss: zero gates that stay one gate", streams),
    Good("near miss: zeros of which most units part", altered(tanh_mlp, few_readouts_copied), notes_ok=False),
    Bad("copied units with copied readouts", altered(tanh_mlp, copied_in_and_out), ["2.weight"], ERROR),
    Bad("zeros read by a constant", altered(tanh_mlp, zero_before_constant), ["2.weight"], ERROR),
    Good(
        "drawn registers", altered(tokens.registers, lambda m: nn.init.normal_(m.registers, std=0.02)), notes_ok=False
    ),
    Good("a vit", vit, notes_ok=False),
    Good("near miss: one register", partial(tokens.registers, count=1), notes_ok=False),
    Good("near miss: frozen registers", partial(tokens.registers, frozen=True), notes_ok=False, exporters=()),
    Good("near miss: queries that are asked one by one", partial(tokens.latents, pooled=False), notes_ok=False),
    Good("near miss: tables of zeros that the data part", tokens.tables, notes_ok=False),
    Good("near miss: ids of which all are one", partial(tokens.tables, ids=torch.ones), notes_ok=False, exporters=()),
    Good("near miss: equal rows with roles of their own", tokens.roles, notes_ok=False),
    Bad("registers of zeros", tokens.registers, ["registers"], ERROR),
    Bad("registers of one value", partial(tokens.registers, value=0.1), ["registers"], ERROR),
    Bad("some registers of one value", altered(tokens.registers, few_equal), ["registers"], ERROR),
    Bad("latents of zeros", tokens.latents, ["latents"], ERROR),
    Bad("slots of zeros", partial(tokens.latents, compete=True), ["latents"], ERROR),
    Bad("queries of zeros, pooled", partial(tokens.latents, embedding=True), ["latents.weight"], ERROR),
    Bad("looked-up prompts of zeros", tokens.prompt, ["prompt.weight"], ERROR),
    Bad("looked-up prompts of one value", partial(tokens.prompt, value=0.1), ["prompt.weight"], ERROR),
    Bad("prefixes of zeros", tokens.prefix, ["prefix"], ERROR),
    # a file's outputs do not depend on what a gate of zeros hides, and steps are not taken there
    Bad(
        "prefixes behind gates of zeros", partial(tokens.prefix, gated=True, value=0.1), ["prefix"], ERROR, exporters=()
    ),
    # the newer exporter leaves dropout out
    Bad("registers and dropout", partial(tokens.registers, dropout=0.1), ["registers"], WARNING, exporters=("legacy",)),
)
def test_permanent_symmetry(case: Case) -> None:
    check("permanent-symmetry", case)


@pytest.mark.parametrize(
    ("change", "rule"),
    [(copied_in_and_out, "duplicate-units"), (constant, "constant-weights")],
    ids=["duplicate-units", "constant-weights"],
)
def test_the_rule_that_sees_the_reason_carries_the_verdict(change: object, rule: str) -> None:
    build = altered(tanh_mlp, change)  # type: ignore[arg-type]
    found = findings(build, select=["permanent-symmetry", "duplicate-units", "constant-weights"])
    assert {(finding.rule, finding.severity) for finding in found if finding.severity is ERROR} == {(rule, ERROR)}


def test_units_that_separate_are_a_warning() -> None:
    build = altered(tanh_mlp, lambda m: m[2].weight.fill_(0.05))
    assert [finding.severity for finding in findings(build, select=["constant-weights"])] == [WARNING]


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_equal_rows_of_a_table_are_told_once(value: float) -> None:
    (finding,) = findings(partial(tokens.prompt, value=value))
    assert (finding.rule, finding.address, finding.severity) == ("permanent-symmetry", "prompt.weight", ERROR)


def test_a_fix_is_tried_and_shows_how_many_rows_it_parts() -> None:
    (finding,) = initlint.check(*tokens.registers()).headlines
    assert finding.verified
    assert (finding.data["rows"], finding.data["worth"]) == (4, 1)
    assert finding.before["equal rows"] == 3
    assert finding.after["equal rows"] == 0
