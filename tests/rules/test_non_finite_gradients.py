"""A finite forward pass whose gradient is not finite."""

from __future__ import annotations

from functools import partial

import pytest
from models import relu_mlp
from models.edges import direction, pairs, positive_root

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check


@cases(
    Good("he-initialised mlp", relu_mlp, notes_ok=False),
    Good("near miss: an epsilon under the root", partial(pairs, way="epsilon")),
    Good("near miss: cdist, whose slope at zero is zero", partial(pairs, way="cdist")),
    Good("near miss: where on the argument too", partial(positive_root, guarded=True)),
    Good("near miss: the guarded length of zero vectors", direction),
    Bad("the root of a distance of zero", pairs, ["embed.weight"], Severity.ERROR),
    Bad("the branch that where leaves out", positive_root, ["first.weight"], Severity.ERROR),
)
def test_non_finite_gradients(case: Case) -> None:
    check("non-finite-gradients", case)


@pytest.mark.parametrize(("build", "operation", "others"), [(pairs, "Sqrt", 2), (positive_root, "Sqrt", 2)])
def test_the_operation_is_named_and_nothing_else_is_said(build: object, operation: str, others: int) -> None:
    module, inputs = build()  # type: ignore[operator]
    report = initlint.check(module, inputs)
    (finding,) = report.headlines
    assert operation in finding.message
    assert finding.data["count"] == others
    assert report.exit_status == 1


def test_a_forward_that_works_only_so_often_loses_the_name_of_the_operation_and_nothing_else() -> None:
    module, inputs = pairs()
    calls: list[None] = []

    def refuse(*_: object) -> None:
        calls.append(None)
        if len(calls) > 1:
            raise RuntimeError("the queue is empty")

    module.register_forward_pre_hook(refuse)
    report = initlint.check(module, inputs)
    (finding,) = (each for each in report.findings if each.rule == "non-finite-gradients")
    assert "the queue is empty" in finding.message
    assert report.probe.backward.value == "exact"
