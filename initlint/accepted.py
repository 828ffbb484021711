"""What a project has accepted: findings that its exceptions allow, and those that its baseline knows.

A consequence stands or falls with its cause, but for one case: what is new is told although it follows from something
that the baseline knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from .baseline import REASON, Baseline, Entry, Standing, recognised
from .causes import fold, raised
from .model import Model
from .plugin import Finding, Rule, Severity
from .report import Suppressed, UsedAllow
from .settings import Allow


@dataclass(frozen=True)
class Acceptance:
    """What is accepted in one target."""

    target: str
    allow: tuple[Allow, ...] = ()
    """Those for this target, over or not."""
    baseline: Baseline | None = None
    known: tuple[Entry, ...] = ()
    today: date = date.min

    def reasons(self, findings: Sequence[Finding]) -> dict[int, str]:
        """Why a finding is allowed, by its position; what follows from an allowed one is allowed with it."""
        inforce = [allow for allow in self.allow if not allow.is_over(self.today)]
        own: dict[tuple[str, str], str] = {}
        for finding in findings:
            allow = next((allow for allow in inforce if allow.covers(finding)), None)
            if allow is not None:
                own[finding.rule, finding.address] = allow.reason
        reasons = {}
        for i, finding in enumerate(findings):
            reason = own.get((finding.rule, finding.address))
            if reason is None and finding.caused_by is not None:
                reason = own.get((finding.caused_by.rule, finding.caused_by.address))
            if reason is not None:
                reasons[i] = reason
        return reasons

    def uses(self, findings: Sequence[Finding], ran: Callable[[str], bool]) -> tuple[UsedAllow, ...]:
        """How many findings each exception meets, of those whose rule ran."""
        return tuple(
            UsedAllow(allow, sum(allow.covers(each) for each in findings), allow.is_over(self.today))
            for allow in self.allow
            if ran(allow.rule)
        )

    def standing(
        self, found: Sequence[Finding], covered: Sequence[Finding], ran: Callable[[str], bool]
    ) -> Standing | None:
        """How the target stands to the baseline; ``found`` holds what ``layers`` hides too. None without a baseline."""
        if self.baseline is None:
            return None
        allowed = self.reasons(covered)
        counting = [finding for i, finding in enumerate(covered) if i not in allowed]
        label = self.baseline.label(self.target)
        seen = {(finding.rule, finding.address) for finding in found}
        counted = {(finding.rule, finding.address) for finding in counting}
        return Standing(
            label,
            current=tuple(Entry(label, each.rule, each.address, each.severity) for each in counting),
            met=tuple(entry for entry in self.known if (entry.rule, entry.address) in counted),
            vanished=tuple(
                entry for entry in self.known if (entry.rule, entry.address) not in seen and ran(entry.rule)
            ),
        )


@dataclass(frozen=True)
class Sorted:
    findings: tuple[Finding, ...]
    suppressed: tuple[Suppressed, ...]


def sort_out(model: Model, rules: Mapping[str, Rule], found: Sequence[Finding], acceptance: Acceptance) -> Sorted:
    """What counts and what is accepted, each in the order of ``found``."""
    reasons = acceptance.reasons(found)
    counting = [i for i in range(len(found)) if i not in reasons]
    entries = dict(zip(counting, recognised([found[i] for i in counting], acceptance.known), strict=True))
    known = _known(found, entries)
    reasons |= dict.fromkeys(known, REASON)
    new = [i for i in counting if i not in known]
    causes = {(found[i].rule, found[i].address) for i in known}
    homeless = [i for i in new if (cause := found[i].caused_by) and (cause.rule, cause.address) in causes]
    told = {i: found[i] for i in new} | _rehomed(model, rules, found, new, homeless)
    return Sorted(
        tuple(told[i] for i in new),
        tuple(Suppressed(found[i], reason) for i, reason in sorted(reasons.items())),
    )


def _known(found: Sequence[Finding], entries: Mapping[int, Entry | None]) -> set[int]:
    """Positions of what is no louder than its entry.

    A cause takes over the severity that its consequences prove. Where new ones made it louder they are what is new, and
    are told in its place.
    """
    known = {i for i, entry in entries.items() if entry is not None and found[i].severity <= entry.severity}
    louder: dict[tuple[str, str], Severity] = {}
    for i in entries.keys() - known:
        if (cause := found[i].caused_by) is not None:
            at = cause.rule, cause.address
            louder[at] = max(found[i].severity, louder.get(at, Severity.NOTE))
    for i, entry in entries.items():
        at = found[i].rule, found[i].address
        if entry is not None and louder.get(at, Severity.NOTE) >= found[i].severity > entry.severity:
            known.add(i)
    return known


def _rehomed(
    model: Model, rules: Mapping[str, Rule], found: Sequence[Finding], new: Sequence[int], homeless: Sequence[int]
) -> dict[int, Finding]:
    """New findings that were folded under known ones, under a new cause if there is one, else by themselves; and new
    causes with the severity that this proves."""
    if not homeless:
        return {}
    heads = [i for i in new if found[i].caused_by is None or i in homeless]
    pool = [replace(found[i], caused_by=None) for i in heads]
    folded = fold(model, pool, rules)
    placed = [
        replace(alone, caused_by=told.caused_by) if i in homeless else alone
        for i, alone, told in zip(heads, pool, folded, strict=True)
    ]
    return dict(zip(heads, raised(placed), strict=True))
