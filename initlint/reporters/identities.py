"""The fingerprints of a run's findings, each once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..fingerprints import fingerprint
from ..plugin import Finding
from ..report import Report, Run
from .layout import Layout
from .places import identity


@dataclass(frozen=True, slots=True)
class Identified:
    finding: Finding
    reason: str | None
    """Why it is suppressed; None where it is not."""
    fingerprint: str


def identified(run: Run, layout: Layout) -> Iterator[tuple[Report, tuple[Identified, ...]]]:
    """Every report with its findings, then its suppressed ones, in their order.

    What one rule says twice of a whole model, or of a target given twice, is numbered in the order of the report.
    """
    seen: Counter[tuple[str, str, str]] = Counter()
    for report in run.reports:
        name = identity(report, layout)
        entries: list[tuple[Finding, str | None]] = [(finding, None) for finding in report.findings]
        entries += [(entry.finding, entry.reason) for entry in report.suppressed]
        found = []
        for finding, reason in entries:
            place = name, finding.rule, finding.address
            found.append(Identified(finding, reason, fingerprint(*place, occurrence=seen[place])))
            seen[place] += 1
        yield report, tuple(found)


def identified_last(run: Run, layout: Layout) -> tuple[Report, tuple[Identified, ...]]:
    """What ``identified`` says of the last report, from the reports on its target: no others share its numbers."""
    last = run.reports[-1]
    name, file = identity(last, layout), os.path.basename(last.target)
    namesakes = (report for report in run.reports if os.path.basename(report.target) == file)  # cheap, and most go
    *_, told = identified(Run(tuple(each for each in namesakes if identity(each, layout) == name)), layout)
    return told
