"""SARIF 2.1.0, for GitHub's code scanning and other viewers.

A model has no lines: a result is in line 1 of its file, and its tensor is a logical location, named in the message
too. Folded findings are related locations of their cause. A fix is code to run, not an edit of an artifact, which is
all that ``fixes`` of SARIF can hold (``artifactChanges`` is required there): it stands in the message and in
``properties``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from ..plugin import Finding, Severity
from ..report import Report, Run
from .as_json import finding_to_dict
from .coverage import Gap, GapKind, gaps
from .grouping import grouped
from .identities import Identified, identified
from .layout import Detail, Layout
from .places import path_of, uri_of
from .sarif_rules import Rules
from .sentences import account, place, short_name
from .wording import plural, printable

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "%SRCROOT%"
"""By convention the root of the repository; where that is, is no business of a report's."""

_MOST = 100
"""Related locations of a result, and locations of a notification; GitHub includes a hundred of a result
(docs.github.com, "SARIF results exceed one or more limits")."""
_MOST_RESULTS = 25_000
"""GitHub rejects a file with more (the same page)."""
_NAMED = 3
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}


def render(run: Run, layout: Layout) -> str:
    rules = Rules.of(run)
    version = metadata.version("initlint")
    results = [result for each in identified(run, layout) for result in _results(*each, rules, layout)]
    driver = {"name": "initlint", "version": version, "semanticVersion": version, "rules": rules.descriptors()}
    told = {
        "tool": {"driver": driver},
        "invocations": [_invocation(run, rules, layout, len(results) - _MOST_RESULTS)],
        "originalUriBaseIds": {ROOT: {"description": {"text": "The root of the repository, or the current folder."}}},
        "columnKind": "unicodeCodePoints",
        "results": _gravest(results),
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [told]}
    return json.dumps(log, indent=2, allow_nan=False) + "\n"


def _gravest(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All in their order; where they are more than GitHub takes, those of the highest levels."""
    if len(results) <= _MOST_RESULTS:
        return results
    levels = [*_LEVELS.values()]
    return sorted(results, key=lambda result: levels.index(result["level"]))[:_MOST_RESULTS]


def _results(report: Report, found: tuple[Identified, ...], rules: Rules, layout: Layout) -> Iterator[dict[str, Any]]:
    groups = grouped(report, Detail.VERBOSE)
    for each in found:
        if each.reason is not None:
            suppression = {"kind": "external", "status": "accepted", "justification": printable(each.reason)}
            yield _result(report, each, (), rules, layout) | {"suppressions": [suppression]}
        elif each.finding.caused_by is None:
            folded = groups.consequences(each.finding)
            yield _result(report, each, folded, rules, layout) | _related(report, folded, layout)


def _result(
    report: Report, entry: Identified, folded: tuple[Finding, ...], rules: Rules, layout: Layout
) -> dict[str, Any]:
    finding = entry.finding
    told = finding_to_dict(finding)
    return {
        "ruleId": printable(finding.rule),
        "ruleIndex": rules.index(finding.rule),
        "level": _LEVELS[finding.severity],
        "message": {"text": _plain(account(report.target, finding, folded))},
        "locations": [_location(report, finding.address, layout)],
        "partialFingerprints": {
            # GitHub tells alerts of a rule in a file apart by this alone, and where it is missing computes it from the
            # line: all tensors of a file would be one alert
            "primaryLocationLineHash": f"{entry.fingerprint}:1",
            "initlint/v1": entry.fingerprint,
        },
        "properties": {
            "category": printable(finding.category),
            "data": _printable(told["data"]),
            "folded": len(folded),
            "fix": _printable(told["fix"]),
        },
    }


def _related(report: Report, folded: tuple[Finding, ...], layout: Layout) -> dict[str, Any]:
    if not folded:
        return {}
    related = []
    for number, finding in enumerate(folded[:_MOST], 1):
        text = f"{finding.severity} {printable(finding.rule)} at {place(finding)}: {printable(finding.message)}"
        location = _location(report, finding.address, layout)
        related.append({"id": number, **location, "message": {"text": _plain(text)}})
    return {"relatedLocations": related}


def _location(report: Report, address: str, layout: Layout) -> dict[str, Any]:
    """The target's file, if it has one, and within it the tensor or layer."""
    name = printable(address)
    kind = "member" if name else "module"
    location: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": name or printable(report.target), "kind": kind}]
    }
    uri = uri_of(report, layout)
    if uri is not None:
        artifact = {"uri": uri} if path_of(report, layout) is None else {"uri": uri, "uriBaseId": ROOT}
        location["physicalLocation"] = {"artifactLocation": artifact, "region": {"startLine": 1}}
    return location


def _invocation(run: Run, rules: Rules, layout: Layout, left_out: int) -> dict[str, Any]:
    notifications = [told for report in run.reports for told in _notifications(report, rules, layout)]
    if left_out > 0:
        text = f"{plural(left_out, 'result')} of the least severity left out: GitHub takes {_MOST_RESULTS:,}"
        notifications.append(_notification("warning", "left-out", text, []))
    return {
        "executionSuccessful": all(report.failure is None for report in run.reports),
        "exitCode": run.exit_status,
        "toolExecutionNotifications": notifications,
        "properties": {"targets": [_target(report) for report in run.reports]},
    }


def _notifications(report: Report, rules: Rules, layout: Layout) -> Iterator[dict[str, Any]]:
    """What went wrong, and what was not checked."""
    target = short_name(report.target)
    if report.failure is not None:
        text = f"{target}: {report.status}: {printable(report.failure.message)}"
        yield _notification("error", str(report.failure.kind), text, [_location(report, "", layout)])
    for gap in gaps(report):
        if gap.kind is GapKind.SKIPPED_RULES:
            for rule in gap.subjects:
                text = f"{target}: the rule {printable(rule)} was skipped: {printable(gap.reason)}"
                told = _notification("warning", "skipped-rule", text, [_location(report, "", layout)])
                yield told | {"associatedRule": {"id": printable(rule), "index": rules.index(rule)}}
        else:
            yield _of_gap(report, gap, layout)


def _of_gap(report: Report, gap: Gap, layout: Layout) -> dict[str, Any]:
    places = [_location(report, address, layout) for address in gap.subjects[:_MOST] or ("",)]
    text = f"{short_name(report.target)}: {gap.kind}: {gap.line(_NAMED)}"
    return _notification("warning", gap.kind.identifier, text, places)


def _notification(level: str, kind: str, text: str, places: list[dict[str, Any]]) -> dict[str, Any]:
    return {"level": level, "descriptor": {"id": kind}, "message": {"text": _plain(text)}, "locations": places}


def _target(report: Report) -> dict[str, Any]:
    return {
        "target": printable(report.target),
        "format": report.format,
        "status": str(report.status),
        "layers": len(report.layers),
        "parameters": report.parameters,
        "findings": len(report.headlines),
    }


def _plain(text: str) -> str:
    """``text`` without what a viewer would take for a link (section 3.11.6): names are not to be trusted."""
    return text.replace("](", "] (")


def _printable(value: Any) -> Any:
    """All strings of ``value`` printable."""
    if isinstance(value, str):
        return "\n".join(printable(line) for line in value.split("\n"))
    if isinstance(value, Mapping):
        return {printable(name): _printable(each) for name, each in value.items()}
    return [_printable(each) for each in value] if isinstance(value, list) else value
