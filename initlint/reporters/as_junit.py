"""JUnit XML: a suite per target, a case per rule; a case fails where the run fails, at or above ``--fail-on``.

Milder findings are output of a case that passes. A failed target is a case with an error; what was not checked is
skipped, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as Xml

from ..plugin import Finding
from ..report import Report, Run, Suppressed
from .coverage import GapKind, gaps
from .grouping import Grouped, grouped
from .layout import Detail, Layout
from .sentences import details, place, whole_place
from .wording import plural, printable

_NAMED = 100
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (section 2.2) cannot hold, not even as a reference."""


def render(run: Run, layout: Layout) -> str:
    suites = [_suite(report) for report in run.reports]
    root = Xml.Element("testsuites", name="initlint", time=_seconds(run.reports))
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.extend(suites)
    Xml.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(root, encoding="unicode")}\n'


def _suite(report: Report) -> Xml.Element:
    suite = Xml.Element("testsuite", name=_line(report.target), time=_seconds((report,)))
    groups = grouped(report, Detail.VERBOSE)
    for name in _rules(report):
        _rule_case(suite, report, name, groups)
    for gap in gaps(report):
        if gap.kind is not GapKind.SKIPPED_RULES:  # these have cases of their own
            _skipped(_case(suite, report, gap.kind), gap.line(_NAMED))
    if report.failure is not None:
        error = Xml.SubElement(_case(suite, report, "initlint"), "error", type=str(report.failure.kind))
        error.set("message", _line(report.failure.message))
    suite.set("tests", str(len(suite)))
    for count, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(count, str(len(suite.findall(f"./testcase/{kind}"))))
    return suite


def _rules(report: Report) -> list[str]:
    """All that were held against the target, and for reports made by hand those that it names."""
    named = [rule.name for rule in report.rules] + [finding.rule for finding in report.headlines]
    named += [entry.rule for entry in report.skipped_rules] + [entry.finding.rule for entry in report.suppressed]
    return list(dict.fromkeys(named))


def _rule_case(suite: Xml.Element, report: Report, rule: str, groups: Grouped) -> None:
    case = _case(suite, report, rule)
    found = [finding for finding in report.headlines if finding.rule == rule]
    failing = [finding for finding in found if finding.severity >= report.fail_on]
    milder = [finding for finding in found if finding.severity < report.fail_on]
    for entry in report.skipped_rules:
        if entry.rule == rule and not found:
            _skipped(case, entry.reason)
            break
    if failing:
        worst = max(failing, key=lambda finding: finding.severity)
        more = f" (and {plural(len(failing) - 1, 'more finding')})" if len(failing) > 1 else ""
        failure = Xml.SubElement(case, "failure", type=str(worst.severity))
        failure.set("message", _line(f"{place(worst)}: {worst.message}{more}"))
        failure.text = _legal("\n".join(_told(failing, groups)))
    output = [*_told(milder, groups), *_allowed(report.suppressed, rule)]
    if output:
        Xml.SubElement(case, "system-out").text = _legal("\n".join(output))


def _case(suite: Xml.Element, report: Report, name: str) -> Xml.Element:
    return Xml.SubElement(suite, "testcase", name=f"initlint.{_line(name)}", classname=_line(report.target))


def _skipped(case: Xml.Element, reason: str) -> None:
    Xml.SubElement(case, "skipped", message=_line(reason))


def _told(findings: Sequence[Finding], groups: Grouped) -> list[str]:
    lines = []
    for finding in findings:
        lines.append(f"{finding.severity} at {whole_place(finding)}: {printable(finding.message)}")
        lines += [f"  {line}" for line in details(finding, groups.consequences(finding))]
    return lines


def _allowed(suppressed: Sequence[Suppressed], rule: str) -> list[str]:
    return [
        f"allowed {entry.finding.severity} at {whole_place(entry.finding)}: {printable(entry.reason)}"
        for entry in suppressed
        if entry.finding.rule == rule
    ]


def _seconds(reports: Sequence[Report]) -> str:
    return f"{sum(report.seconds for report in reports):.3f}"


def _line(text: str) -> str:
    """``text`` printable, and without what XML cannot hold."""
    return _legal(printable(text))


def _legal(text: str) -> str:
    return _ILLEGAL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
