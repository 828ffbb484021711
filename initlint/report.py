"""The Report: everything a reporter may know about one target, and the Run that holds many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .builds import BUILDERS_ONLY
from .errors import FailureKind, FindingsError
from .model import Layer, NotChecked
from .plugin import Finding, Severity
from .probe.signals import Backward, Forward, LayerSignal, Loss
from .stats import WeightStats


class Status(StrEnum):
    OK = "ok"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Failure:
    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class ProbeSummary:
    """How the signals were got; ``reason`` says why not, where there are none."""

    forward: Forward = Forward.NONE
    backward: Backward = Backward.NONE
    batch: int = 0
    seed: int = 0
    loss: Loss = Loss.NONE
    reason: str = ""


@dataclass(frozen=True)
class LayerRow:
    """One layer with what was measured of it."""

    layer: Layer
    stats: WeightStats | None = None
    signal: LayerSignal | None = None


@dataclass(frozen=True, slots=True)
class Suppressed:
    finding: Finding
    reason: str


NO_GRADIENTS = "needs gradients, which were not measured"


@dataclass(frozen=True, slots=True)
class SkippedRule:
    rule: str
    reason: str

    @property
    def is_expected(self) -> bool:
        """The rule is for targets of another kind: nothing is missing."""
        return self.reason == BUILDERS_ONLY


FAIL_NEVER = 99
"""A threshold that no severity reaches (``--fail-on never``)."""


@dataclass(frozen=True)
class Report:
    """The result for one target. ``ok`` is the gate: checked, and nothing at or above ``fail_on``."""

    target: str
    format: str
    status: Status = Status.OK
    failure: Failure | None = None
    parameters: int = 0
    seconds: float = 0.0
    probe: ProbeSummary = ProbeSummary()
    layers: tuple[LayerRow, ...] = ()
    findings: tuple[Finding, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()
    not_checked: tuple[NotChecked, ...] = ()
    skipped_rules: tuple[SkippedRule, ...] = ()
    fail_on: int = Severity.ERROR

    @property
    def headlines(self) -> tuple[Finding, ...]:
        """Findings that are nobody's consequence."""
        return tuple(finding for finding in self.findings if finding.caused_by is None)

    def count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for finding in self.headlines)

    @property
    def exit_status(self) -> int:
        if self.failure is not None:
            return self.failure.kind.exit_status
        return int(any(finding.severity >= self.fail_on for finding in self.headlines))

    @property
    def ok(self) -> bool:
        return self.status is Status.OK and self.exit_status == 0

    def raise_for_findings(self) -> None:
        """Raise ``FindingsError`` with the report as its message whenever ``ok`` is false."""
        __tracebackhide__ = True  # pytest shows the caller's line
        if not self.ok:
            raise FindingsError(str(self))

    def __str__(self) -> str:
        from .reporters.as_text import render_plain

        return render_plain(self)

    def to_dict(self) -> dict[str, Any]:
        """One entry of ``reports`` in the JSON contract (``initlint/schema.json``)."""
        from .reporters.as_json import report_to_dict

        return report_to_dict(self)


_EXIT_ORDER = (2, 4, 1, 3, 0)


@dataclass(frozen=True)
class Run:
    """One invocation of the command line: many reports, one exit status."""

    reports: tuple[Report, ...] = field(default_factory=tuple)

    @property
    def exit_status(self) -> int:
        """The first of 2, 4, 1, 3, 0 that occurred."""
        occurred = {report.exit_status for report in self.reports}
        return next((status for status in _EXIT_ORDER if status in occurred), 0)

    def summary(self) -> Mapping[str, int]:
        return {
            "errors": sum(report.count(Severity.ERROR) for report in self.reports),
            "warnings": sum(report.count(Severity.WARNING) for report in self.reports),
            "notes": sum(report.count(Severity.NOTE) for report in self.reports),
            "exit_status": self.exit_status,
        }

    def to_dict(self) -> dict[str, Any]:
        """The whole JSON contract (``initlint/schema.json``)."""
        from .reporters.as_json import run_to_dict

        return run_to_dict(self)
