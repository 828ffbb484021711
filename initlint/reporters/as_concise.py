"""One line per finding: ``target: address: severity rule message``; then what failed, then what was not checked."""

from __future__ import annotations

from collections.abc import Iterator

from ..report import Report, Run
from .coverage import gaps
from .layout import Detail, Layout
from .wording import printable

_NAMED = 3
"""How many skipped rules or unchecked places are named without -v."""


def render(run: Run, layout: Layout) -> str:
    return "".join(f"{line}\n" for report in run.reports for line in lines(report, layout))


def render_last(run: Run, layout: Layout) -> str:
    return "".join(f"{line}\n" for line in lines(run.reports[-1], layout))


def lines(report: Report, layout: Layout) -> Iterator[str]:
    """Headlines (with ``-v`` consequences too), then the failure if there is one, then the gaps."""
    target = printable(report.target)
    verbose = layout.detail is Detail.VERBOSE
    for finding in report.findings if verbose else report.headlines:
        address = printable(finding.address) or "model"
        yield f"{target}: {address}: {finding.severity} {finding.rule} {printable(finding.message)}"
    if report.failure is not None:
        yield f"{target}: {report.status} {report.failure.kind}: {printable(report.failure.message)}"
    for gap in gaps(report):
        yield f"{target}: {gap.kind}: {gap.line(len(gap.subjects) if verbose else _NAMED)}"
