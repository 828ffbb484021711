"""What was not checked and why: an empty list of findings means little without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ..baseline import REASON
from ..report import Report
from ..settings import Allow
from .grouping import grouped
from .layout import Detail, Layout
from .sentences import whole_place
from .wording import listing, plural, printable

_RULES, _PLACES = 6, 3
"""How many skipped rules and unchecked places are named without -v."""

Line = tuple[str, str]
"""A label and what it labels."""


class GapKind(StrEnum):
    """What kind of thing was not checked, in words for people."""

    NOT_PROBED = "not probed"
    SKIPPED_RULES = "skipped rules"
    NOT_CHECKED = "not checked"
    FOLDED = "folded"

    @property
    def identifier(self) -> str:
        """The same for programs."""
        return self.replace(" ", "-")


@dataclass(frozen=True, slots=True)
class Gap:
    """Something of a target that was not checked, for one reason."""

    kind: GapKind
    subjects: tuple[str, ...]
    """Rules or addresses; none where it is the whole target."""
    reason: str

    def line(self, most: int) -> str:
        """One line for people, naming up to ``most`` subjects."""
        if not self.subjects:
            return printable(self.reason)
        return f"{listing(self.subjects, most)}: {printable(self.reason)}"


def gaps(report: Report) -> Iterator[Gap]:
    """All that was not checked of a target, its failure aside; nothing where the report covers everything."""
    if report.not_probed:
        yield Gap(GapKind.NOT_PROBED, (), report.not_probed)
    for reason, rules in skipped(report, everything=False).items():
        yield Gap(GapKind.SKIPPED_RULES, tuple(rules), reason)
    for reason, places in not_checked(report).items():
        yield Gap(GapKind.NOT_CHECKED, tuple(places), reason)
    if orphans := grouped(report, Detail.NORMAL).orphans:
        yield Gap(GapKind.FOLDED, (), _followed(len(orphans)))


def skipped(report: Report, everything: bool) -> dict[str, list[str]]:
    """Names of rules by the reason; those meant for other kinds of targets only with ``everything``."""
    by_reason: dict[str, list[str]] = {}
    for entry in report.skipped_rules:
        if everything or not entry.is_expected:
            by_reason.setdefault(entry.reason, []).append(entry.rule)
    return by_reason


def not_checked(report: Report) -> dict[str, list[str]]:
    """Addresses by the reason."""
    by_reason: dict[str, list[str]] = {}
    for entry in report.not_checked:
        by_reason.setdefault(entry.reason, []).append(entry.at)
    return by_reason


def suppressed(report: Report) -> Iterator[Line]:
    """How many findings do not count, by what keeps them from it."""
    known = sum(entry.reason == REASON for entry in report.suppressed)
    if allowed := len(report.suppressed) - known:
        yield "allowed", f"{plural(allowed, 'finding')} by the configuration"
    if known:
        yield "known", f"{plural(known, 'finding')} {REASON}"


def coverage(report: Report, layout: Layout, orphans: int) -> Iterator[Line]:
    """Nothing for a report that covers everything."""
    everything = layout.detail is Detail.VERBOSE
    if everything and report.probe.fed:
        yield "probed with", f"{printable(report.probe.fed)}, seed {report.probe.seed}, loss {report.probe.loss}"
    if report.not_probed:
        yield GapKind.NOT_PROBED, printable(report.not_probed)
    yield from _skipped(report, everything)
    yield from _not_checked(report, everything)
    if orphans:
        yield GapKind.FOLDED, _followed(orphans)
    yield from _allowed(report, everything)
    for allow in report.expired:
        yield "expired", printable(expiry(allow))


def _followed(orphans: int) -> str:
    return f"{plural(orphans, 'finding')} that followed from something in a layer left out"


def _skipped(report: Report, everything: bool) -> Iterator[Line]:
    shown = {report.not_probed, report.failure.message if report.failure else ""}
    for reason, rules in skipped(report, everything).items():
        told = "see above" if reason in shown else printable(reason)
        yield (
            f"skipped {plural(len(rules), 'rule')}",
            f"{listing(rules, most=len(rules) if everything else _RULES)} ({told})",
        )


def _not_checked(report: Report, everything: bool) -> Iterator[Line]:
    for reason, places in not_checked(report).items():
        named = listing(places, most=len(places) if everything else _PLACES)
        yield GapKind.NOT_CHECKED, f"{named}: {printable(reason)}"


def _allowed(report: Report, everything: bool) -> Iterator[Line]:
    if everything:
        for entry in report.suppressed:
            where = f"{printable(entry.finding.rule)} at {whole_place(entry.finding)}"
            yield "allowed", f"{where}: {printable(entry.reason)}"
        return
    for label, count in suppressed(report):
        yield label, f"{count} (-v lists them)"


def expiry(allow: Allow) -> str:
    """That an exception is over, as a sentence without its full stop."""
    said = f"the exception for {allow.rule} at {allow.at} ({allow.reason})"
    return f"{said} ended on {allow.until}, so its findings count again"
