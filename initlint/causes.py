"""Consequences under their cause, as far as dataflow tells: what a trial has not tried, or cannot try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .model import Model
from .plugin import Cause, Finding, Rule, Severity


def fold(model: Model, findings: Sequence[Finding], rules: Mapping[str, Rule]) -> list[Finding]:
    """Put consequences under their cause, which takes over the severity that the consequences prove."""
    order = {layer.name: position for position, layer in enumerate(model.layers)}
    cause_of: dict[int, int] = {}
    for i, symptom in enumerate(findings):
        causes = [
            j
            for j, cause in enumerate(findings)
            if j != i and cause.is_cause and symptom.rule in rules[cause.rule].explains
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
    for i in cause_of:
        root = _root(i, cause_of, findings)
        if root == i:
            continue
        cause = folded[root]
        folded[i] = replace(folded[i], caused_by=Cause(cause.rule, cause.address))
        if folded[i].severity > cause.severity > Severity.NOTE:
            folded[root] = replace(cause, severity=folded[i].severity)
    return folded


def _root(symptom: int, cause_of: Mapping[int, int], findings: Sequence[Finding]) -> int:
    """The end of the chain of causes; of findings that explain each other the gravest, then the first."""
    trail = [symptom]
    while trail[-1] in cause_of and cause_of[trail[-1]] not in trail:
        trail.append(cause_of[trail[-1]])
    if trail[-1] not in cause_of:
        return trail[-1]
    circle = trail[trail.index(cause_of[trail[-1]]) :]
    return min(circle, key=lambda i: (-findings[i].severity, i))


def reaches(model: Model, cause: Finding, symptom: Finding) -> bool:
    if symptom.layer is None or cause.layer is None:
        return True  # a symptom of the whole model
    if cause.layer == symptom.layer or model.is_upstream(cause.layer, symptom.layer):
        return True
    return symptom.category == "gradient" and model.is_upstream(symptom.layer, cause.layer)  # gradients flow back
