"""What consequences prove of their cause."""

from __future__ import annotations

import pytest

from initlint.causes import raised
from initlint.plugin import Cause, Finding, Severity


def told(rule: str, tensor: str, severity: Severity, cause: Cause | None = None) -> Finding:
    return Finding(rule, "", severity, None, tensor, "", {}, caused_by=cause, proven=rule == "stuck-parameters")


@pytest.mark.parametrize("own", [True, False], ids=["its own tensor", "only others"])
def test_a_proof_about_the_tensor_of_the_cause_makes_it_an_error(own: bool) -> None:
    cause = told("constant-weights", "a", Severity.WARNING)
    stuck = [
        told("stuck-parameters", tensor, Severity.ERROR, Cause(cause.rule, cause.address))
        for tensor in ("gain", "a" if own else "b")
    ]
    heads = [(each.rule, each.address, each.severity) for each in raised([cause, *stuck]) if each.caused_by is None]
    alone = [("constant-weights", "a", Severity.WARNING), ("stuck-parameters", "gain", Severity.ERROR)]
    assert heads == ([("constant-weights", "a", Severity.ERROR)] if own else alone)
