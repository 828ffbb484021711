"""The Report: everything a reporter may know about one target, and the Run that holds many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .baseline import Entry, Standing, vanished
from .builds import BUILDERS_ONLY
from .errors import FailureKind, FindingsError
from .model import Layer, NotChecked
from .plugin import Finding, Severity
from .probe.signals import Backward, Forward, LayerSignal, Loss
from .settings import Allow
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
    fed: str = ""
    """The inputs: name, shape, type, and whether they were made up; empty where there was no run."""


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


@dataclass(frozen=True, slots=True)
class UsedAllow:
    """An exception that is for the target and whose rule ran."""

    allow: Allow
    findings: int
    """How many it meets."""
    is_over: bool = False
    """Its day has passed, so they count again."""


NO_GRADIENTS = "needs gradients, which were not measured"


@dataclass(frozen=True, slots=True)
class SkippedRule:
    rule: str
    reason: str

    @property
    def is_expected(self) -> bool:
        """The rule is for targets of another kind: nothing is missing."""
        return self.reason == BUILDERS_ONLY


@dataclass(frozen=True, slots=True)
class RulePage:
    """A rule that was held against a target, as far as readers of a report need it."""

    name: str
    category: str
    doc: str = ""
    """Markdown; the first line is a sentence."""
    url: str = ""

    @property
    def summary(self) -> str:
        return self.doc.partition("\n")[0]


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
    exceptions: tuple[UsedAllow, ...] = ()
    """Empty for a target that was not checked to the end."""
    standing: Standing | None = None
    """To the baseline; None without one, and for a target that was not checked to the end."""
    fail_on: int = Severity.ERROR
    rules: tuple[RulePage, ...] = field(default=(), repr=False)
    """All that were held against the target, skipped ones too; none where it could not be opened."""

    @property
    def headlines(self) -> tuple[Finding, ...]:
        """Findings that are nobody's consequence."""
        return tuple(finding for finding in self.findings if finding.caused_by is None)

    @property
    def expired(self) -> tuple[Allow, ...]:
        """Exceptions whose findings count again."""
        return tuple(used.allow for used in self.exceptions if used.is_over and used.findings)

    @property
    def not_probed(self) -> str:
        """Why a target that did not fail has no signals; empty where it has some, or needs none."""
        probe = self.probe
        return probe.reason if self.failure is None and probe.forward is Forward.NONE else ""

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

    @property
    def unused_exceptions(self) -> tuple[Allow, ...]:
        """Exceptions that met no finding in any target that they are for."""
        uses = [used for report in self.reports for used in report.exceptions]
        met = [used.allow for used in uses if used.findings]
        return tuple(dict.fromkeys(used.allow for used in uses if used.allow not in met))

    @property
    def vanished(self) -> tuple[Entry, ...]:
        """Findings of the baseline that are no more."""
        return vanished(report.standing for report in self.reports if report.standing is not None)

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
