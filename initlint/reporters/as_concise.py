"""One line per finding: ``target: address: severity rule message``."""

from __future__ import annotations

from collections.abc import Iterator

from ..report import Report, Run
from .layout import Detail, Layout
from .wording import printable


def render(run: Run, layout: Layout) -> str:
    return "".join(f"{line}\n" for report in run.reports for line in lines(report, layout))


def lines(report: Report, layout: Layout) -> Iterator[str]:
    """Headlines (with ``-v`` consequences too), then the failure if there is one."""
    target = printable(report.target)
    for finding in report.findings if layout.detail is Detail.VERBOSE else report.headlines:
        address = printable(finding.address) or "model"
        yield f"{target}: {address}: {finding.severity} {finding.rule} {printable(finding.message)}"
    if report.failure is not None:
        yield f"{target}: {report.status} {report.failure.kind}: {printable(report.failure.message)}"
