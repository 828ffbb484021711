"""What no output depends on, told once per module."""

from __future__ import annotations

import pytest
import torch
from judging import findings
from models import gpt, relu_mlp
from models.altered import altered
from models.deadlocks import auxiliary, detached, spare, sparse_experts
from torch import nn

import initlint
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


class Adapted(nn.Module):
    """A frozen layer, and an adapter that is scaled by ``scale``."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.base, self.down, self.up = nn.Linear(8, 8), nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
        self.base.requires_grad_(False)
        nn.init.zeros_(self.up.weight)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.scale * self.up(self.down(x))


def test_where_nothing_that_is_trainable_has_influence_there_is_nothing_to_train() -> None:
    def told(module: nn.Module) -> list[tuple[str, Severity]]:
        report = initlint.check(module, torch.randn(8, 8), select=["unused-parameters"])
        return [(each.address, each.severity) for each in report.findings]

    assert told(Adapted(8 // 16)) == [("down.weight", Severity.ERROR)]
    assert told(Adapted(8 / 16)) == []
    with_head = nn.Sequential(Adapted(8 // 16), nn.Linear(8, 4))
    assert told(with_head) == [("0.down.weight", Severity.NOTE), ("0.up.weight", Severity.NOTE)]


class Pooled(nn.Module):
    """Attention over steps, whose softmax runs along ``axis``: there is one score per step."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.inner, self.score, self.head = nn.Linear(4, 16), nn.Linear(16, 1, bias=False), nn.Linear(16, 2)
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.inner(x))
        return self.head((self.score(hidden).softmax(self.axis) * hidden).sum(1))


@pytest.mark.parametrize(("axis", "told"), [(-1, ["score.weight"]), (2, ["score.weight"]), (1, [])])
def test_a_softmax_over_a_single_entry_is_one_whatever_that_is(axis: int, told: list[str]) -> None:
    report = initlint.check(Pooled(axis), torch.randn(8, 6, 4), select=["unused-parameters"])
    assert [each.address for each in report.findings] == told


class Backbone(nn.Module):
    """A body that runs under ``torch.no_grad()``, in front of a head that learns."""

    def __init__(self, trainable: bool = True) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 16).requires_grad_(trainable), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            hidden = torch.relu(self.body(x))
        return self.head(hidden)


def test_a_body_without_autograd_is_noted_once_and_not_if_it_is_frozen() -> None:
    def told(module: nn.Module) -> list[tuple[str, str, Severity]]:
        return [(f.rule, f.address, f.severity) for f in initlint.check(module, torch.randn(8, 8)).findings]

    assert told(Backbone()) == [("unused-parameters", "body.weight", Severity.NOTE)]
    assert told(Backbone(trainable=False)) == []


class Variational(nn.Module):
    """Samples its code in training mode only (Kingma & Welling 2014); ``strict`` asks for targets there."""

    def __init__(self, strict: bool = False) -> None:
        super().__init__()
        self.mean, self.spread, self.out = nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(4, 8)
        self.strict = strict

    def forward(self, x: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        code = self.mean(x)
        if self.training:
            if self.strict:
                code = code - targets.mean()
            code = code + torch.randn_like(code) * torch.exp(0.5 * self.spread(x))
        return self.out(code)


def test_what_training_mode_alone_reads_is_told_as_such() -> None:
    module, batch = Variational().train(), torch.randn(8, 8)
    state = torch.get_rng_state()
    (found,) = initlint.check(module, batch, select=["unused-parameters"]).findings
    assert (found.severity, found.address) == (Severity.NOTE, "spread.weight")
    assert "in training mode only" in found.message
    assert module.training and torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_training_mode_that_cannot_be_run_is_left_alone() -> None:
    (found,) = initlint.check(Variational(strict=True), torch.randn(8, 8), select=["unused-parameters"]).findings
    assert found.message == "no output depends on it, nor on 1 more of spread"


class _Uniform(nn.Module):
    """Self-attention whose queries and keys are scaled by ``scale``."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.qkv, self.head, self.scale = nn.Linear(16, 48), nn.Linear(16, 4), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).chunk(3, -1)
        weights = (query @ key.transpose(1, 2) * self.scale).softmax(-1)
        out: torch.Tensor = self.head((x + weights @ value).mean(1))
        return out


@pytest.mark.parametrize(("scale", "told"), [(1 // 4, ["qkv.weight[q]"]), (1 / 4, [])])
def test_parts_that_have_no_influence_are_told_though_the_tensor_has(scale: float, told: list[str]) -> None:
    torch.manual_seed(0)
    report = initlint.check(_Uniform(scale), torch.randn(8, 6, 16), select=["unused-parameters"])
    assert [each.address for each in report.findings] == told
    assert all(each.severity is Severity.WARNING for each in report.findings)  # nobody means an attention to stay even
