"""Which findings stand together: by layer, under their cause, or collapsed where one note has many places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..plugin import Finding, Severity
from ..report import Report
from .layout import Detail

_MANY_NOTES = 3
"""From this many places on, the notes of one rule become one entry."""

Place = tuple[str, str]
"""Rule and address of a finding."""


@dataclass(frozen=True)
class Grouped:
    layers: tuple[tuple[str, tuple[Finding, ...]], ...]
    """Headlines by layer name ("" for the whole model, which comes first), in execution order, worst first."""
    collapsed: tuple[tuple[Finding, ...], ...]
    """Notes of one rule at many places."""
    folded: Mapping[Place, tuple[Finding, ...]]
    orphans: tuple[Finding, ...]
    """Consequences of something that the report does not show."""

    def consequences(self, finding: Finding) -> tuple[Finding, ...]:
        return self.folded.get((finding.rule, finding.address), ())


def grouped(report: Report, detail: Detail) -> Grouped:
    headlines = report.headlines
    collapsed = () if detail is Detail.VERBOSE else _many_notes(headlines)
    gone = {_place(finding) for findings in collapsed for finding in findings}
    folded, orphans = _folded(report)
    alone = [finding for finding in headlines if _place(finding) not in gone]
    return Grouped(_by_layer(alone, report), collapsed, folded, orphans)


def _place(finding: Finding) -> Place:
    return finding.rule, finding.address


def _many_notes(headlines: tuple[Finding, ...]) -> tuple[tuple[Finding, ...], ...]:
    notes: dict[str, list[Finding]] = {}
    for finding in headlines:
        if finding.severity is Severity.NOTE:
            notes.setdefault(finding.rule, []).append(finding)
    return tuple(tuple(findings) for findings in notes.values() if len(findings) >= _MANY_NOTES)


def _by_layer(findings: list[Finding], report: Report) -> tuple[tuple[str, tuple[Finding, ...]], ...]:
    depth = {row.layer.name: i for i, row in enumerate(report.layers)}
    layers: dict[str, list[Finding]] = {}
    for finding in findings:
        layers.setdefault(finding.layer or "", []).append(finding)
    ordered = sorted(layers.items(), key=lambda item: -1 if not item[0] else depth.get(item[0], len(depth)))
    return tuple((layer, tuple(sorted(items, key=lambda finding: -finding.severity))) for layer, items in ordered)


def _folded(report: Report) -> tuple[dict[Place, tuple[Finding, ...]], tuple[Finding, ...]]:
    """Consequences by the headline that they go back to, over as many steps as it takes."""
    causes: dict[Place, Place] = {}
    for finding in report.findings:
        if finding.caused_by is not None:
            causes[_place(finding)] = (finding.caused_by.rule, finding.caused_by.address)
    shown = {_place(finding) for finding in report.headlines}
    folded: dict[Place, tuple[Finding, ...]] = {}
    orphans: list[Finding] = []
    for finding in report.findings:
        if finding.caused_by is None:
            continue
        root, seen = causes[_place(finding)], {_place(finding)}
        while root in causes and root not in seen:
            seen.add(root)
            root = causes[root]
        if root in shown:
            folded[root] = (*folded.get(root, ()), finding)
        else:
            orphans.append(finding)
    return folded, tuple(orphans)
