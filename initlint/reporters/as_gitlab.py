"""GitLab's code quality report: an array of issues, of which GitLab shows one per fingerprint.

Failed targets and what was not checked are issues too: the format has no other place for them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..fingerprints import fingerprint
from ..plugin import Severity
from ..report import Report, Run
from .coverage import gaps
from .grouping import grouped
from .identities import Identified, identified
from .layout import Detail, Layout
from .places import identity, path_of
from .sentences import details, place
from .wording import printable

_SEVERITIES = {Severity.ERROR: "critical", Severity.WARNING: "major", Severity.NOTE: "info"}
_FAILED = "blocker"
_NAMED = 10


def render(run: Run, layout: Layout) -> str:
    occurrences: Counter[tuple[str, str]] = Counter()
    issues: list[dict[str, Any]] = []
    for report, found in identified(run, layout):
        issues += _findings(report, found, layout)
        issues += _incomplete(report, occurrences, layout)
    return json.dumps(issues, indent=2) + "\n"


def _findings(report: Report, found: tuple[Identified, ...], layout: Layout) -> Iterator[dict[str, Any]]:
    groups = grouped(report, Detail.VERBOSE)
    for each in found:
        finding = each.finding
        if each.reason is None and finding.caused_by is None:
            message = f"{place(finding)}: {printable(finding.message)}"
            issue = _issue(report, finding.rule, message, _SEVERITIES[finding.severity], each.fingerprint, layout)
            body = "\n".join(details(finding, groups.consequences(finding)))
            yield issue | ({"content": {"body": body}} if body else {})


def _incomplete(report: Report, occurrences: Counter[tuple[str, str]], layout: Layout) -> Iterator[dict[str, Any]]:
    told = []
    if report.failure is not None:
        told.append((str(report.status), f"{report.status}: {printable(report.failure.message)}", _FAILED))
    told += [(gap.kind.identifier, f"{gap.kind}: {gap.line(_NAMED)}", "info") for gap in gaps(report)]
    name = identity(report, layout)
    for kind, message, severity in told:  # reasons hold numbers, so their order has to tell them apart
        identified_by = fingerprint(name, kind, "", occurrences[name, kind])
        occurrences[name, kind] += 1
        yield _issue(report, kind, message, severity, identified_by, layout)


def _issue(
    report: Report, check: str, message: str, severity: str, identified_by: str, layout: Layout
) -> dict[str, Any]:
    path = path_of(report, layout)
    return {
        "type": "issue",
        "check_name": f"initlint/{printable(check)}",
        "description": message,
        "fingerprint": identified_by,
        "severity": severity,
        "location": {"path": printable(identity(report, layout) if path is None else path), "lines": {"begin": 1}},
    }
