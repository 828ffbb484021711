"""Consequences under their cause, as far as dataflow tells: what a trial has not tried, or cannot try."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from .model import Model
from .plugin import Cause, Finding, Rule, Severity

Place = tuple[str, str]
"""Rule and address of a finding."""


def place(finding: Finding | Cause) -> Place:
    return finding.rule, finding.address


def fold(model: Model, findings: Sequence[Finding], rules: Mapping[str, Rule]) -> list[Finding]:
    """Put consequences under their cause, which takes over the severity that the consequences prove.

    A note is worth knowing and harmless: it explains no error and no warning.
    """
    order = {layer.name: position for position, layer in enumerate(model.layers)}
    cause_of: dict[int, int] = {}
    for i, symptom in enumerate(findings):
        causes = [
            j
            for j, cause in enumerate(findings)
            if j != i and cause.is_cause and symptom.rule in rules[cause.rule].explains
            if cause.severity > Severity.NOTE or symptom.severity is Severity.NOTE
            if reaches(model, cause, symptom)
        ]
        if causes:
            # what the symptom would explain in turn is no better a cause than the symptom itself
            cause_of[i] = min(
                causes,
                key=lambda j: (
                    findings[j].rule in rules[symptom.rule].explains,
                    -findings[j].severity,
                    order.get(findings[j].layer or "", -1),
                ),
            )
    folded = list(findings)
    for i, j in cause_of.items():
        folded[i] = replace(folded[i], caused_by=Cause(findings[j].rule, findings[j].address))
    return raised(rooted(folded))


def rooted(findings: Sequence[Finding]) -> list[Finding]:
    """All under the end of their chain of causes: a cause that is a consequence itself hands its own on."""
    positions: dict[Place, int] = {}
    for i, each in enumerate(findings):
        positions.setdefault(place(each), i)
    cause_of = {
        i: positions[cause]
        for i, each in enumerate(findings)
        if each.caused_by is not None and (cause := place(each.caused_by)) in positions
    }
    told = list(findings)
    for i in cause_of:
        root = findings[j] if (j := _root(i, cause_of, findings)) != i else None
        told[i] = replace(told[i], caused_by=None if root is None else Cause(root.rule, root.address))
    return told


def _root(symptom: int, cause_of: Mapping[int, int], findings: Sequence[Finding]) -> int:
    """The end of the chain of causes; of findings that explain each other the gravest, then the first."""
    trail = [symptom]
    while trail[-1] in cause_of and cause_of[trail[-1]] not in trail:
        trail.append(cause_of[trail[-1]])
    if trail[-1] not in cause_of:
        return trail[-1]
    circle = trail[trail.index(cause_of[trail[-1]]) :]
    return min(circle, key=lambda i: (-findings[i].severity, i))


def raised(findings: Sequence[Finding], tried: Collection[tuple[Place, Place]] = ()) -> list[Finding]:
    """Causes with the severity that their consequences prove.

    What is proven of a tensor (it never learns, say) proves nothing of another one, that of a cause which is no error
    itself: such consequences stand by themselves, the first for the others. ``tried`` are exceptions, as (cause,
    consequence): a fix of the cause was seen to mend the consequence.
    """
    severities: dict[Place, Severity] = {}
    for each in findings:
        if each.caused_by is None:
            continue
        mended = (place(each.caused_by), place(each)) in tried
        if not each.proven or mended or each.tensor is None or each.address == each.caused_by.address:
            cause = place(each.caused_by)
            severities[cause] = max(each.severity, severities.get(cause, Severity.NOTE))
    told = [_at_least(each, severities.get(place(each), Severity.NOTE)) for each in findings]
    now = {place(each): each.severity for each in told}
    heads: dict[Place, Finding] = {}
    for i, each in enumerate(told):
        if each.caused_by is None or not each.proven:
            continue
        cause = place(each.caused_by)
        if each.severity > now.get(cause, Severity.ERROR):
            head = heads.setdefault(cause, each)
            told[i] = replace(each, caused_by=None if head is each else Cause(head.rule, head.address))
    return told


def _at_least(finding: Finding, severity: Severity) -> Finding:
    return finding if finding.severity is Severity.NOTE else replace(finding, severity=max(finding.severity, severity))


def reaches(model: Model, cause: Finding, symptom: Finding) -> bool:
    if symptom.tensor is not None and model.tensor(symptom.tensor) is None:
        return False  # the forward does not read it, whatever the rest does
    if symptom.layer is None or cause.layer is None:
        return True  # a symptom of the whole model
    if cause.layer == symptom.layer or model.is_upstream(cause.layer, symptom.layer):
        return True
    return symptom.category == "gradient" and model.is_upstream(symptom.layer, cause.layer)  # gradients flow back
