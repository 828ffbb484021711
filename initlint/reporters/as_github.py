"""Workflow commands of GitHub Actions: one annotation per finding, the gravest first.

GitHub shows ten annotations of each level per step and drops the others. Those that are left out stand in the step's
summary (``output.py`` writes it), and a closing line says how many they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..plugin import Finding, Severity
from ..report import Report, Run
from .coverage import gaps
from .grouping import Grouped, grouped
from .layout import Detail, Layout
from .places import path_of
from .sentences import account, short_name
from .wording import plural, printable

MOST = 10
"""Annotations of one level that GitHub shows for a step (docs.github.com/rest/checks/runs: ten errors and ten warnings;
nothing is said of notices, which are held to the same)."""

_NAMED = 10
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
"""In the order in which they are written."""


@dataclass(frozen=True)
class _Annotation:
    level: str
    title: str
    path: str | None
    message: str

    def __str__(self) -> str:
        properties = [f"title={_property(self.title)}"]
        if self.path is not None:
            properties = [f"file={_property(printable(self.path))}", "line=1", *properties]
        return f"::{self.level} {','.join(properties)}::{_data(self.message)}"


def render(run: Run, layout: Layout) -> str:
    by_level: dict[str, list[_Annotation]] = {level: [] for level in _LEVELS.values()}
    for annotation in _annotations(run, layout):
        by_level[annotation.level].append(annotation)
    most = MOST if layout.step_summary else None
    lines = [str(annotation) for level in by_level.values() for annotation in level[:most]]
    if most is not None and any(len(level) > most for level in by_level.values()):
        lines.append(_closing({name: len(level) - most for name, level in by_level.items()}))
    return "".join(f"{line}\n" for line in lines)


def _annotations(run: Run, layout: Layout) -> Iterator[_Annotation]:
    """Failures, what was not checked, findings: in each level the former are not crowded out by the latter."""
    for report in run.reports:
        yield from _failure(report, path_of(report, layout))
    for report in run.reports:
        yield from _not_checked(report, path_of(report, layout))
    for report in run.reports:
        path, groups = path_of(report, layout), grouped(report, Detail.VERBOSE)
        for finding in report.headlines:
            yield _of_finding(report, finding, groups, path)


def _not_checked(report: Report, path: str | None) -> Iterator[_Annotation]:
    lines = [f"{gap.kind}: {gap.line(_NAMED)}" for gap in gaps(report)]
    if lines:
        message = "\n".join([f"{short_name(report.target)}: not everything was checked", *lines])
        yield _Annotation("notice", "initlint: not checked", path, message)


def _failure(report: Report, path: str | None) -> Iterator[_Annotation]:
    if report.failure is not None:
        message = f"{short_name(report.target)}: {report.status}: {printable(report.failure.message)}"
        yield _Annotation("error", f"initlint: {report.failure.kind}", path, message)


def _of_finding(report: Report, finding: Finding, groups: Grouped, path: str | None) -> _Annotation:
    message = account(report.target, finding, groups.consequences(finding))
    return _Annotation(_LEVELS[finding.severity], f"initlint: {printable(finding.rule)}", path, message)


def _closing(left_out: dict[str, int]) -> str:
    told = [plural(count, level) for level, count in left_out.items() if count > 0]
    return f"initlint: {', '.join(told)} without an annotation (GitHub shows {MOST} a level): see the step's summary"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
