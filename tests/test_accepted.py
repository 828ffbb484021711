"""What is new is told and what is known is not, whatever is folded under what."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from sample_reports import row

from initlint.accepted import Acceptance, Sorted, sort_out
from initlint.baseline import Entry
from initlint.kinds import Kind
from initlint.model import Model
from initlint.plugin import Cause, Finding, Needs, NoOptions, Rule, Severity
from initlint.settings import Allow

LAYERS = tuple(row(f"layer{i}", Kind.LINEAR, (3, 3), "relu", 1.0, 3).layer for i in range(4))
MODEL = Model("onnx", LAYERS, tuple(layer.weight for layer in LAYERS), parameters=36)
"""Nothing is upstream of anything: a cause explains symptoms of its own layer and of the whole model."""


def rule(name: str, *explains: str) -> Rule:
    return Rule(
        name, "c", Needs.STRUCTURE, Needs.STRUCTURE, NoOptions, {"default": ""}, explains, (), (), lambda: iter(()), ""
    )


RULES = {each.name: each for each in (rule("fault", "symptom"), rule("symptom"))}


def fault(layer: int, severity: Severity = Severity.WARNING, caused_by: Finding | None = None) -> Finding:
    name = f"layer{layer}"
    return Finding("fault", "c", severity, name, f"{name}.weight", "", {}, caused_by=cause(caused_by))


def symptom(layer: int | None, severity: Severity = Severity.WARNING, caused_by: Finding | None = None) -> Finding:
    name = None if layer is None else f"layer{layer}"
    return Finding("symptom", "c", severity, name, None, "", {}, caused_by=cause(caused_by), is_cause=False)


def cause(finding: Finding | None) -> Cause | None:
    return None if finding is None else Cause(finding.rule, finding.address)


def sorted_out(found: list[Finding], known: list[Finding], *allow: Allow) -> Sorted:
    entries = tuple(Entry("m.onnx", each.rule, each.address, each.severity) for each in known)
    return sort_out(MODEL, RULES, found, Acceptance("m.onnx", allow, known=entries))


def told(found: list[Finding], known: list[Finding]) -> list[Finding]:
    return list(sorted_out(found, known).findings)


def test_a_known_cause_and_its_known_consequences_are_not_told() -> None:
    found = [fault(0), symptom(0, caused_by=fault(0))]
    assert told(found, found) == []


def test_a_known_consequence_whose_cause_was_repaired_is_still_known() -> None:
    assert told([symptom(0)], [fault(0), symptom(0, caused_by=fault(0))]) == []


def test_a_known_finding_folded_under_a_new_cause_is_still_known() -> None:
    new = fault(1)
    assert told([new, symptom(None, caused_by=new)], [symptom(None)]) == [new]


def test_new_consequences_of_a_new_cause_stay_folded_under_it() -> None:
    new = fault(1)
    found = [new, symptom(1, caused_by=new)]
    assert told(found, [fault(0)]) == found


def test_a_new_finding_folded_under_a_known_cause_is_told_by_itself() -> None:
    new = symptom(1, Severity.ERROR, caused_by=fault(0))
    assert told([fault(0), new], [fault(0)]) == [replace(new, caused_by=None)]


def test_it_is_told_under_a_new_cause_if_that_explains_it_which_becomes_as_loud() -> None:
    new, consequence = fault(1), symptom(1, Severity.ERROR, caused_by=fault(0))
    found = [fault(0), new, consequence]
    assert told(found, [fault(0)]) == [
        replace(new, severity=Severity.ERROR),
        replace(consequence, caused_by=cause(new)),
    ]


def test_other_new_findings_keep_their_place() -> None:
    """What a trial told apart is not folded again because something else is."""
    apart, new = symptom(1, Severity.ERROR), fault(1)
    homeless = symptom(2, Severity.NOTE, caused_by=fault(0))
    assert told([fault(0), new, apart, homeless], [fault(0)]) == [new, apart, replace(homeless, caused_by=None)]


def test_a_known_cause_that_new_consequences_made_louder_is_known_and_they_are_told() -> None:
    louder, new = fault(0, Severity.ERROR), symptom(1, Severity.ERROR, caused_by=fault(0))
    assert told([louder, new], [fault(0, Severity.WARNING)]) == [replace(new, caused_by=None)]


def test_a_known_cause_that_got_louder_by_itself_is_new() -> None:
    louder, new = fault(0, Severity.ERROR), symptom(1, Severity.WARNING, caused_by=fault(0))
    assert told([louder, new], [fault(0, Severity.WARNING)]) == [louder, new]


def test_what_follows_from_an_allowed_finding_is_allowed_with_it() -> None:
    allow = Allow("fault", "layer0.*", "a test")
    found = [fault(0), symptom(0, caused_by=fault(0)), symptom(1)]
    result = sorted_out(found, [], allow)
    assert [each.reason for each in result.suppressed] == ["a test", "a test"]
    assert list(result.findings) == [symptom(1)]


@pytest.mark.parametrize(("today", "counts"), [(date(2030, 1, 1), 0), (date(2030, 1, 2), 2)])
def test_an_exception_that_is_over_allows_neither_it_nor_what_follows(today: date, counts: int) -> None:
    allow = Allow("fault", "layer0.*", "a test", until=date(2030, 1, 1))
    found = [fault(0), symptom(0, caused_by=fault(0))]
    result = sort_out(MODEL, RULES, found, Acceptance("m.onnx", (allow,), today=today))
    assert len(result.findings) == counts
