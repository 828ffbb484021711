"""The closing lines of a run, and its counts per rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..baseline import REASON
from ..plugin import Severity
from ..report import Report, Run
from .wording import duration, plural, quantity


def summary(run: Run) -> str:
    """As in "2 errors, 1 warning in 54 layers, 25.6 M parameters, 1.3 s"; failures have lines of their own."""
    checked = [report for report in run.reports if report.failure is None or report.layers]
    parts = []
    if checked:
        counts = [plural(count, str(severity)) for severity in reversed(Severity) if (count := _count(run, severity))]
        parts.append(f"{_verdict(run, counts)}{_extent(checked)}")
    if len(checked) < len(run.reports):
        parts.append(f"{plural(len(run.reports) - len(checked), 'target')} could not be checked")
    if cut_short := sum(report.failure is not None for report in checked):
        parts.append(f"{plural(cut_short, 'target')} could not be checked to the end")
    return "\n".join(parts)


def _verdict(run: Run, counts: list[str]) -> str:
    if counts:
        return f"{', '.join(counts)} in "
    if any(report.failure is not None for report in run.reports):
        return "nothing found in "
    complete = not any(_incomplete(report) for report in run.reports)
    if not complete:
        return "clean as far as it was checked: "
    known = any(entry.reason == REASON for report in run.reports for entry in report.suppressed)
    return "nothing new: " if known else "all clean: "


def _extent(reports: list[Report]) -> str:
    facts = [plural(len(reports), "target")] if len(reports) > 1 else []
    facts.append(plural(sum(len(report.layers) for report in reports), "layer"))
    facts.append(f"{quantity(sum(report.parameters for report in reports))} parameters")
    facts.append(duration(sum(report.seconds for report in reports)))
    return ", ".join(facts)


def _count(run: Run, severity: Severity) -> int:
    return sum(report.count(severity) for report in run.reports)


def statistics(run: Run) -> Iterator[tuple[int, Severity, str]]:
    """Count, severity and rule of the headlines, the worst and most frequent first."""
    counts = Counter((finding.severity, finding.rule) for report in run.reports for finding in report.headlines)
    for (severity, rule), count in sorted(counts.items(), key=lambda item: (-item[0][0], -item[1], item[0][1])):
        yield count, severity, rule


def _incomplete(report: Report) -> bool:
    return bool(report.not_checked) or any(not skipped.is_expected for skipped in report.skipped_rules)
