"""What was not checked and why: an empty list of findings means little without it."""

from __future__ import annotations

from collections.abc import Iterator

from ..baseline import REASON
from ..probe.signals import Forward
from ..report import Report
from ..settings import Allow
from .layout import Detail, Layout
from .wording import listing, plural, printable

_RULES, _PLACES = 6, 3
"""How many skipped rules and unchecked places are named without -v."""

Line = tuple[str, str]
"""A label and what it labels."""


def coverage(report: Report, layout: Layout, orphans: int) -> Iterator[Line]:
    """Nothing for a report that covers everything."""
    everything = layout.detail is Detail.VERBOSE
    if report.failure is None and report.probe.forward is Forward.NONE and report.probe.reason:
        yield "not probed", printable(report.probe.reason)
    yield from _skipped(report, everything)
    yield from _not_checked(report, everything)
    if orphans:
        yield "folded", f"{plural(orphans, 'finding')} that followed from something in a layer left out"
    yield from _allowed(report, everything)
    for allow in report.expired:
        yield "expired", printable(expiry(allow))


def _skipped(report: Report, everything: bool) -> Iterator[Line]:
    by_reason: dict[str, list[str]] = {}
    for skipped in (each for each in report.skipped_rules if everything or not each.is_expected):
        by_reason.setdefault(skipped.reason, []).append(skipped.rule)
    for reason, rules in by_reason.items():
        told = "see above" if reason == report.probe.reason else printable(reason)
        yield (
            f"skipped {plural(len(rules), 'rule')}",
            f"{listing(rules, most=len(rules) if everything else _RULES)} ({told})",
        )


def _not_checked(report: Report, everything: bool) -> Iterator[Line]:
    by_reason: dict[str, list[str]] = {}
    for entry in report.not_checked:
        by_reason.setdefault(entry.reason, []).append(entry.at)
    for reason, places in by_reason.items():
        yield "not checked", f"{listing(places, most=len(places) if everything else _PLACES)}: {printable(reason)}"


def _allowed(report: Report, everything: bool) -> Iterator[Line]:
    if everything:
        for entry in report.suppressed:
            place = f"{printable(entry.finding.rule)} at {printable(entry.finding.address) or 'the whole model'}"
            yield "allowed", f"{place}: {printable(entry.reason)}"
        return
    known = sum(entry.reason == REASON for entry in report.suppressed)
    if allowed := len(report.suppressed) - known:
        yield "allowed", f"{plural(allowed, 'finding')} by the configuration (-v lists them)"
    if known:
        yield "known", f"{plural(known, 'finding')} {REASON} (-v lists them)"


def expiry(allow: Allow) -> str:
    """That an exception is over, as a sentence without its full stop."""
    said = f"the exception for {allow.rule} at {allow.at} ({allow.reason})"
    return f"{said} ended on {allow.until}, so its findings count again"
